"""Evidence for and against each label: how alike words are labelled, near and far.

Labels vote with a weight by status, through a kernel on cosine similarity (a Nadaraya-Watson
estimate of the label type given the word; Nadaraya 1964, Watson 1964). Votes of the merchant's own
labels are smoothed towards the votes of other merchants, and those towards the share of each label
type (a hierarchical Dirichlet prior; MacKay and Peto 1995), so that a merchant with a single
receipt is judged by the corpus and a merchant with many by its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.embedding import Vectors
from harmonizer_assets.core.settings import SimilaritySettings

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STATUS_VOTES: Final[Mapping[str, float]] = {
    "VALID": 1.0,
    "PENDING": 0.4,
    "NEEDS_REVIEW": 0.3,
    "NONE": 0.4,
    # Someone has rejected this label: it speaks against its type, as loudly as VALID speaks for.
    "INVALID": -1.0,
}

_BANDWIDTH: Final = 0.1
_MERCHANT_PRIOR: Final = 5.0 * float(np.exp(-0.3 / _BANDWIDTH))
"""Weight of the corpus in a merchant's estimate: five VALID labels at similarity 0.70."""
_CORPUS_PRIOR: Final = 2.0 * float(np.exp(-0.5 / _BANDWIDTH))
"""Weight of the label types' shares in the corpus' estimate: two VALID labels at 0.50."""
_BLOCK_CELLS: Final = 8_000_000
"""Similarities held at once; bounds memory for merchants with very many labels."""


@dataclass(frozen=True)
class Corpus:
    """Every document and the votes of the labels on it.

    Attributes:
        document_ids: shape (n,), sorted.
        votes: shape (n, t), summed status votes per document and label type; may be negative.
        prior: shape (t,), share of each label type, sums to 1.
        label_types: the t names of the columns.
    """

    document_ids: npt.NDArray[np.str_]
    votes: npt.NDArray[np.float32]
    prior: Floats
    label_types: tuple[str, ...]

    @classmethod
    def from_counts(cls, counts: pa.Table, label_types: Sequence[str]) -> Corpus:
        """Sum votes from label counts.

        Args:
            counts: columns `document_id`, `label`, `validation_status`, `n`, in any order.
            label_types: names of all label types; other labels are passed over.
        """
        column_of = {name: column for column, name in enumerate(label_types)}
        document_ids, rows = np.unique(
            np.asarray(counts["document_id"].to_pylist(), dtype="<U32"), return_inverse=True
        )
        columns = np.array([column_of.get(x, -1) for x in counts["label"].to_pylist()], dtype=int)
        weights = status_votes(counts["validation_status"].to_pylist())
        weights = weights * counts["n"].to_numpy()
        known = columns >= 0
        votes = np.zeros((len(document_ids), len(label_types)), dtype=np.float32)
        np.add.at(votes, (rows[known], columns[known]), weights[known].astype(np.float32))
        shares = np.maximum(votes, 0).sum(axis=0, dtype=np.float64) + 1e-6
        return cls(document_ids, votes, shares / shares.sum(), tuple(label_types))

    def rows(self, document_ids: npt.NDArray[np.str_]) -> Ints:
        """Find documents by id: shape (m,) row numbers, -1 for ids that are not in the corpus."""
        if len(self.document_ids) == 0:
            return np.full(document_ids.shape, -1, dtype=np.int64)
        at = np.searchsorted(self.document_ids, document_ids)
        at = np.minimum(at, len(self.document_ids) - 1)
        return np.where(self.document_ids[at] == document_ids, at, -1).astype(np.int64)


def status_votes(statuses: Sequence[str]) -> Floats:
    """Look up the vote of each status: shape (n,)."""
    return np.array([STATUS_VOTES[status] for status in statuses], dtype=np.float64)


@dataclass(frozen=True)
class MerchantLabels:
    """The labels of one merchant, one entry per label.

    Attributes:
        document: shape (n,), row in `Corpus.document_ids`.
        label_type: shape (n,), column in `Corpus.label_types`.
        vote: shape (n,), status vote.
        valid: shape (n,), whether the status is VALID.
        receipt: shape (n,), number of the receipt within the merchant.
    """

    document: Ints
    label_type: Ints
    vote: Floats
    valid: npt.NDArray[np.bool_]
    receipt: Ints


