"""Suspicion: how much a word looks like another label type than the one it carries.

A multinomial logistic regression on the features of words learns from the labels themselves, wrong
ones included. Three things keep it from learning the errors: it is fitted out of fold by receipt,
labels count by status, and a second fit weighs each label by how plausible the first one found it
(confident learning, Northcutt et al. 2021, with weights in the place of removal). Words without a
label are a class of their own: a label on a caption has no label type that fits better.
"""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.base.threads import in_threads
from harmonizer_assets.core.records.status import WEIGHTS, Status
from harmonizer_assets.core.score.features import GROUPS, group_ranges
from harmonizer_assets.core.score.pages import Page

if TYPE_CHECKING:
    from scipy import sparse

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS: Final = 3
EVIDENCE_GROUPS: Final = (*GROUPS, "similar_words")
"""Groups of features, and similar words, whose contributions explanations name."""

UNLABELLED_WEIGHT: Final = 0.25
UNLABELLED_ODDS: Final = 0.1
"""Prior weight of "no label type fits": an unlabelled word may just not have been labelled."""

_ITERATIONS: Final = 30
_STRENGTH: Final = 1.0
_RARE_SHARE: Final = 0.001
_RARE_COUNT: Final = 3
_FLOOR: Final = -30.0
_POOLS: Final = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)


def receipt_folds(page: Page) -> Ints:
    """Assign each receipt of a page to a fold: shape (receipts,), the same in every process."""
    first = np.flatnonzero(np.diff(page.receipt, prepend=-1))
    keys = page.keys.take(first)
    return np.array(
        [
            zlib.crc32(f"{image}\x1f{receipt}".encode()) % FOLDS
            for image, receipt in zip(
                keys["image_id"].to_pylist(), keys["receipt_id"].to_pylist(), strict=True
            )
        ],
        dtype=np.int64,
    )


