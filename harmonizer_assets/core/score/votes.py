"""Votes for and against each label, by the labels on similar words, near and far.

Labels vote with a weight by status, through a kernel on cosine similarity (a Nadaraya-Watson
estimate of the label type given the word; Nadaraya 1964, Watson 1964). Votes of the merchant's own
labels are smoothed towards the votes of other merchants, and those towards the share of each label
type (a hierarchical Dirichlet prior; MacKay and Peto 1995), so that a merchant with a single
receipt is compared with the corpus and a merchant with many with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.base.memory import return_free_memory
from harmonizer_assets.core.base.settings import SimilaritySettings
from harmonizer_assets.core.base.threads import in_threads
from harmonizer_assets.core.index.embedders import Vectors
from harmonizer_assets.core.score.corpus import Corpus
from harmonizer_assets.core.score.searches import CorpusSearch

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]
VectorsOf = Callable[[Ints], Vectors]
"""Looks up the unit vectors of corpus rows: from shape (m,) to shape (m, d)."""

_BANDWIDTH: Final = 0.1
_MERCHANT_PRIOR: Final = 5.0 * float(np.exp(-0.3 / _BANDWIDTH))
"""Weight of the corpus in a merchant's estimate: five VALID labels at similarity 0.70."""
_CORPUS_PRIOR: Final = 2.0 * float(np.exp(-0.5 / _BANDWIDTH))
"""Weight of the label types' shares in the corpus' estimate: two VALID labels at 0.50."""
_WITNESS: Final = 0.50
"""Cosine similarity from which a VALID label tells something about another word."""
_BLOCK_CELLS: Final = 2_000_000
"""Similarities held at once; bounds memory for merchants with very many labels."""
_FETCHED: Final = 20_000
"""Vectors held at once, likewise."""


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

    def of(self, labels: Ints) -> Votes:
        """Select the votes on some labels, by their numbers."""
        return Votes(**{field.name: getattr(self, field.name)[labels] for field in fields(Votes)})


def gather_votes(
    labels: MerchantLabels,
    documents: Ints,
    vectors: VectorsOf,
    corpus: Corpus,
    search: CorpusSearch,
    settings: SimilaritySettings,
    wanted: Ints | None = None,
) -> Votes:
    """Gather the votes on labels of one merchant.

    Args:
        labels: the merchant's n labels.
        documents: shape (m,), the merchant's distinct corpus rows, sorted.
        vectors: looks up the unit vectors of corpus rows.
        corpus: votes on all documents, those of this merchant included.
        search: where to look for similar words of other merchants.
        settings: match threshold and limits.
        wanted: numbers of the labels to gather the votes on, ascending; None means all.
    """
    wanted = np.arange(len(labels.document)) if wanted is None else wanted
    merchant = _MerchantVotes.of(labels, documents, corpus, settings.reference_limit)
    reference = vectors(documents[merchant.reference])
    block = max(1, _BLOCK_CELLS // max(search.width, len(merchant.reference), 1))
    order = np.argsort(merchant.document[wanted], kind="stable")
    document = merchant.document[wanted[order]]
    distinct = np.unique(document)
    parts: list[Votes] = []
    for first in range(0, len(distinct), _FETCHED):
        stride = distinct[first : first + _FETCHED]
        fetched = vectors(documents[stride])
        search.prepare(documents[stride], fetched)

        def of_block(start: int, stride: Ints = stride, fetched: Vectors = fetched) -> Votes:
            rows = stride[start : start + block]
            begin, end = np.searchsorted(document, rows[[0, -1]] + [0, 1])
            members = wanted[order[begin:end]]
            similarities = fetched[start : start + block] @ reference.T
            found = search.nearest(documents[rows], merchant.eligible)
            return _block_votes(
                labels, merchant, members, rows, documents, similarities, found, corpus, settings
            )

        parts += in_threads(of_block, range(0, len(stride), block))
        if len(distinct) > _FETCHED:
            return_free_memory()
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return joined_votes(parts).of(back)


def joined_votes(parts: Sequence[Votes]) -> Votes:
    """Put votes on labels behind each other."""
    return Votes(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Votes)
        }
    )


