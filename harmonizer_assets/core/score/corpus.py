"""The corpus: every document of a home, and the votes of the labels on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.records.status import WEIGHTS, Status

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """Every document and the votes of the labels on it.

    Attributes:
        document_ids: shape (n,), sorted.
        votes: shape (n, t), summed status votes per document and label type; may be negative.
        validated: shape (n, t), VALID labels per document and label type.
        prior: shape (t,), share of each label type, sums to 1.
        label_types: the t names of the columns.
    """

    document_ids: npt.NDArray[np.str_]
    votes: npt.NDArray[np.float32]
    validated: npt.NDArray[np.int32]
    prior: Floats
    label_types: tuple[str, ...]

    @classmethod
    def from_counts(cls, counts: pa.Table, label_types: Sequence[str]) -> Corpus:
        """Sum votes from label counts.

        Args:
            counts: columns `document_id`, `label`, `validation_status`, `n`, in any order.
            label_types: names of all label types; other labels are ignored.
        """
        column_of = {name: column for column, name in enumerate(label_types)}
        document_ids, rows = np.unique(
            np.asarray(counts["document_id"].to_pylist(), dtype="<U32"), return_inverse=True
        )
        columns = np.array([column_of.get(x, -1) for x in counts["label"].to_pylist()], dtype=int)
        statuses = counts["validation_status"].to_pylist()
        n = counts["n"].to_numpy()
        weights = status_votes(statuses) * n
        known = columns >= 0
        votes = np.zeros((len(document_ids), len(label_types)), dtype=np.float32)
        np.add.at(votes, (rows[known], columns[known]), weights[known].astype(np.float32))
        valid = known & np.array([status == Status.VALID for status in statuses], dtype=bool)
        validated = np.zeros(votes.shape, dtype=np.int32)
        np.add.at(validated, (rows[valid], columns[valid]), n[valid].astype(np.int32))
        shares = np.maximum(votes, 0).sum(axis=0, dtype=np.float64) + 1e-6
        return cls(document_ids, votes, validated, shares / shares.sum(), tuple(label_types))

    def of(self, documents: Ints) -> Corpus:
        """Keep some documents, by their ascending row numbers; shares stay those of all."""
        return Corpus(
            self.document_ids[documents],
            self.votes[documents],
            self.validated[documents],
            self.prior,
            self.label_types,
        )

    def has_documents_of(self, other: Corpus) -> bool:
        """Say whether the rows of another corpus are of the same documents, with any votes."""
        return np.array_equal(self.document_ids, other.document_ids)

    @cached_property
    def digest(self) -> str:
        """A hash of the documents and their votes."""
        digest = hashlib.sha256()
        for array in (self.document_ids, self.votes, self.validated, self.prior):
            digest.update(np.ascontiguousarray(array).view(np.uint8).tobytes())
        return digest.hexdigest()

    @cached_property
    def has_votes(self) -> npt.NDArray[np.bool_]:
        """Whether a document has votes for any label type: shape (n,)."""
        return np.asarray((self.votes > 1e-6).any(axis=1))

    @cached_property
    def validated_of_all(self) -> Ints:
        """VALID labels per document, of all label types: shape (n,)."""
        return self.validated.sum(axis=1, dtype=np.int64)

    @cached_property
    def _row_of(self) -> dict[str | None, int]:
        return {name: row for row, name in enumerate(self.document_ids.tolist())}

    def rows(self, document_ids: Iterable[str | None]) -> Ints:
        """Find m documents by id: their row numbers, -1 for ids that are not in the corpus."""
        row_of = self._row_of
        return np.array([row_of.get(name, -1) for name in document_ids], dtype=np.int64)

    def ids_of(self, rows: Ints) -> list[str | None]:
        """Look up the ids of m documents by their row numbers; None for -1."""
        ids = self.document_ids
        return [str(ids[row]) if row >= 0 else None for row in rows.tolist()]


def status_votes(statuses: Sequence[str]) -> Floats:
    """Look up the vote of each status: shape (n,)."""
    return np.array([WEIGHTS[status].vote for status in statuses], dtype=np.float64)
