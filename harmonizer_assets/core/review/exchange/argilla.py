"""Argilla 2: records as `Record.to_dict` writes them, in one JSON array.

The proposal is a suggestion to the question `labels`, with score and agent. What identifies the
label is in the metadata, as JSON, since values of metadata are plain.

Format: https://docs.argilla.io/latest/reference/argilla/records/records
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.review.exchange.base import Drawn, Format, Opinion, Returned, Unusable
from harmonizer_assets.core.review.exchange.json_files import (
    MALFORMED,
    MEMBER,
    NO_LABEL,
    chosen_labels,
    read_array,
    text_or_none,
    write_array,
)
from harmonizer_assets.core.review.exchange.records import (
    ExchangeRecord,
    packed_text,
    unpacked_text,
)

QUESTION: Final = "labels"
NOTE: Final = "note"


class Argilla(Format):
    """Records of a dataset with the questions `labels` (several labels) and `note` (text)."""

    name = "argilla"
    suffix = ".json"

    def write(
        self, path: Path, records: Sequence[ExchangeRecord], label_types: Sequence[str]
    ) -> None:
        """Write a record for each label."""
        del label_types
        write_array(path, map(_record, records))

    def config(self, label_types: Sequence[str]) -> tuple[str, str]:
        """Write the labels of the question as a JSON list."""
        return ".labels.json", json.dumps([*label_types, NO_LABEL], ensure_ascii=False) + "\n"

    def read(self, path: Path) -> Iterator[Returned | Drawn | Unusable]:
        """Read the records with the responses of everybody."""
        for place, row in read_array(path, "record"):
            try:
                record = unpacked_text((row.get("metadata") or {}).get(MEMBER))
                opinions = tuple(_opinions(row.get("responses") or {}))
            except MALFORMED as error:
                yield Unusable(place, str(error))
                continue
            yield Returned(place, record, opinions)


def _record(record: ExchangeRecord) -> dict[str, Any]:
    fields = {
        "text": record.text,
        "line": record.line,
        "merchant": record.merchant_name,
        "label": record.key.label,
        "reasoning": record.proposal.reasoning if record.proposal else None,
    }
    return {
        "id": "/".join(map(str, record.key)),
        "fields": {name: text for name, text in fields.items() if text is not None},
        "metadata": {MEMBER: packed_text(record)},
        "suggestions": _suggestions(record),
        "responses": {},
        "vectors": {},
        "status": "pending",
        "_server_id": None,
    }


def _suggestions(record: ExchangeRecord) -> dict[str, Any]:
    if record.proposal is None:
        return {}
    value = record.proposed_labels or [NO_LABEL]
    score = None if record.confidence is None else [record.confidence]
    return {
        QUESTION: {
            "value": value,
            "score": score,
            "agent": record.proposal.decided_by or "label-harmonizer",
        }
    }


def _opinions(responses: Mapping[str, Any]) -> Iterator[Opinion]:
    notes = {one.get("user_id"): one.get("value") for one in responses.get(NOTE) or ()}
    for one in responses.get(QUESTION) or ():
        value, user = one.get("value"), one.get("user_id")
        if value is not None:
            note = text_or_none(notes.get(user))
            yield Opinion(chosen_labels(value), text_or_none(user), note)
