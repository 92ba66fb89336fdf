"""Suspicion: how much a word looks like another label type than the one it carries.

People label a row or a phrase at once, so that wrong labels come together and speak for each other.
Three views of a word that depend on each other as little as may be are asked therefore:

- the whole page, the labels of the words around it included, learned from other receipts;
- the word, its row and its place without any label, learned from all other rows;
- the text alone, learned from other receipts.

What the last two say is averaged as probabilities (a linear opinion pool: one of them that knows
the word is enough to speak for its label), and the result with the first one as logarithms (a
logarithmic pool: each can contradict strongly); for both see Genest and Zidek 1986, "Combining
Probability Distributions". Three things keep them from learning the errors: they are fitted out of
fold, labels count by status, and a second fit weighs each label by how plausible the first one
found it (confident learning, Northcutt et al. 2021, with weights in the place of removal).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.records.status import WEIGHTS, Status
from harmonizer_assets.core.score.features import GROUPS
from harmonizer_assets.core.score.folds import Folds
from harmonizer_assets.core.score.view import (
    Floats,
    Ints,
    TrainingData,
    View,
    ViewKind,
    fit_views,
    logsumexp,
)

if TYPE_CHECKING:
    from scipy import sparse

EVIDENCE_GROUPS: Final = (*GROUPS, "similar_words")
"""Groups of features, and similar words, whose contributions explanations name."""

PAGE: Final = ViewKind(GROUPS, "receipt")
ROW: Final = ViewKind([group for group in GROUPS if group != "neighbours"], "row")
TEXT: Final = ViewKind(["text"], "receipt")
KINDS: Final = (PAGE, ROW, TEXT)
"""The views that a model asks."""

UNLABELLED_WEIGHT: Final = 0.25
UNLABELLED_ODDS: Final = 0.1
"""Prior weight of "no label type fits": an unlabelled word may just not have been labelled."""

_LEAST_PROBABILITY: Final = 2e-4
"""What is added to each probability: views are less sure than their numbers say."""
_RARITY: Final = 0.15
"""Exponent of a type's share of all labels, by which its probability is divided.

A rare type gets a low probability everywhere, also where it is right, and a slip hits it as rarely.
"""
_POOLS: Final = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Suspicion:
    """How suspicious n labels are.

    Attributes:
        margin: shape (n,), log odds of the best other explanation against the label's own type.
        type_log_probability: shape (n, t), of every label type, given that the word has one.
        competing_type: shape (n,), the best other label type.
        contributions: shape (n, len(EVIDENCE_GROUPS)), how much each group speaks for
            the competing type and against the label's own, in log odds, over all views.
        unlabelled: shape (n,), whether "no label" explains the word better than any other type.
    """

    margin: Floats
    type_log_probability: Floats
    competing_type: Ints
    contributions: Floats
    unlabelled: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Pooled:
    """What all views together say of n labels; `by_page` is the weight of the page's view."""

    margin: Floats
    types: Floats
    competing: Ints
    unlabelled: npt.NDArray[np.bool_]
    by_page: Floats


