"""Votes for and against each label, by the labels on similar words, near and far.

Labels vote with a weight by status, through a kernel on cosine similarity (a Nadaraya-Watson
estimate of the label type given the word; Nadaraya 1964, Watson 1964). Votes of the merchant's own
labels are smoothed towards the votes of other merchants, and those towards the share of each label
type (a hierarchical Dirichlet prior; MacKay and Peto 1995), so that a merchant with a single
receipt is compared with the corpus and a merchant with many with its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.base.settings import SimilaritySettings
from harmonizer_assets.core.index.embedders import Vectors
from harmonizer_assets.core.records.status import WEIGHTS, Status

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BANDWIDTH: Final = 0.1
_MERCHANT_PRIOR: Final = 5.0 * float(np.exp(-0.3 / _BANDWIDTH))
"""Weight of the corpus in a merchant's estimate: five VALID labels at similarity 0.70."""
_CORPUS_PRIOR: Final = 2.0 * float(np.exp(-0.5 / _BANDWIDTH))
"""Weight of the label types' shares in the corpus' estimate: two VALID labels at 0.50."""
_WITNESS: Final = 0.50
"""Cosine similarity from which a VALID label tells something about another word."""
_BLOCK_CELLS: Final = 8_000_000
"""Similarities held at once; bounds memory for merchants with very many labels."""


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

    @cached_property
    def has_votes(self) -> npt.NDArray[np.bool_]:
        """Whether a document has votes for any label type: shape (n,)."""
        return np.asarray((self.votes > 1e-6).any(axis=1))

    @cached_property
    def validated_of_all(self) -> Ints:
        """VALID labels per document, of all label types: shape (n,)."""
        return self.validated.sum(axis=1, dtype=np.int64)

    def rows(self, document_ids: npt.NDArray[np.str_]) -> Ints:
        """Find documents by id: shape (m,) row numbers, -1 for ids that are not in the corpus."""
        if len(self.document_ids) == 0:
            return np.full(document_ids.shape, -1, dtype=np.int64)
        at = np.searchsorted(self.document_ids, document_ids)
        at = np.minimum(at, len(self.document_ids) - 1)
        return np.where(self.document_ids[at] == document_ids, at, -1).astype(np.int64)


def status_votes(statuses: Sequence[str]) -> Floats:
    """Look up the vote of each status: shape (n,)."""
    return np.array([WEIGHTS[status].vote for status in statuses], dtype=np.float64)


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
        """Find the nearest documents of others.

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
    """Searches the neighbours that Chroma's index has found; each document is looked up once."""

    def __init__(self, documents: int, k: int) -> None:
        """Allocate a corpus of n documents with k neighbours each, all of them unknown yet."""
        self._rows = np.full((documents, k), -1, dtype=np.int32)
        self._similarities = np.full((documents, k), -1.0, dtype=np.float32)
        self._known = np.zeros(documents, dtype=bool)

    def unknown(self, documents: Ints) -> Ints:
        """Select the corpus rows whose neighbours have not been stored."""
        return documents[~self._known[documents]]

    def learn(self, documents: Ints, rows: Ints, similarities: npt.NDArray[np.float32]) -> None:
        """Store the neighbours of m documents: corpus rows and similarities, each (m, k)."""
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
class Votes:
    """Votes on n labels; every array has shape (n,) and leaves the label itself out.

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
        validated_for: VALID labels of the same type on words that are alike at all, anywhere.
        validated_against: the same of all other types.
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
    validated_for: Ints
    validated_against: Ints
    own_similarity: Floats
    corpus_similarity: Floats
    corpus_nearest: Ints


def gather_votes(
    labels: MerchantLabels,
    documents: Ints,
    vectors: Vectors,
    corpus: Corpus,
    search: CorpusSearch,
    settings: SimilaritySettings,
    wanted: Ints | None = None,
) -> Votes:
    """Gather the votes on labels of one merchant.

    Args:
        labels: the merchant's n labels.
        documents: shape (m,), the merchant's distinct corpus rows, sorted.
        vectors: shape (m, d), their unit vectors.
        corpus: votes on all documents, those of this merchant included.
        search: where to look for similar words of other merchants.
        settings: match threshold and limits.
        wanted: numbers of the labels to gather the votes on, ascending; None means all.
    """
    wanted = np.arange(len(labels.document)) if wanted is None else wanted
    merchant = _MerchantVotes.of(labels, documents, corpus, settings.reference_limit)
    block = max(1, _BLOCK_CELLS // max(len(merchant.reference), len(corpus.document_ids), 1))
    order = np.argsort(merchant.document[wanted], kind="stable")
    document = merchant.document[wanted[order]]
    distinct = np.unique(document)
    parts = []
    for first in range(0, len(distinct), block):
        rows = distinct[first : first + block]
        start, end = np.searchsorted(document, rows[[0, -1]] + [0, 1])
        members = wanted[order[start:end]]
        parts.append(
            _block_votes(
                labels, merchant, members, rows, documents, vectors, corpus, search, settings
            )
        )
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return Votes(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])[back]
            for field in fields(Votes)
        }
    )


@dataclass(frozen=True)
class _MerchantVotes:
    """The votes of the merchant's own labels, per distinct document (m) and label type (t)."""

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
        others = corpus.has_votes.copy()
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


