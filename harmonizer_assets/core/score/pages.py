"""Pages: the words of receipts as arrays, with the labels that they carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from harmonizer_assets.core.base.sql import text_list, texts_in
from harmonizer_assets.core.index.layout import read_layout
from harmonizer_assets.core.records.label import WORD_COLUMNS, WORD_KEY
from harmonizer_assets.core.records.status import WEIGHTS

_LABELS = f"""
SELECT p.word, l.label, l.validation_status
FROM labels_as_evidence l JOIN page p USING ({WORD_COLUMNS})
WHERE l.label IN {texts_in("$label_types")}
ORDER BY p.word, l.label
"""

_MOST_KEYS: Final = 2**62
"""Keys of several columns are numbered as if all values met, as long as 64 bits can hold that."""


@dataclass(frozen=True)
class Page:
    """The w words of some receipts in reading order, and their m labels.

    Attributes:
        keys: w rows, the four ids of each word.
        texts: w texts.
        receipt: shape (w,), number of the receipt, ascending.
        row: shape (w,), number of the row, ascending over all receipts.
        x, y: shape (w,), centre in 0..1 of what the receipt's words cover; NaN without positions.
        height: shape (w,), in median heights of the receipt; NaN without positions.
        label_word: shape (m,), the word of each label, ascending.
        label_type: shape (m,), number of its label type.
        trust: shape (m,), see `trust_of`.
        statuses: m statuses.
        n_types: how many label types there are.
    """

    keys: pa.Table
    texts: Sequence[str]
    receipt: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    height: npt.NDArray[np.float64]
    label_word: npt.NDArray[np.int64]
    label_type: npt.NDArray[np.int64]
    trust: npt.NDArray[np.float64]
    statuses: Sequence[str]
    n_types: int

    @property
    def n_words(self) -> int:
        """The number of words."""
        return len(self.texts)

    def parts(self, words: int) -> Iterator[tuple[int, Page]]:
        """Split the page into pages of whole receipts with about so many words.

        Yields:
            The number of each part's first word, and the part.
        """
        starts = np.flatnonzero(np.diff(self.receipt, prepend=-1))
        firsts = starts[np.diff(starts // words, prepend=-1) > 0].tolist()
        for start, end in zip(firsts, [*firsts[1:], self.n_words], strict=True):
            yield start, self._part(start, end)

    def words_of(self, labels: pa.Table) -> npt.NDArray[np.int64]:
        """Find the words of n labels: shape (n,), -1 for a label whose word is not on the page."""
        return _found(labels, self.keys, list(WORD_KEY))

    def receipts_of(self, labels: pa.Table) -> npt.NDArray[np.int64]:
        """Find the receipts of n labels: shape (n,), -1 for a receipt that is not on the page."""
        word = _found(labels, self.keys, ["image_id", "receipt_id"])
        if not self.n_words:
            return word
        return np.where(word >= 0, self.receipt[word], -1)

    def of_receipts(self, receipts: npt.NDArray[np.int64]) -> Page:
        """Keep the words of some receipts, as if these alone had been read.

        Args:
            receipts: numbers of receipts.
        """
        is_kept = np.zeros(self.receipt.max(initial=-1) + 1, dtype=bool)
        is_kept[receipts] = True
        words = np.flatnonzero(is_kept[self.receipt])
        at = np.full(self.n_words, -1, dtype=np.int64)
        at[words] = np.arange(len(words))
        labels = np.flatnonzero(at[self.label_word] >= 0)
        return Page(
            keys=self.keys.take(words),
            texts=[self.texts[word] for word in words.tolist()],
            receipt=_renumbered(self.receipt[words]),
            row=_renumbered(self.row[words]),
            x=self.x[words],
            y=self.y[words],
            height=self.height[words],
            label_word=at[self.label_word[labels]],
            label_type=self.label_type[labels],
            trust=self.trust[labels],
            statuses=[self.statuses[label] for label in labels.tolist()],
            n_types=self.n_types,
        )

    def _part(self, start: int, end: int) -> Page:
        inside = slice(start, end)
        labels = slice(*np.searchsorted(self.label_word, [start, end]).tolist())
        return Page(
            keys=self.keys.slice(start, end - start),
            texts=self.texts[inside],
            receipt=self.receipt[inside] - self.receipt[start],
            row=self.row[inside] - self.row[start],
            x=self.x[inside],
            y=self.y[inside],
            height=self.height[inside],
            label_word=self.label_word[labels] - start,
            label_type=self.label_type[labels],
            trust=self.trust[labels],
            statuses=self.statuses[labels],
            n_types=self.n_types,
        )


def _renumbered(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number ascending numbers anew, without gaps."""
    return np.cumsum(np.diff(numbers, prepend=numbers[:1]) != 0).astype(np.int64)


def _found(rows: pa.Table, among: pa.Table, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Find n rows in another table by some columns: shape (n,), the first number there, or -1."""
    key, kinds = np.zeros(among.num_rows + rows.num_rows, dtype=np.int64), 1
    for name in names:
        both = pa.chunked_array([*among[name].chunks, *rows[name].chunks])
        values = both.combine_chunks().dictionary_encode()
        if kinds * len(values.dictionary) > _MOST_KEYS:
            _, key = np.unique(key, return_inverse=True)
            kinds = len(key)
        key = key * len(values.dictionary) + values.indices.to_numpy()
        kinds *= len(values.dictionary)
    there, asked = pa.array(key[: among.num_rows]), pa.array(key[among.num_rows :])
    return np.asarray(pc.index_in(asked, there).fill_null(-1).to_numpy(), dtype=np.int64)


def read_page(
    con: duckdb.DuckDBPyConnection, receipts: pa.Table, label_types: Sequence[str]
) -> Page:
    """Read all words and labels of some receipts.

    Args:
        con: a connection inside a transaction.
        receipts: columns `image_id` and `receipt_id`, without doubles.
        label_types: names of the label types; other labels are ignored.
    """
    words = read_layout(con, receipts)
    keys = words.select(WORD_KEY)
    con.register("page", keys.append_column("word", pa.array(np.arange(words.num_rows))))
    labels = con.execute(_LABELS, {"label_types": text_list(label_types)}).to_arrow_table()
    con.unregister("page")
    receipt = words["receipt"].to_numpy().astype(np.int64)
    row_in_receipt = words["row"].to_numpy().astype(np.int64)
    starts = (np.diff(receipt, prepend=-1) != 0) | (np.diff(row_in_receipt, prepend=-1) != 0)
    number = {name: column for column, name in enumerate(label_types)}
    statuses = labels["validation_status"].to_pylist()

    def floats(name: str) -> npt.NDArray[np.float64]:
        return np.asarray(words[name].to_numpy(), dtype=np.float64)

    return Page(
        keys=keys,
        texts=words["text"].to_pylist(),
        receipt=receipt,
        row=np.cumsum(starts) - 1,
        x=floats("x"),
        y=floats("y"),
        height=floats("height"),
        label_word=labels["word"].to_numpy().astype(np.int64),
        label_type=np.array([number[name] for name in labels["label"].to_pylist()], dtype=np.int64),
        trust=trust_of(statuses),
        statuses=statuses,
        n_types=len(label_types),
    )


def trust_of(statuses: Sequence[str]) -> npt.NDArray[np.float64]:
    """Look up the trust in labels by their status: shape (n,), 0..1."""
    return np.array([WEIGHTS[status].trust for status in statuses], dtype=np.float64)
