"""Tables: a row for each label, with columns in which people answer.

A person writes `right`, `wrong`, `skip` or `add` into the column `answer`: the label is right,
wrong, not for now, or right and the word has the label in `answer_label` as well. Of a label that
is wrong, `answer_label` says which one is right; empty means none. A second reviewer gets a copy of
the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.ingest.readers import read_table
from harmonizer_assets.core.review.exchange.base import Drawn, Format, Opinion, Returned, Unusable
from harmonizer_assets.core.review.exchange.json_files import MEMBER
from harmonizer_assets.core.review.exchange.records import (
    FIELDS,
    ExchangeRecord,
    packed,
    packed_text,
    unpacked_text,
)

ANSWER_COLUMNS: Final = ("answer", "answer_label", "answer_note", "answer_by")
NEEDED: Final = ("answer", "check", MEMBER)
"""Columns that a file must have."""
COLUMNS: Final = tuple(dict.fromkeys(("text", "line", "label", *ANSWER_COLUMNS, *FIELDS, MEMBER)))
"""Columns of a table, those that people need first."""


class Tabular(Format):
    """Reads the rows of a table of any kind; the formats write them."""

    def rows(self, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Read the rows, each with its place.

        Raises:
            InputError: the file cannot be read, or lacks a column.
        """
        for number, row in enumerate(read_table(path, NEEDED).to_pylist(), start=1):
            yield f"row {number}", row

    def read(self, path: Path) -> Iterator[Returned | Drawn | Unusable]:
        """Read the rows with what people have answered."""
        for place, row in self.rows(path):
            try:
                record = _record(row)
                opinion = _opinion(row, record)
            except ValueError as error:
                yield Unusable(place, str(error))
                continue
            yield Returned(place, record, () if opinion is None else (opinion,))


def rows_of(records: Sequence[ExchangeRecord]) -> Iterator[dict[str, Any]]:
    """Write records as rows with the columns `COLUMNS`; nobody has answered yet."""
    unanswered = dict.fromkeys(ANSWER_COLUMNS)
    for record in records:
        row = {**packed(record), **unanswered, MEMBER: packed_text(record)}
        yield {name: row[name] for name in COLUMNS}


def _record(row: Mapping[str, Any]) -> ExchangeRecord:
    """Read the record of a row.

    Raises:
        ValueError: it is damaged, or that of another row.
    """
    record = unpacked_text(row.get(MEMBER))
    if row.get("check") != packed(record)["check"]:
        raise ValueError(
            f"check and {MEMBER} are not of the same row: sort whole rows, and leave both columns "
            "as they are"
        )
    return record


def _opinion(row: Mapping[str, Any], record: ExchangeRecord) -> Opinion | None:
    """Read what a person has written into a row; None where it is nothing.

    Raises:
        ValueError: it cannot be understood.
    """
    answer, label, note, by = (_written(row.get(name)) for name in ANSWER_COLUMNS)
    if answer is None:
        if label is not None:
            raise ValueError(f"answer_label is {label!r} and answer is empty: write wrong or add")
        return None
    return Opinion(_labels(answer.lower(), label, record.key.label), by, note)


def _labels(answer: str, label: str | None, current: str) -> tuple[str, ...] | None:
    if answer == "wrong":
        return () if label is None else (label,)
    if answer == "add" and label is not None:
        return (current, label)
    if answer in {"right", "skip"} and label is None:
        return (current,) if answer == "right" else None
    if answer in {"right", "skip", "add"}:
        goes = "needs" if answer == "add" else "takes no"
        raise ValueError(f"answer is {answer}, which {goes} answer_label")
    raise ValueError(f"answer is {answer[:40]!r}: write right, wrong, skip or add")


def _written(value: Any) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None
