"""The summary of files that arrive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_SHOWN: Final = 12
"""Label types that are named."""


@dataclass(frozen=True)
class Rejected:
    """Rows that cannot be used for one reason.

    Attributes:
        table_name: `words` or `labels`; `source` for what an import has left out of a file of
            another format before it was any of them.
        reason: what is wrong with them.
        rows: how many there are.
        file, row_number: where the first of them stands; `source_row` in another format.
        remedy: what to do about it.
    """

    table_name: str
    reason: str
    rows: int
    file: str
    row_number: int | None
    remedy: str
    source_row: str | None = None

    @property
    def place(self) -> str:
        """File and row of the first of them."""
        row = f"row {self.row_number}" if self.source_row is None else self.source_row
        return f"{self.file}: {row}" if row else self.file


@dataclass(frozen=True)
class InputSummary:
    """What is in a words file and a labels file.

    Attributes:
        receipts, words, labels, merchants: how many can be used.
        without_position: words whose place on the image is not known.
        outside: words whose box reaches out of the image.
        mis_encoded: words whose text looks as if it had been read in another encoding.
        without_merchant: labels that name none; `without_word`: those whose word is not in the
            words file, where one is given.
        rejected: rows that would be quarantined; `duplicates`: those among them that come twice.
        label_types, statuses: labels by type and by status, the most frequent first.
        reasons: why rows would be quarantined, the most frequent first.
    """

    receipts: int
    words: int
    labels: int
    merchants: int
    without_position: int
    outside: int
    mis_encoded: int
    without_merchant: int
    without_word: int
    rejected: int
    duplicates: int
    label_types: Mapping[str, int] = field(default_factory=dict)
    statuses: Mapping[str, int] = field(default_factory=dict)
    reasons: Sequence[Rejected] = ()

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield names and values to be shown; no text of receipts is in them."""
        yield "words", f"{self.words:,} on {self.receipts:,} receipts"
        yield (
            "labels",
            f"{self.labels:,} of {len(self.label_types):,} types" + _named(self.label_types),
        )
        if self.labels:
            yield "statuses", ", ".join(f"{name} {n:,}" for name, n in self.statuses.items())
            unnamed = f"; {self.without_merchant:,} labels name none"
            yield "merchants", f"{self.merchants:,}{unnamed if self.without_merchant else ''}"
        if self.words:
            share = 100 * self.without_position / self.words
            yield "without position", f"{self.without_position:,} words ({share:.1f} %)"
        for name, count, what in self._gaps():
            if count:
                yield name, f"{count:,} {what}"
        duplicates = f", {self.duplicates:,} of them doubles" if self.duplicates else ""
        yield "cannot be used", f"{self.rejected:,} rows{duplicates}"

    def _gaps(self) -> Iterator[tuple[str, int, str]]:
        yield "outside", self.outside, "words reach out of their image: up to 5 % is clipped"
        yield (
            "mis-encoded",
            self.mis_encoded,
            "texts look as if they had been read in another encoding: save the source as UTF-8",
        )
        yield "without word", self.without_word, "labels are on words that the words file lacks"


def _named(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} {n:,}" for name, n in [*counts.items()][:_SHOWN])
    more = f" and {len(counts) - _SHOWN:,} more" if len(counts) > _SHOWN else ""
    return f": {shown}{more}" if counts else ""