class CorpusSearch(Protocol):
    """Finds, for documents of one merchant, the nearest documents that others use."""

    def nearest(
        self, documents: Ints, eligible: npt.NDArray[np.bool_]
    ) -> tuple[Ints, npt.NDArray[np.float32]]:
        """Search.

        Args:
            documents: shape (m,), rows in the corpus.
            eligible: shape (n,), corpus rows that hold votes of other merchants.

        Returns:
            Corpus rows of shape (m, k), -1 where there is none, and their similarities.
        """


class ExactSearch:
    """Searches all vectors with one matrix product; reproducible to the bit."""

    def __init__(self, vectors: Vectors, k: int) -> None:
        self._vectors = vectors
        self._k = k

    def nearest(
        self, documents: Ints, eligible: npt.NDArray[np.bool_]
    ) -> tuple[Ints, npt.NDArray[np.float32]]:
        """Search; see `CorpusSearch.nearest`."""
        similarities = self._vectors[documents] @ self._vectors.T
        similarities[:, ~eligible] = -1.0
        k = min(self._k, similarities.shape[1])
        rows = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        found = np.take_along_axis(similarities, rows, axis=1)
        return np.where(found > -1.0, rows, -1), found


class IndexSearch:
    """Answers from the neighbours that Chroma's index has found; a document is asked about once."""

    def __init__(self, documents: int, k: int) -> None:
        """Know nothing yet of a corpus of so many documents with k neighbours each."""
        self._rows = np.full((documents, k), -1, dtype=np.int32)
        self._similarities = np.full((documents, k), -1.0, dtype=np.float32)
        self._known = np.zeros(documents, dtype=bool)

    def unknown(self, documents: Ints) -> Ints:
        """Those of these corpus rows whose neighbours have not been learned."""
        return documents[~self._known[documents]]

    def learn(self, documents: Ints, rows: Ints, similarities: npt.NDArray[np.float32]) -> None:
        """Keep the neighbours of m documents: corpus rows and similarities, each (m, k)."""
        self._rows[documents] = rows
        self._similarities[documents] = similarities
        self._known[documents] = True

    def nearest(
        self, documents: Ints, eligible: npt.NDArray[np.bool_]
    ) -> tuple[Ints, npt.NDArray[np.float32]]:
        """Search; see `CorpusSearch.nearest`."""
        rows = self._rows[documents].astype(np.int64)
        return np.where((rows >= 0) & eligible[rows], rows, -1), self._similarities[documents]


@dataclass(frozen=True)
class Evidence:
    """Evidence on n labels; every array has shape (n,) and leaves the label itself out.

    Attributes:
        n_matches: labels of the same type in the merchant at the match threshold or above.
        valid_matches: how many of them are VALID.
        best_similarity: highest similarity to a label of the same type in the merchant, else 0.
        mean_similarity: mean similarity of the matches, else 0.
        merchant_for: kernel-weighted votes for the type within the merchant.
        merchant_against: the same for all other types together.
        corpus_for: votes for the type in other merchants.
        corpus_against: the same for all other types together.
        label_probability: smoothed probability of the type, given the word.
        type_probability: shape (n, t), of every label type.
        competing_type: column of the most probable other type.
        competing_probability: its probability.
        own_similarity: highest similarity to any label on another receipt of the merchant, else 0.
        corpus_similarity: highest similarity to any label of another merchant, else 0.
        corpus_nearest: corpus row of that label's document, -1 where there is none.
    """

    n_matches: Ints
    valid_matches: Ints
    best_similarity: Floats
    mean_similarity: Floats
    merchant_for: Floats
    merchant_against: Floats
    corpus_for: Floats
    corpus_against: Floats
    label_probability: Floats
    type_probability: Floats
    competing_type: Ints
    competing_probability: Floats
    own_similarity: Floats
    corpus_similarity: Floats
    corpus_nearest: Ints


