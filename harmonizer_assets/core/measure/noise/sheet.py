"""The sheet: the words of labelled receipts in reading order, as an annotator sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa

from harmonizer_assets.core.index.layout import read_layout
from harmonizer_assets.core.records.label import WordKey, label_keys, word_keys
from harmonizer_assets.core.score.features import shapes_of

ANNOTATOR_COLUMN: Final = "annotator"
"""Column of labels that names who made them."""

_VALUES: Final = frozenset({"money", "date", "time", "phone", "percent", "count", "number", "code"})


class Word(NamedTuple):
    """A word of a receipt.

    Attributes:
        key, text: of the word.
        number: of the label that it carries, or None: it carries none, or several.
        label: the label's type.
        free: whether it carries no label.
        is_value: whether it reads like an amount, a number or a code, and not like a caption.
    """

    key: WordKey
    text: str
    number: int | None
    label: str | None
    free: bool
    is_value: bool


class Labelled(NamedTuple):
    """A word that carries one label, with the label's number and type."""

    number: int
    label: str
    text: str


@dataclass(frozen=True)
class Sheet:
    """Labelled receipts.

    Attributes:
        receipts: of each receipt its rows from the top, of each row its words from the left.
        merchants: n names, of each label's merchant, or None.
        annotators: n names, of who made each label; None if the data does not say.
    """

    receipts: Sequence[Sequence[Sequence[Word]]]
    merchants: Sequence[str | None]
    annotators: Sequence[str | None] | None

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, labels: pa.Table) -> Sheet:
        """Lay out the receipts that hold labels.

        Args:
            con: with a table or view `words`.
            labels: n rows, in the order in which they are numbered.
        """
        receipts = labels.select(["image_id", "receipt_id"])
        receipts = receipts.group_by(["image_id", "receipt_id"]).aggregate([])
        layout = read_layout(con, receipts)
        carried: dict[WordKey, list[int]] = {}
        keys = list(label_keys(labels))
        for number, key in enumerate(keys):
            carried.setdefault(key.word, []).append(number)
        texts = [text or "" for text in layout["text"].to_pylist()]
        words = []
        rows = zip(word_keys(layout), texts, shapes_of(texts), strict=True)
        for word, text, shape in rows:
            numbers = carried.get(word, [])
            one = numbers[0] if len(numbers) == 1 else None
            label = None if one is None else keys[one].label
            words.append(Word(word, text, one, label, not numbers, shape in _VALUES))
        places = zip(layout["receipt"].to_pylist(), layout["row"].to_pylist(), words, strict=True)
        nothing = [None] * labels.num_rows
        names = labels.column_names
        return cls(
            [
                [[word for _, _, word in row] for _, row in groupby(receipt, lambda p: p[1])]
                for _, receipt in groupby(places, lambda place: place[0])
            ],
            labels["merchant_name"].to_pylist() if "merchant_name" in names else nothing,
            labels[ANNOTATOR_COLUMN].to_pylist() if ANNOTATOR_COLUMN in names else None,
        )

    @cached_property
    def rows(self) -> Sequence[Sequence[Word]]:
        """The rows of all receipts."""
        return [row for receipt in self.receipts for row in receipt]

    @cached_property
    def deserved(self) -> frozenset[tuple[str, str]]:
        """Texts, in small letters, with the types that they carry somewhere."""
        return frozenset(
            (_plain(word.text), word.label)
            for row in self.rows
            for word in row
            if word.label is not None
        )

    def deserves(self, word: Word, label: str) -> bool:
        """Return whether a word may deserve a label: its text carries that type elsewhere."""
        return (_plain(word.text), label) in self.deserved


def runs_of(row: Sequence[Word]) -> Iterator[tuple[str, list[Word]]]:
    """Split a row into runs of words with one label type; words with none or several part them."""
    for label, run in groupby(row, lambda word: word.label):
        if label is not None:
            yield label, list(run)


def labelled(receipt: Sequence[Sequence[Word]]) -> list[Labelled]:
    """List the words of a receipt that carry one label."""
    return [
        Labelled(word.number, word.label, word.text)
        for row in receipt
        for word in row
        if word.number is not None and word.label is not None
    ]


def numbers_of(words: Sequence[Word]) -> list[int]:
    """List the numbers of the labels on some words."""
    return [word.number for word in words if word.number is not None]


def _plain(text: str) -> str:
    return text.strip().lower()