@dataclass(frozen=True)
class SuspicionModel:
    """The fitted model.

    Attributes:
        views: of `KINDS`, in that order.
        share: shape (n_types,), of each type among the labels that it was fitted on.
        pool: weight of similar words' votes, see `assess`.
    """

    views: tuple[View, ...]
    share: Floats
    pool: float

    @property
    def n_types(self) -> int:
        """The number of label types."""
        return len(self.share)

    @classmethod
    def fit(
        cls,
        features: sparse.csr_matrix,
        word: Ints,
        label_type: Ints,
        weight: Floats,
        folds: Folds,
        votes: Floats,
        n_types: int,
    ) -> SuspicionModel:
        """Fit on m labels and on words without a label.

        Args:
            features: shape (n, d), of n words.
            word: shape (m,), row in `features` of each label; rows without any are unlabelled.
            label_type: shape (m,), the label's type.
            weight: shape (m,), how much the label counts, see `pages.trust_of`.
            folds: of the n words.
            votes: shape (m, n_types), probability of each type by similar words.
            n_types: how many label types there are.
        """
        unlabelled = np.setdiff1d(np.arange(features.shape[0]), word)
        rows = np.concatenate([word, unlabelled])
        # How much one label may teach must not depend on how many of all are validated.
        usual = float(weight.mean()) or 1.0
        data = TrainingData(
            features[rows],
            np.concatenate([label_type, np.full(len(unlabelled), n_types)]),
            np.concatenate([weight, np.full(len(unlabelled), UNLABELLED_WEIGHT)]) / usual,
            folds.take(rows),
            n_types,
        )
        count = np.bincount(label_type, minlength=n_types) + 1.0
        share = count / count.sum()
        labels = features[word], label_type, folds.take(word), votes
        first = cls(fit_views(KINDS, data), share, 0.0).margin(*labels)
        validated = weight >= WEIGHTS[Status.VALID].trust
        plausible = np.where(validated, 1.0, 1.0 / (1.0 + np.exp(first)))
        trusted = data.weight.copy()
        trusted[: len(word)] *= plausible
        second = cls(fit_views(KINDS, replace(data, weight=trusted)), share, 0.0)
        log_probability = second.views[0].log_probability(features[word], folds.take(word))
        pool = _best_pool(log_probability, votes, label_type, trusted[: len(word)])
        return replace(second, pool=pool)

    def assess(
        self, features: sparse.csr_matrix, label_type: Ints, folds: Folds, votes: Floats
    ) -> Suspicion:
        """Assess n labels, each by the folds that have not seen it.

        The votes of similar words are pooled with the page's probabilities of the label types, as
        a product with an exponent. They do not tell whether the word should carry a label at all.

        Args:
            features: shape (n, d), of each label's word.
            label_type: shape (n,).
            folds: of the labels' words.
            votes: shape (n, n_types), probability of each type by similar words.
        """
        pooled = self._pool(features, label_type, folds, votes)
        return Suspicion(
            pooled.margin,
            pooled.types - logsumexp(pooled.types),
            pooled.competing,
            self._contributions(features, folds, label_type, pooled, votes),
            pooled.unlabelled,
        )

    def margin(
        self, features: sparse.csr_matrix, label_type: Ints, folds: Folds, votes: Floats
    ) -> Floats:
        """Compute the margins alone of n labels, see `assess`: shape (n,)."""
        return self._pool(features, label_type, folds, votes).margin

    def _pool(
        self, features: sparse.csr_matrix, label_type: Ints, folds: Folds, votes: Floats
    ) -> _Pooled:
        every = np.arange(len(label_type))
        # A view that has never seen the label's type knows nothing of it.
        by_page = np.where(self.views[0].seen_types(folds)[every, label_type], 0.5, 0.0)
        log_probability = self._log_probability(features, folds, votes, by_page)
        types = log_probability[:, :-1] - _RARITY * np.log(self.share)
        none = log_probability[:, -1] + np.log(UNLABELLED_ODDS)
        rivals = types.copy()
        rivals[every, label_type] = -np.inf
        competing = rivals.argmax(axis=1)
        best_rival = rivals[every, competing]
        margin = np.maximum(best_rival, none) - types[every, label_type]
        return _Pooled(margin, types, competing, none > best_rival, by_page)

    def seen_types(self, folds: Folds) -> npt.NDArray[np.bool_]:
        """Say which label types any view has seen for each of n words: shape (n, n_types)."""
        return np.any([view.seen_types(folds) for view in self.views], axis=0)

    def class_log_probability(self, features: sparse.csr_matrix, folds: Folds) -> Floats:
        """Compute log probabilities of each label type, and of none, by the view of the page.

        Args:
            features: shape (n, d), of words that may or may not carry a label.
            folds: of the words.

        Returns:
            Shape (n, n_types + 1); the last column is "no label".
        """
        return self.views[0].log_probability(features, folds)

    def _log_probability(
        self, features: sparse.csr_matrix, folds: Folds, votes: Floats, by_page: Floats
    ) -> Floats:
        """Pool the views: log probability of each type and none, shape (n, n_types + 1)."""
        page, row, text = (view.log_probability(features, folds) for view in self.views)
        typed = logsumexp(page[:, :-1])
        page[:, :-1] = typed + _pooled(page[:, :-1], votes, self.pool)
        without_labels = (np.exp(row) + np.exp(text)) / 2.0
        weight = by_page[:, None]
        return np.asarray(
            weight * np.log(np.exp(page) + _LEAST_PROBABILITY)
            + (1.0 - weight) * np.log(without_labels + _LEAST_PROBABILITY)
        )

    def _contributions(
        self,
        features: sparse.csr_matrix,
        folds: Folds,
        label_type: Ints,
        pooled: _Pooled,
        votes: Floats,
    ) -> Floats:
        competing, by_page = pooled.competing, pooled.by_page
        page, row, text = (
            view.contributions(features, folds, label_type, competing) for view in self.views
        )
        weight = by_page[:, None]
        every = np.arange(len(label_type))
        log_votes = _log_votes(votes)
        similar = self.pool * (log_votes[every, competing] - log_votes[every, label_type])
        groups = weight * page + (1.0 - weight) * (row + text) / 2.0
        return np.column_stack([groups, by_page * similar])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `from_arrays` makes the model from."""
        found: dict[str, npt.NDArray[Any]] = {"share": self.share, "pool": np.array(self.pool)}
        for number, view in enumerate(self.views):
            found[f"columns_{number}"] = view.columns
            found[f"coefficients_{number}"] = view.coefficients
            found[f"intercepts_{number}"] = view.intercepts
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> SuspicionModel:
        """Make a model from the arrays of another one.

        Raises:
            KeyError: one is missing.
        """
        views = tuple(
            View(
                kind,
                arrays[f"columns_{number}"],
                arrays[f"coefficients_{number}"],
                arrays[f"intercepts_{number}"],
            )
            for number, kind in enumerate(KINDS)
        )
        return cls(views, arrays["share"], float(arrays["pool"]))


def _log_votes(votes: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(votes, 1e-4)))


def _pooled(log_types: Floats, votes: Floats, pool: float) -> Floats:
    mixed = log_types + pool * _log_votes(votes)
    return np.asarray(mixed - logsumexp(mixed))


def _best_pool(log_probability: Floats, votes: Floats, label_type: Ints, weight: Floats) -> float:
    """Choose the exponent under which the labels, weighted by trust, are most likely."""
    every = np.arange(len(label_type))
    likelihood = [
        float(weight @ _pooled(log_probability[:, :-1], votes, pool)[every, label_type])
        for pool in _POOLS
    ]
    return _POOLS[int(np.argmax(likelihood))]
