"""doccano: a document for each label, for a project of text classification.

doccano exports what nobody has looked at like what somebody has approved. So documents come without
labels, the proposal stands in the metadata, and a document that comes back without labels says
nothing. Classes of a whole text have no offsets, which tools count in different ways.

Format: https://doccano.github.io/doccano/tutorial/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harmonizer_assets.core.review.exchange.base import Drawn, Format, Opinion, Returned, Unusable
from harmonizer_assets.core.review.exchange.json_files import (
    MALFORMED,
    MEMBER,
    NO_LABEL,
    chosen_labels,
    read_lines,
    text_or_none,
    write_lines,
)
from harmonizer_assets.core.review.exchange.records import (
    ExchangeRecord,
    packed_text,
    unpacked_text,
)


class Doccano(Format):
    """Documents as JSONL; the file of each annotator is imported by itself."""

    name = "doccano"
    suffix = ".jsonl"

    def write(
        self, path: Path, records: Sequence[ExchangeRecord], label_types: Sequence[str]
    ) -> None:
        """Write a document for each label."""
        del label_types
        write_lines(path, map(_document, records))

    def config(self, label_types: Sequence[str]) -> tuple[str, str]:
        """Write the labels of the project, to be imported there."""
        labels = [{"text": name} for name in (*label_types, NO_LABEL)]
        return ".labels.json", json.dumps(labels, ensure_ascii=False) + "\n"

    def read(self, path: Path) -> Iterator[Returned | Drawn | Unusable]:
        """Read the documents of one annotator, or of a project that all share."""
        for place, document in read_lines(path):
            try:
                record = unpacked_text(document.get(MEMBER))
                labels = document.get("label", document.get("labels")) or ()
                by = text_or_none(document.get("username"))
                opinions = (Opinion(chosen_labels(labels), by),) if labels else ()
            except MALFORMED as error:
                yield Unusable(place, str(error))
                continue
            yield Returned(place, record, opinions)


def _document(record: ExchangeRecord) -> dict[str, Any]:
    proposal = record.proposal
    return {
        "text": record.shown_text,
        "label": [],
        "merchant": record.merchant_name,
        "label_now": record.key.label,
        "proposed": ", ".join(record.proposed_labels) or NO_LABEL if proposal else None,
        "reasoning": proposal.reasoning if proposal else None,
        MEMBER: packed_text(record),
    }