@dataclass(frozen=True)
class _MerchantVotes:
    """The votes of the merchant's own labels, per distinct document (m) and label type (t).

    Of the documents that labels are compared with, the r references, those whose labels are mostly
    of one type stand together.
    """

    document: Ints  # (n,) position of each label's document among the m
    votes: Floats  # (m, t)
    counts: Singles  # (m, t)
    valid_counts: Singles  # (m, t)
    reference: Ints  # (r,) documents that labels are compared with
    place: Ints  # (m,) position of each document among the references, -1 for none
    of_type: tuple[tuple[slice, Ints], ...]  # (t,) references that hold the type
    reference_votes: npt.NDArray[Any]  # (r, t) in the precision of the kernel
    reference_counts: Singles  # (r, 2 t) labels, and VALID ones
    only_receipt: Ints  # (r,) the one receipt that holds the reference, -1 when several do
    by_receipt: Ints  # (r,) references in the order of that receipt
    eligible: npt.NDArray[np.bool_]  # (corpus,) documents with votes of other merchants

    @classmethod
    def of(
        cls, labels: MerchantLabels, documents: Ints, corpus: Corpus, limit: int
    ) -> _MerchantVotes:
        shape = (len(documents), len(corpus.label_types))
        document = np.searchsorted(documents, labels.document)
        votes = np.zeros(shape)
        counts, valid_counts = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        np.add.at(votes, (document, labels.label_type), labels.vote)
        np.add.at(counts, (document, labels.label_type), 1)
        np.add.at(valid_counts, (document, labels.label_type), labels.valid)
        reference = np.arange(len(documents))
        precision: type[np.floating[Any]] = np.float64
        if len(documents) > limit:
            # The most trusted documents stand for the rest: cost grows linearly, not quadratically.
            reference = np.sort(np.argsort(-votes.sum(axis=1), kind="stable")[:limit])
            # What they leave out outweighs the decimals that single precision does.
            precision = np.float32
        main = counts[reference].argmax(axis=1)
        reference = reference[np.argsort(main, kind="stable")]
        place = np.full(len(documents), -1, dtype=np.int64)
        place[reference] = np.arange(len(reference))
        only_receipt = _only_receipts(document, labels.receipt, len(documents))[reference]
        others = corpus.has_votes.copy()
        others[documents] = (corpus.votes[documents] - votes > 1e-4).any(axis=1)
        return cls(
            document,
            votes,
            counts,
            valid_counts,
            reference,
            place,
            _places_of_types(np.sort(main), counts[reference]),
            votes[reference].astype(precision),
            np.hstack([counts[reference], valid_counts[reference]]),
            only_receipt,
            np.argsort(only_receipt, kind="stable"),
            others,
        )


def _only_receipts(document: Ints, receipt: Ints, n: int) -> Ints:
    """Find the one receipt that holds each of n documents: shape (n,), -1 where several do."""
    lowest = np.full(n, np.iinfo(np.int64).max)
    highest = np.full(n, -1, dtype=np.int64)
    np.minimum.at(lowest, document, receipt)
    np.maximum.at(highest, document, receipt)
    return np.where(lowest == highest, lowest, -1)


def _places_of_types(main: Ints, counts: Singles) -> tuple[tuple[slice, Ints], ...]:
    """Find the documents that hold each label type: those where it comes first, and the others."""
    starts = np.searchsorted(main, np.arange(counts.shape[1] + 1)).tolist()
    return tuple(
        (
            slice(starts[kind], starts[kind + 1]),
            np.flatnonzero((counts[:, kind] > 0) & (main != kind)),
        )
        for kind in range(counts.shape[1])
    )


