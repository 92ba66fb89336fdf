"""Searches for the nearest documents of others: exact, or through Chroma's index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.index.embedders import Vectors

Ints = npt.NDArray[np.int64]
Similarities = npt.NDArray[np.float32]

Ask = Callable[[Vectors], tuple[Ints, Similarities]]
"""Finds the nearest documents of m vectors: corpus rows of shape (m, k), -1 for none, and
similarities."""


class CorpusSearch(Protocol):
    """Finds, for documents of one merchant, the nearest documents that others use."""

    @property
    def width(self) -> int:
        """How many similarities it holds for each document while it searches."""

    def prepare(self, documents: Ints, vectors: Vectors) -> None:
        """Get ready to search for some documents: corpus rows of shape (m,), and their vectors."""

    def nearest(
        self, documents: Ints, eligible: npt.NDArray[np.bool_]
    ) -> tuple[Ints, Similarities]:
        """Find the nearest documents of others. Several threads may call it.

        Args:
            documents: shape (m,), rows in the corpus, prepared.
            eligible: shape (n,), corpus rows that hold votes of other merchants.

        Returns:
            Corpus rows of shape (m, k), -1 where there is none, and their similarities.
        """


class ExactSearch:
    """Searches all vectors with one matrix product; reproducible to the bit."""

    def __init__(self, vectors: Vectors, k: int) -> None:
        self._vectors = vectors
        self._k = k

    @property
    def width(self) -> int:
        """One similarity for each document of the corpus."""
        return len(self._vectors)

    def prepare(self, documents: Ints, vectors: Vectors) -> None:
        """Do nothing; see `CorpusSearch.prepare`."""

    def nearest(
        self, documents: Ints, eligible: npt.NDArray[np.bool_]
    ) -> tuple[Ints, Similarities]:
        """Search; see `CorpusSearch.nearest`."""
        k = min(self._k, len(self._vectors))
        if not eligible.any():
            return _nothing(len(documents), k)
        similarities = self._vectors[documents] @ self._vectors.T
        similarities[:, ~eligible] = -1.0
        # The greatest first; in place, since a copy is as large as all else together.
        np.negative(similarities, out=similarities)
        rows = np.argpartition(similarities, k - 1, axis=1)[:, :k]
        found = -np.take_along_axis(similarities, rows, axis=1)
        return np.where(found > -1.0, rows, -1), found


class IndexSearch:
    """Searches the neighbours that an index has found; each document is looked up once."""

    def __init__(self, documents: int, k: int, ask: Ask | None) -> None:
        """Allocate a corpus of n documents with k neighbours each, all of them unknown yet.

        Args:
            documents: how many.
            k: neighbours of each.
            ask: asks the index; None where no document is of another merchant.
        """
        self._ask = ask
        self._k = k
        held = documents if ask else 0
        self._rows = np.full((held, k), -1, dtype=np.int32)
        self._similarities = np.full((held, k), -1.0, dtype=np.float32)
        self._known = np.zeros(held, dtype=bool)

    @property
    def asks(self) -> bool:
        """Whether it has an index to ask."""
        return self._ask is not None

    @property
    def width(self) -> int:
        """As many similarities as it has found."""
        return self._k

    def found(self, documents: Ints) -> tuple[npt.NDArray[np.int32], Similarities]:
        """Return what was looked up: corpus rows of shape (m, k), -1 for none, and similarities.

        Args:
            documents: shape (m,), rows in the corpus, prepared where the index is asked.
        """
        if self._ask is None:
            shape = (len(documents), self._k)
            return np.full(shape, -1, dtype=np.int32), np.full(shape, -1.0, dtype=np.float32)
        return self._rows[documents], self._similarities[documents]

    def prepare(self, documents: Ints, vectors: Vectors) -> None:
        """Look up the neighbours of those documents that were not looked up before."""
        if self._ask is None:
            return
        new = ~self._known[documents]
        if new.any():
            rows, similarities = self._ask(vectors[new])
            self._rows[documents[new]] = rows
            self._similarities[documents[new]] = similarities
            self._known[documents[new]] = True

    def nearest(
        self, documents: Ints, eligible: npt.NDArray[np.bool_]
    ) -> tuple[Ints, Similarities]:
        """Search; see `CorpusSearch.nearest`."""
        if self._ask is None:
            return _nothing(len(documents), self._k)
        rows = self._rows[documents].astype(np.int64)
        return np.where((rows >= 0) & eligible[rows], rows, -1), self._similarities[documents]


class KnownNeighbours:
    """Searches neighbours that were found elsewhere; see `IndexSearch.found`."""

    def __init__(self, own: Ints, rows: npt.NDArray[np.int32], similarities: Similarities) -> None:
        """Set up.

        Args:
            own: shape (m,), corpus rows of the documents whose neighbours are known, ascending.
            rows: shape (m, k), corpus rows, -1 for none.
            similarities: shape (m, k).
        """
        self._own = own
        self._rows = rows
        self._similarities = similarities

    @property
    def width(self) -> int:
        """As many similarities as were found."""
        return self._rows.shape[1]

    def prepare(self, documents: Ints, vectors: Vectors) -> None:
        """Do nothing; see `CorpusSearch.prepare`."""

    def nearest(
        self, documents: Ints, eligible: npt.NDArray[np.bool_]
    ) -> tuple[Ints, Similarities]:
        """Search; see `CorpusSearch.nearest`."""
        at = np.searchsorted(self._own, documents)
        rows = self._rows[at].astype(np.int64)
        return np.where((rows >= 0) & eligible[rows], rows, -1), self._similarities[at]


def _nothing(documents: int, k: int) -> tuple[Ints, Similarities]:
    shape = (documents, k)
    return np.full(shape, -1, dtype=np.int64), np.full(shape, -1.0, dtype=np.float32)
