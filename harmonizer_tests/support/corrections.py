"""Corrections for tests: made by hand, of labels as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from harmonizer_assets.core.apply.apply import Brake, apply_corrections
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.correction import WANTED, CorrectionReport
from harmonizer_assets.core.records.label import LABEL_KEY, word_key
from harmonizer_tests.support.receipts import table

NO_BRAKE = Brake(1.0, 0)


def labels(pipeline: Pipeline) -> list[dict[str, Any]]:
    """All rows of the table, to the byte."""
    return table(pipeline, "labels")


def label(pipeline: Pipeline, key: Sequence[Any]) -> dict[str, Any] | None:
    """The row of one label."""
    found = [row for row in labels(pipeline) if tuple(row[name] for name in LABEL_KEY) == (*key,)]
    return found[0] if found else None


def correction(
    row: Mapping[str, Any], action: str, to_label: str | None = None, **changed: Any
) -> dict[str, Any]:
    """A correction of a label as it is, by a person called ann."""
    return {
        **dict.fromkeys(WANTED.names),
        **{name: row[name] for name in LABEL_KEY},
        "action": action,
        "to_label": to_label,
        "source": "person",
        "actor": "ann",
        "reasoning": "it's wrong",
        "seen_status": row["validation_status"],
        **changed,
    }


def applied(
    pipeline: Pipeline, *wanted: Mapping[str, Any], brake: Brake = NO_BRAKE, commit: bool = True
) -> CorrectionReport:
    """Apply corrections, by ann; unless the rows say otherwise, the words were seen as they are."""
    texts = {word_key(row): row["text"] for row in table(pipeline, "words")}
    seen = [{**row, "seen_text": row["seen_text"] or texts.get(word_key(row))} for row in wanted]
    rows = pa.Table.from_pylist(seen, WANTED)
    return apply_corrections(pipeline.warehouse, rows, brake, actor="ann", commit=commit)