def _block_votes(
    labels: MerchantLabels,
    merchant: _MerchantVotes,
    members: Ints,
    rows: Ints,
    documents: Ints,
    similarities: Singles,
    nearest: tuple[Ints, Singles],
    corpus: Corpus,
    settings: SimilaritySettings,
) -> Votes:
    """Gather votes on the labels `members`, whose documents are `rows` of the merchant's m.

    Args:
        labels: of the merchant.
        merchant: the votes of them.
        members: shape (n,), numbers of labels, by their documents.
        rows: shape (b,).
        documents: shape (m,).
        similarities: shape (b, r), to the references; changed in place.
        nearest: what `CorpusSearch.nearest` found for `rows`.
        corpus: votes on all documents.
        settings: match threshold and limits.
    """
    place = merchant.place[rows]
    own = np.flatnonzero(place >= 0), place[place >= 0]
    similarities[own] = 1.0

    n_types = len(corpus.label_types)
    row = np.searchsorted(rows, merchant.document[members])
    kind = labels.label_type[members]
    every = np.arange(len(members))
    counted = (place >= 0)[row].astype(np.float64)
    valid = counted * labels.valid[members]

    matching = similarities >= _at_least(settings.match_threshold)
    matches = (matching.astype(np.float32) @ merchant.reference_counts)[row].astype(np.float64)
    n_matches = matches[every, kind] - counted
    precise = similarities.astype(merchant.reference_votes.dtype)
    similarity_sum = ((precise * matching) @ merchant.reference_counts[:, :n_types])[row, kind]
    valid_matches = matches[every, n_types + kind] - valid

    merchant_votes = (_kernel(precise) @ merchant.reference_votes)[row].astype(np.float64)
    merchant_votes[every, kind] -= counted * labels.vote[members]
    merchant_votes = np.maximum(merchant_votes, 0.0)
    found, similarity = nearest
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
    competing = near.copy()
    competing[every, kind] = -1.0
    competing_type = competing.argmax(axis=1)

    alike = _at_least(min(_WITNESS, settings.match_threshold))
    witnesses = (similarities >= alike).astype(np.float32) @ merchant.reference_counts[:, n_types:]
    alike_valid = witnesses[row].astype(np.float64)
    alike_valid[every, kind] -= valid

    elsewhere, of_type = _validated_elsewhere(
        documents, found, similarity >= alike, row, kind, merchant, corpus
    )
    validated_for = alike_valid[every, kind].round().astype(np.int64) + of_type
    validated = alike_valid.sum(axis=1).round().astype(np.int64) + elsewhere
    own_similarity = _own_similarity(merchant, similarities, row, labels.receipt[members])
    similarities[own] = 0.0

    return Votes(
        n_matches=n_matches.round().astype(np.int64),
        valid_matches=valid_matches.round().astype(np.int64),
        best_similarity=_best_similarity(merchant, similarities, row, kind, members),
        mean_similarity=np.where(
            n_matches > 0.5, (similarity_sum - counted) / np.maximum(n_matches, 1.0), 0.0
        ),
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
        own_similarity=own_similarity,
        corpus_similarity=corpus_similarity[row],
        corpus_nearest=corpus_nearest[row],
    )


def _at_least(threshold: float) -> np.float32:
    """Return the least number in single precision that reaches a threshold."""
    single = np.float32(threshold)
    return single if float(single) >= threshold else np.nextafter(single, np.float32(np.inf))


def _kernel(similarities: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weigh votes by similarity, in place; what is not similar at all has none."""
    unlike = similarities <= 0
    similarities -= 1.0
    similarities /= _BANDWIDTH
    np.exp(similarities, out=similarities)
    similarities[unlike] = 0.0
    return similarities


def _corpus_votes(
    documents: Ints,
    found: Ints,
    similarity: Singles,
    merchant: _MerchantVotes,
    corpus: Corpus,
) -> tuple[Floats, Floats, Ints]:
    """Sum votes of other merchants per document: (len(found), t), best similarity, its row."""
    every = np.arange(len(found))
    if not (found >= 0).any():
        nobody = np.full(len(found), -1, dtype=np.int64)
        return np.zeros((len(found), len(corpus.label_types))), np.zeros(len(found)), nobody
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
    merchant: _MerchantVotes, similarities: Singles, row: Ints, kind: Ints, members: Ints
) -> Floats:
    """Find the best similarity to another label of the same type, per label."""
    best = np.zeros(len(members))
    for column in np.unique(kind):
        of_type = kind == column
        for holders in merchant.of_type[column]:
            alike = similarities[:, holders]
            if alike.shape[1]:
                highest = alike.max(axis=1)[row[of_type]]
                best[of_type] = np.maximum(best[of_type], highest)
    twins = merchant.counts[merchant.document[members], kind] > 1.5
    return np.where(twins, 1.0, np.clip(best, 0.0, 1.0))


def _own_similarity(
    merchant: _MerchantVotes, similarities: Singles, row: Ints, receipts: Ints
) -> Floats:
    """Find the best similarity to a label on another receipt, per label."""
    only = merchant.only_receipt[merchant.by_receipt]
    starts, ends = np.searchsorted(only, receipts), np.searchsorted(only, receipts, side="right")
    best = np.zeros(len(row))
    for label, (on, start, end) in enumerate(zip(row, starts, ends, strict=True)):
        line, same = similarities[on], merchant.by_receipt[start:end]
        kept = line[same]
        line[same] = -1.0
        best[label] = line.max(initial=0.0)
        line[same] = kept
    return np.clip(best, 0.0, 1.0)
