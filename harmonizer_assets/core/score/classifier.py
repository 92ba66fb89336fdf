"""Suspicion: how much a word looks like another label type than the one it carries.

People label a row or a phrase at once, so that wrong labels come together and speak for each other.
Three views of a word that depend on each other as little as may be are asked therefore:

- the whole page, the labels of the words around it included, learned from other receipts;
- the word, its row and its place, with the labels of other rows only, learned from all other rows;
- the text alone, learned from other receipts.

What the last two say is averaged as probabilities (a linear opinion pool: one of them that knows
the word is enough to speak for its label; Genest and Zidek 1986, "Combining Probability
Distributions"). The odds of that against the label and those of the first view are averaged as a
power mean with a small exponent: between the logarithmic pool, in which one view that agrees takes
back what the other says, and the sum of the odds, in which it takes back nothing.

Three things keep the views from learning the errors: they are fitted out of fold, under two
assignments of words to folds whose probabilities are averaged; labels count by status; and a second
fit weighs each label by how plausible the first one found it (confident learning, Northcutt et al.
2021, with weights in the place of removal).
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
UNLABELLED_ROW: Final = ViewKind([group for group in ROW.groups if group != "around"], "row")
TEXT: Final = ViewKind(["text"], "receipt", strength=0.3)
KINDS: Final = (PAGE, ROW, TEXT)
"""The views that a model asks."""
_FIRST_KINDS: Final = (PAGE, UNLABELLED_ROW, TEXT)
"""The views of the first fit, which believes every label: one of them sees no other label."""

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
_EXPONENT: Final = 1 / 8
"""Of the power mean of odds: 0 would be the logarithmic pool, 1 the mean of the odds."""
_LEAST_PLAUSIBLE: Final = 0.05
"""Weight that a label keeps in the second fit: rare types look implausible also where right."""


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
class Opinions:
    """What the views say of n words: shape (n, n_types + 1) each, the last column is "no label".

    Attributes:
        page: log probabilities by the page and by similar words.
        word: the same by the row and by the text.
        seen: shape (n, n_types), which types the view of the page has seen.
    """

    page: Floats
    word: Floats
    seen: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Odds:
    """Odds of each label type and of none against the types of n labels.

    Attributes:
        types: shape (n, n_types), logarithms; 0 for the label's own type.
        none: shape (n,), the same of "no label".
        by_page: shape (n, n_types), which share of each is due to the page.
    """

    types: Floats
    none: Floats
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
        # How much a label is believed needs no average.
        once = replace(data, folds=data.folds.first())
        unsure = cls(fit_views(_FIRST_KINDS, once), share, 0.0)
        opinions = unsure.opinions(features[word], folds.take(word).first(), votes)
        first = unsure.margin(opinions, label_type)
        plausible = np.maximum(1.0 / (1.0 + np.exp(first)), _LEAST_PLAUSIBLE)
        plausible[weight >= WEIGHTS[Status.VALID].trust] = 1.0
        trusted = data.weight.copy()
        trusted[: len(word)] *= plausible
        second = cls(fit_views(KINDS, replace(data, weight=trusted)), share, 0.0)
        log_probability = second.views[0].log_probability(features[word], folds.take(word))
        pool = _best_pool(log_probability, votes, label_type, trusted[: len(word)])
        return replace(second, pool=pool)

    def opinions(self, features: sparse.csr_matrix, folds: Folds, votes: Floats) -> Opinions:
        """Ask the views about n words, each by the folds that have not seen it.

        The votes of similar words are pooled with the page's probabilities of the label types, as
        a product with an exponent. They do not tell whether the word should carry a label at all.

        Args:
            features: shape (n, d).
            folds: of the words.
            votes: shape (n, n_types), probability of each type by similar words.
        """
        row, text = (view.log_probability(features, folds) for view in self.views[1:])
        word = np.log((np.exp(row) + np.exp(text)) / 2.0 + _LEAST_PROBABILITY)
        page = self.views[0].log_probability(features, folds)
        page[:, :-1] = logsumexp(page[:, :-1]) + _pooled(page[:, :-1], votes, self.pool)
        page = np.log(np.exp(page) + _LEAST_PROBABILITY)
        return Opinions(page, word, self.views[0].seen_types(folds))

    def assess(
        self,
        opinions: Opinions,
        features: sparse.csr_matrix,
        label_type: Ints,
        folds: Folds,
        votes: Floats,
    ) -> Suspicion:
        """Assess n labels.

        Args:
            opinions: on their words, as `opinions` gives them for the same words.
            features: shape (n, d), of each label's word.
            label_type: shape (n,).
            folds: of the labels' words.
            votes: shape (n, n_types), probability of each type by similar words.
        """
        every = np.arange(len(label_type))
        odds = self._odds(opinions, label_type)
        rivals = _rivals(odds, label_type)
        competing = rivals.argmax(axis=1)
        # Of one label type there is no rival, and the best of none is not the type itself.
        rival = rivals[every, competing]
        return Suspicion(
            np.maximum(rival, odds.none),
            odds.types - logsumexp(odds.types),
            competing,
            self._contributions(
                features, folds, label_type, competing, odds.by_page[every, competing], votes
            ),
            odds.none > rival,
        )

    def margin(self, opinions: Opinions, label_type: Ints) -> Floats:
        """Compute the margins alone of n labels, see `assess`: shape (n,)."""
        odds = self._odds(opinions, label_type)
        return np.maximum(_rivals(odds, label_type).max(axis=1), odds.none)

    def competing(self, opinions: Opinions, label_type: Ints) -> Ints:
        """Find the best other type of n labels alone, see `assess`: shape (n,)."""
        return _rivals(self._odds(opinions, label_type), label_type).argmax(axis=1)

    def _odds(self, opinions: Opinions, label_type: Ints) -> _Odds:
        every = np.arange(len(label_type))
        # A view that has never seen the label's type knows nothing of it.
        weight = np.where(opinions.seen[every, label_type], 0.5, 0.0)[:, None]
        page, word = (
            np.exp(_EXPONENT * (logs - logs[every, label_type][:, None]))
            for logs in (opinions.page, opinions.word)
        )
        page, word = weight * page, (1.0 - weight) * word
        both = page + word
        rarity = _RARITY * np.log(self.share)
        logs = np.log(both) / _EXPONENT + rarity[label_type][:, None]
        types, none = logs[:, :-1] - rarity, logs[:, -1] + np.log(UNLABELLED_ODDS)
        return _Odds(types, none, (page / both)[:, :-1])

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

    def class_log_probability_of_text(self, features: sparse.csr_matrix, folds: Folds) -> Floats:
        """Compute the same by the view of the text alone, for words with no labels around."""
        return self.views[-1].log_probability(features, folds)

    def _contributions(
        self,
        features: sparse.csr_matrix,
        folds: Folds,
        label_type: Ints,
        competing: Ints,
        by_page: Floats,
        votes: Floats,
    ) -> Floats:
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


def _rivals(odds: _Odds, label_type: Ints) -> Floats:
    """Return the odds of all types but the own ones of n labels: shape (n, n_types)."""
    rivals = odds.types.copy()
    rivals[np.arange(len(label_type)), label_type] = -np.inf
    return rivals


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