def _block_votes(
    labels: MerchantLabels,
    merchant: _MerchantVotes,
    members: Ints,
    rows: Ints,
    documents: Ints,
    vectors: Vectors,
    corpus: Corpus,
    search: CorpusSearch,
    settings: SimilaritySettings,
) -> Votes:
    """Gather votes on the labels `members`, whose documents are `rows` of the merchant's m."""
    reference = merchant.reference
    similarities = (vectors[rows] @ vectors[reference].T).astype(np.float64)
    itself = rows[:, None] == reference[None, :]
    similarities[itself] = 1.0
    kernel = np.where(similarities > 0, np.exp((similarities - 1.0) / _BANDWIDTH), 0.0)

    row = np.searchsorted(rows, merchant.document[members])
    kind = labels.label_type[members]
    counted = merchant.in_reference[merchant.document[members]].astype(np.float64)

    matching = similarities >= settings.match_threshold
    counts = merchant.counts[reference]
    n_matches = (matching @ counts)[row, kind] - counted
    similarity_sum = ((similarities * matching) @ counts)[row, kind] - counted
    matching_valid = (matching @ merchant.valid_counts[reference])[row]
    matching_valid[np.arange(len(members)), kind] -= counted * labels.valid[members]

    merchant_votes = (kernel @ merchant.votes[reference])[row]
    merchant_votes[np.arange(len(members)), kind] -= counted * labels.vote[members]
    merchant_votes = np.maximum(merchant_votes, 0.0)
    found, similarity = search.nearest(documents[rows], merchant.eligible)
    corpus_votes, corpus_similarity, corpus_nearest = _corpus_votes(
        documents, found, similarity, merchant, corpus
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

    alike = min(_WITNESS, settings.match_threshold)
    alike_valid = ((similarities >= alike) @ merchant.valid_counts[reference])[row]
    alike_valid[every, kind] -= counted * labels.valid[members]

    elsewhere, of_type = _validated_elsewhere(
        documents, found, similarity >= alike, row, kind, merchant, corpus
    )
    validated_for = alike_valid[every, kind].round().astype(np.int64) + of_type
    validated = alike_valid.sum(axis=1).round().astype(np.int64) + elsewhere

    return Votes(
        n_matches=n_matches.round().astype(np.int64),
        valid_matches=matching_valid[every, kind].round().astype(np.int64),
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
        validated_for=validated_for,
        validated_against=validated - validated_for,
        own_similarity=_own_similarity(merchant, similarities, row, labels.receipt[members]),
        corpus_similarity=corpus_similarity[row],
        corpus_nearest=corpus_nearest[row],
    )


def _corpus_votes(
    documents: Ints,
    found: Ints,
    similarity: npt.NDArray[np.float32],
    merchant: _MerchantVotes,
    corpus: Corpus,
) -> tuple[Floats, Floats, Ints]:
    """Sum votes of other merchants per document: (len(found), t), best similarity, its row."""
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
    every = np.arange(len(found))
    return (
        total,
        np.maximum(known[every, best], 0.0).astype(np.float64),
        np.where(known[every, best] > 0, found[every, best], -1),
    )


def _validated_elsewhere(
    documents: Ints,
    found: Ints,
    alike: npt.NDArray[np.bool_],
    row: Ints,
    kind: Ints,
    merchant: _MerchantVotes,
    corpus: Corpus,
) -> tuple[Ints, Ints]:
    """Count, per label, the VALID labels on words of other merchants: of all types, of its own."""
    at = np.minimum(np.searchsorted(documents, found), len(documents) - 1)
    own = documents[at] == found
    usable = (found >= 0) & alike
    own_total = merchant.valid_counts.sum(axis=1)[at]
    total = corpus.validated_of_all[found] - np.where(own, own_total, 0)
    of_all = np.where(usable, total, 0).sum(axis=1)[row]
    of_type = corpus.validated[found[row], kind[:, None]].astype(np.int64)
    of_type -= np.where(own[row], merchant.valid_counts[at[row], kind[:, None]], 0).astype(np.int64)
    return of_all.astype(np.int64), np.where(usable[row], of_type, 0).sum(axis=1)


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
    """Find the best similarity to a label on another receipt, per label."""
    best = np.zeros(len(row))
    only = merchant.only_receipt[merchant.reference]
    for receipt in np.unique(receipts):
        elsewhere = only != receipt
        if elsewhere.any():
            here = receipts == receipt
            best[here] = similarities[np.ix_(row[here], elsewhere.nonzero()[0])].max(axis=1)
    return np.clip(best, 0.0, 1.0)