def gather_evidence(
    labels: MerchantLabels,
    documents: Ints,
    vectors: Vectors,
    corpus: Corpus,
    search: CorpusSearch,
    settings: SimilaritySettings,
) -> Evidence:
    """Gather the evidence on all labels of one merchant.

    Args:
        labels: the merchant's n labels.
        documents: shape (m,), the merchant's distinct corpus rows, sorted.
        vectors: shape (m, d), their unit vectors.
        corpus: votes on all documents, those of this merchant included.
        search: where to look for similar words of other merchants.
        settings: match threshold and limits.
    """
    merchant = _MerchantVotes.of(labels, documents, corpus, settings.reference_limit)
    block = max(1, _BLOCK_CELLS // max(len(merchant.reference), len(corpus.document_ids), 1))
    order = np.argsort(merchant.document, kind="stable")
    starts = np.searchsorted(merchant.document[order], np.arange(0, len(documents) + block, block))
    parts = []
    for number, first in enumerate(range(0, len(documents), block)):
        members = order[starts[number] : starts[number + 1]]
        rows = np.arange(first, min(first + block, len(documents)))
        parts.append(
            _block_evidence(
                labels, merchant, members, rows, documents, vectors, corpus, search, settings
            )
        )
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return Evidence(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])[back]
            for field in fields(Evidence)
        }
    )


@dataclass(frozen=True)
class _MerchantVotes:
    """What the merchant's own labels say, per distinct document (m) and label type (t)."""

    document: Ints  # (n,) position of each label's document among the m
    votes: Floats  # (m, t)
    counts: Floats  # (m, t)
    valid_counts: Floats  # (m, t)
    only_receipt: Ints  # (m,) the one receipt that holds the document, -1 when several do
    reference: Ints  # documents that labels are compared with
    in_reference: npt.NDArray[np.bool_]  # (m,)
    eligible: npt.NDArray[np.bool_]  # (corpus,) documents with votes of other merchants

    @classmethod
    def of(
        cls, labels: MerchantLabels, documents: Ints, corpus: Corpus, limit: int
    ) -> _MerchantVotes:
        shape = (len(documents), len(corpus.label_types))
        document = np.searchsorted(documents, labels.document)
        votes, counts, valid_counts = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        np.add.at(votes, (document, labels.label_type), labels.vote)
        np.add.at(counts, (document, labels.label_type), 1)
        np.add.at(valid_counts, (document, labels.label_type), labels.valid)
        lowest = np.full(len(documents), np.iinfo(np.int64).max)
        highest = np.full(len(documents), -1, dtype=np.int64)
        np.minimum.at(lowest, document, labels.receipt)
        np.maximum.at(highest, document, labels.receipt)
        reference = np.arange(len(documents))
        if len(documents) > limit:
            # The most trusted documents stand for the rest: cost grows linearly, not quadratically.
            reference = np.sort(np.argsort(-votes.sum(axis=1), kind="stable")[:limit])
        in_reference = np.zeros(len(documents), dtype=bool)
        in_reference[reference] = True
        others: npt.NDArray[np.bool_] = np.asarray((corpus.votes > 1e-6).any(axis=1))
        others[documents] = (corpus.votes[documents] - votes > 1e-4).any(axis=1)
        return cls(
            document,
            votes,
            counts,
            valid_counts,
            np.where(lowest == highest, lowest, -1),
            reference,
            in_reference,
            others,
        )