@dataclass(frozen=True)
class Suspicion:
    """How suspicious n labels are.

    Attributes:
        margin: shape (n,), log odds of the best other explanation against the label's own type.
        type_log_probability: shape (n, t), of every label type, given that the word has one.
        competing_type: shape (n,), the best other label type.
        contributions: shape (n, len(EVIDENCE_GROUPS)), how much each group speaks for
            the competing type and against the label's own, in log odds; they add up to the log odds
            of the two, up to a constant per pair of types.
        unlabelled: shape (n,), whether "no label" explains the word better than any other type.
    """

    margin: Floats
    type_log_probability: Floats
    competing_type: Ints
    contributions: Floats
    unlabelled: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SuspicionModel:
    """The fitted model; fold `f` has not seen the receipts of fold `f`.

    Attributes:
        n_types: label types; the class behind them is "no label".
        columns: shape (c,), the feature columns in use, ascending.
        coefficients: shape (folds, n_types + 1, c).
        intercepts: shape (folds, n_types + 1).
        pool: weight of similar words' votes, see `assess`.
    """

    n_types: int
    columns: Ints
    coefficients: npt.NDArray[np.float32]
    intercepts: npt.NDArray[np.float32]
    pool: float

    @classmethod
    def fit(
        cls,
        features: sparse.csr_matrix,
        word: Ints,
        label_type: Ints,
        weight: Floats,
        fold: Ints,
        votes: Floats,
        n_types: int,
    ) -> SuspicionModel:
        """Fit on m labels and on words without a label.

        Args:
            features: shape (n, d), of n words.
            word: shape (m,), row in `features` of each label; rows without any are unlabelled.
            label_type: shape (m,), the label's type.
            weight: shape (m,), how much the label counts, see `pages.trust_of`.
            fold: shape (n,), of each word's receipt.
            votes: shape (m, n_types), probability of each type by similar words.
            n_types: how many label types there are.
        """
        n = features.shape[0]
        unlabelled = np.setdiff1d(np.arange(n), word)
        seen = np.bincount(features.indices, minlength=features.shape[1])
        columns = np.flatnonzero(seen >= max(_RARE_COUNT, _RARE_SHARE * n))
        rows = np.concatenate([word, unlabelled])
        used = features[:, columns][rows]
        target = np.concatenate([label_type, np.full(len(unlabelled), n_types)])
        weights = np.concatenate([weight, np.full(len(unlabelled), UNLABELLED_WEIGHT)])
        folds = fold[rows]
        first = cls._fit_folds(used, target, weights, folds, n_types, columns)
        first_look = first.assess(features[word], label_type, fold[word], votes)
        weights[: len(word)] *= np.where(
            weight >= WEIGHTS[Status.VALID].trust, 1.0, 1.0 / (1.0 + np.exp(first_look.margin))
        )
        second = cls._fit_folds(used, target, weights, folds, n_types, columns)
        log_probability = second._log_probability(features[word], fold[word])
        pool = _best_pool(log_probability, votes, label_type, weights[: len(word)])
        return cls(n_types, columns, second.coefficients, second.intercepts, pool)

    @classmethod
    def _fit_folds(
        cls,
        features: sparse.csr_matrix,
        target: Ints,
        weight: Floats,
        fold: Ints,
        n_types: int,
        columns: Ints,
    ) -> SuspicionModel:
        # Importing scikit-learn takes longer than a run that finds nothing to do.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        coefficients = np.zeros((FOLDS, n_types + 1, len(columns)), dtype=np.float32)
        # A type that does not occur in a fold gets next to no probability there.
        intercepts = np.full((FOLDS, n_types + 1), _FLOOR, dtype=np.float32)

        def fit_fold(held_out: int) -> None:
            train = np.flatnonzero((fold != held_out) & (weight > 0))
            classes = np.unique(target[train])
            if len(classes) < 2:
                intercepts[held_out, classes] = 0.0
                return
            learner = LogisticRegression(C=_STRENGTH, max_iter=_ITERATIONS, tol=1e-3)
            learner.fit(features[train], target[train], sample_weight=weight[train])
            if len(classes) == 2:
                coefficients[held_out, classes[1]] = learner.coef_[0]
                intercepts[held_out, classes] = (0.0, learner.intercept_[0])
            else:
                coefficients[held_out, classes] = learner.coef_
                intercepts[held_out, classes] = learner.intercept_

        with warnings.catch_warnings():
            # Stopping early is part of the method: it is a regulariser and bounds the time.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # Each fold has a thread, and BLAS in it one: the solver adds up one vector at a time,
            # and BLAS's threads lose more in waiting for each other than they gain.
            in_threads(fit_fold, range(FOLDS))
        return cls(n_types, columns, coefficients, intercepts, 0.0)

    def assess(
        self, features: sparse.csr_matrix, label_type: Ints, fold: Ints, votes: Floats
    ) -> Suspicion:
        """Assess n labels, each by the fold that has not seen its receipt.

        The votes of similar words are pooled with the model's probabilities of the label types, as
        a product with an exponent (a logarithmic opinion pool; Genest and Zidek 1986). They do
        not tell whether the word should carry a label at all.

        Args:
            features: shape (n, d), of each label's word.
            label_type: shape (n,).
            fold: shape (n,), of the word's receipt.
            votes: shape (n, n_types), probability of each type by similar words.
        """
        every = np.arange(len(label_type))
        log_probability = self._log_probability(features, fold)
        types = _pooled(log_probability[:, : self.n_types], votes, self.pool)
        typed = _logsumexp(log_probability[:, : self.n_types])[:, 0]
        rivals = types.copy()
        rivals[every, label_type] = -np.inf
        competing = rivals.argmax(axis=1)
        no_label = log_probability[:, self.n_types] + np.log(UNLABELLED_ODDS)
        best_rival = typed + rivals[every, competing]
        margin = np.maximum(best_rival, no_label) - typed - types[every, label_type]
        return Suspicion(
            margin,
            types,
            competing,
            self._contributions(features, fold, label_type, competing, votes),
            no_label > best_rival,
        )

    def seen_types(self) -> npt.NDArray[np.bool_]:
        """Return which label types each fold has seen: shape (folds, n_types)."""
        return np.asarray(self.intercepts[:, : self.n_types] > _FLOOR)

    def class_log_probability(self, features: sparse.csr_matrix, fold: Ints) -> Floats:
        """Compute log probabilities of each label type, and of none, without similar words.

        Args:
            features: shape (n, d), of n words.
            fold: shape (n,), of each word's receipt; its own fold has not seen it.

        Returns:
            Shape (n, n_types + 1); the last column is "no label".
        """
        return self._log_probability(features, fold)

    def _log_probability(self, features: sparse.csr_matrix, fold: Ints) -> Floats:
        """Compute log probabilities, shape (n, n_types + 1), of each label type and of none."""
        used = features[:, self.columns]
        scores = np.empty((features.shape[0], self.n_types + 1))
        for held_out in range(FOLDS):
            rows = np.flatnonzero(fold == held_out)
            scores[rows] = (
                np.asarray(used[rows] @ self.coefficients[held_out].T) + self.intercepts[held_out]
            )
        return np.asarray(scores - _logsumexp(scores))

    def _contributions(
        self,
        features: sparse.csr_matrix,
        fold: Ints,
        label_type: Ints,
        competing: Ints,
        votes: Floats,
    ) -> Floats:
        used = features[:, self.columns]
        parts = np.zeros((features.shape[0], len(EVIDENCE_GROUPS)))
        ranges = group_ranges(self.n_types)
        for number, (start, end) in enumerate(ranges.values()):
            inside = slice(*np.searchsorted(self.columns, [start, end]).tolist())
            block = used[:, inside]
            for held_out in range(FOLDS):
                rows = np.flatnonzero(fold == held_out)
                scores = np.asarray(block[rows] @ self.coefficients[held_out][:, inside].T)
                at = np.arange(len(rows))
                parts[rows, number] = scores[at, competing[rows]] - scores[at, label_type[rows]]
        every = np.arange(len(label_type))
        log_votes = _log_votes(votes)
        parts[:, -1] = self.pool * (log_votes[every, competing] - log_votes[every, label_type])
        return parts


def _logsumexp(values: Floats) -> Floats:
    """Compute log(sum(exp)) of each of n rows: shape (n, 1)."""
    from scipy.special import logsumexp

    return np.asarray(logsumexp(values, axis=1, keepdims=True))


def _log_votes(votes: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(votes, 1e-4)))


def _pooled(log_types: Floats, votes: Floats, pool: float) -> Floats:
    mixed = log_types + pool * _log_votes(votes)
    return np.asarray(mixed - _logsumexp(mixed))


def _best_pool(log_probability: Floats, votes: Floats, label_type: Ints, weight: Floats) -> float:
    """Choose the exponent under which the labels, weighted by trust, are most likely."""
    every = np.arange(len(label_type))
    likelihood = [
        float(weight @ _pooled(log_probability[:, :-1], votes, pool)[every, label_type])
        for pool in _POOLS
    ]
    return _POOLS[int(np.argmax(likelihood))]
