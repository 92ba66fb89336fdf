"""Pages: the words of receipts as arrays, with the labels that they carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

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

    def of_receipts(self, receipts: pa.Table) -> Page:
        """Keep the words of some receipts, as if these alone had been read.

        Args:
            receipts: columns `image_id` and `receipt_id`, without doubles.
        """
        ids = ["image_id", "receipt_id"]
        firsts = np.flatnonzero(np.diff(self.receipt, prepend=-1))
        numbered = self.keys.select(ids).take(firsts)
        numbered = numbered.append_column("receipt", pa.array(self.receipt[firsts]))
        found = numbered.join(receipts, keys=ids, join_type="left semi")
        is_kept = np.zeros(self.receipt.max(initial=-1) + 1, dtype=bool)
        is_kept[found["receipt"].to_numpy()] = True
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