def _block_evidence(
    labels: MerchantLabels,
    merchant: _MerchantVotes,
    members: Ints,
    rows: Ints,
    documents: Ints,
    vectors: Vectors,
    corpus: Corpus,
    search: CorpusSearch,
    settings: SimilaritySettings,
) -> Evidence:
    """Evidence on the labels `members`, whose documents are `rows` of the merchant's m."""
    reference = merchant.reference
    similarities = (vectors[rows] @ vectors[reference].T).astype(np.float64)
    itself = rows[:, None] == reference[None, :]
    similarities[itself] = 1.0
    kernel = np.where(similarities > 0, np.exp((similarities - 1.0) / _BANDWIDTH), 0.0)

    row = merchant.document[members] - rows[0]
    kind = labels.label_type[members]
    counted = merchant.in_reference[merchant.document[members]].astype(np.float64)

    matching = similarities >= settings.match_threshold
    counts = merchant.counts[reference]
    n_matches = (matching @ counts)[row, kind] - counted
    similarity_sum = ((similarities * matching) @ counts)[row, kind] - counted
    valid_matches = (matching @ merchant.valid_counts[reference])[row, kind]
    valid_matches = valid_matches - counted * labels.valid[members]

    merchant_votes = (kernel @ merchant.votes[reference])[row]
    merchant_votes[np.arange(len(members)), kind] -= counted * labels.vote[members]
    merchant_votes = np.maximum(merchant_votes, 0.0)
    corpus_votes, corpus_similarity, corpus_nearest = _corpus_votes(
        documents, rows, merchant, corpus, search
    )
    corpus_votes = corpus_votes[row]

    far = (corpus_votes + _CORPUS_PRIOR * corpus.prior) / (
        corpus_votes.sum(axis=1, keepdims=True) + _CORPUS_PRIOR
    )
    near = (merchant_votes + _MERCHANT_PRIOR * far) / (
        merchant_votes.sum(axis=1, keepdims=True) + _MERCHANT_PRIOR
    )
    every = np.arange(len(members))
    competing = near.copy()
    competing[every, kind] = -1.0
    competing_type = competing.argmax(axis=1)

    return Evidence(
        n_matches=n_matches.round().astype(np.int64),
        valid_matches=valid_matches.round().astype(np.int64),
        best_similarity=_best_similarity(merchant, similarities, itself, row, kind, members),
        mean_similarity=np.where(n_matches > 0.5, similarity_sum / np.maximum(n_matches, 1.0), 0.0),
        merchant_for=merchant_votes[every, kind],
        merchant_against=merchant_votes.sum(axis=1) - merchant_votes[every, kind],
        corpus_for=corpus_votes[every, kind],
        corpus_against=corpus_votes.sum(axis=1) - corpus_votes[every, kind],
        label_probability=near[every, kind],
        type_probability=near,
        competing_type=competing_type,
        competing_probability=near[every, competing_type],
        own_similarity=_own_similarity(merchant, similarities, row, labels.receipt[members]),
        corpus_similarity=corpus_similarity[row],
        corpus_nearest=corpus_nearest[row],
    )


def _corpus_votes(
    documents: Ints,
    rows: Ints,
    merchant: _MerchantVotes,
    corpus: Corpus,
    search: CorpusSearch,
) -> tuple[Floats, Floats, Ints]:
    """Votes of other merchants per document (len(rows), t); best similarity and its corpus row."""
    found, similarity = search.nearest(documents[rows], merchant.eligible)
    votes = corpus.votes[found].astype(np.float64)
    at = np.minimum(np.searchsorted(documents, found), len(documents) - 1)
    own = documents[at] == found
    votes[own] -= merchant.votes[at[own]]
    kernel = np.where(
        (found >= 0) & (similarity > 0),
        np.exp((similarity.astype(np.float64) - 1.0) / _BANDWIDTH),
        0.0,
    )
    total = np.einsum("mk,mkt->mt", kernel, np.maximum(votes, 0.0))
    known = np.where(found >= 0, similarity, -1.0)
    best = known.argmax(axis=1)
    every = np.arange(len(rows))
    return (
        total,
        np.maximum(known[every, best], 0.0).astype(np.float64),
        np.where(known[every, best] > 0, found[every, best], -1),
    )


def _best_similarity(
    merchant: _MerchantVotes,
    similarities: Floats,
    itself: npt.NDArray[np.bool_],
    row: Ints,
    kind: Ints,
    members: Ints,
) -> Floats:
    counts = merchant.counts[merchant.reference]
    others = np.where(itself, 0.0, similarities)
    best = np.zeros(len(members))
    for column in np.unique(kind):
        holders = counts[:, column] > 0
        if holders.any():
            of_type = kind == column
            best[of_type] = others[:, holders].max(axis=1)[row[of_type]]
    twins = merchant.counts[merchant.document[members], kind] > 1.5
    return np.where(twins, 1.0, np.clip(best, 0.0, 1.0))


def _own_similarity(
    merchant: _MerchantVotes, similarities: Floats, row: Ints, receipts: Ints
) -> Floats:
    """Best similarity to a label on another receipt, per label."""
    best = np.zeros(len(row))
    only = merchant.only_receipt[merchant.reference]
    for receipt in np.unique(receipts):
        elsewhere = only != receipt
        if elsewhere.any():
            here = receipts == receipt
            best[here] = similarities[np.ix_(row[here], elsewhere.nonzero()[0])].max(axis=1)
    return np.clip(best, 0.0, 1.0)
