"""View: the probability of each label type by some groups of features, out of fold.

A multinomial logistic regression on the features of words. Words without a label are a class of
their own, behind the label types: "no label".
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.base.threads import in_threads, one_blas_thread
from harmonizer_assets.core.score.features import GROUPS, group_ranges
from harmonizer_assets.core.score.folds import FOLDS, Folds

if TYPE_CHECKING:
    from scipy import sparse

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_ITERATIONS: Final = 30
_RARE_SHARE: Final = 0.001
_RARE_COUNT: Final = 3
_FLOOR: Final = -30.0


@dataclass(frozen=True)
class ViewKind:
    """What a view looks at.

    Attributes:
        groups: the groups of features that it uses, see `features.GROUPS`.
        apart: what is left out of the data that a word is judged by: its whole `receipt`, or its
            `row` alone.
        strength: inverse strength of the regularisation; small where features are many and short.
    """

    groups: Sequence[str]
    apart: Literal["receipt", "row"]
    strength: float = 1.0

    def fold(self, folds: Folds) -> Ints:
        """Return the folds that keep a word apart in this view: shape (n, assignments)."""
        return folds.receipt if self.apart == "receipt" else folds.row


@dataclass(frozen=True)
class TrainingData:
    """Words to learn from: shape (n,) each, features n rows.

    Attributes:
        features: sparse, shape (n, d).
        target: the label type of each word; `n_types` for words without a label.
        weight: how much each counts.
        folds: of each word.
        n_types: how many label types there are.
    """

    features: sparse.csr_matrix
    target: Ints
    weight: Floats
    folds: Folds
    n_types: int


@dataclass(frozen=True)
class View:
    """A fitted view; fold `f` of an assignment has not seen the words of fold `f`.

    Attributes:
        kind: what it looks at.
        columns: shape (c,), the feature columns in use, ascending.
        coefficients: shape (assignments, folds, n_types + 1, c).
        intercepts: shape (assignments, folds, n_types + 1).
    """

    kind: ViewKind
    columns: Ints
    coefficients: npt.NDArray[np.float32]
    intercepts: npt.NDArray[np.float32]

    @property
    def n_types(self) -> int:
        """The number of label types."""
        return int(self.intercepts.shape[-1]) - 1

    def log_probability(self, features: sparse.csr_matrix, folds: Folds) -> Floats:
        """Compute log probabilities, shape (n, n_types + 1), of each label type and of none.

        The probabilities of all assignments are averaged.
        """
        used, fold = features[:, self.columns], self.kind.fold(folds)
        found = []
        for assignment, (coefficients, intercepts) in enumerate(
            zip(self.coefficients, self.intercepts, strict=True)
        ):
            scores = np.empty((features.shape[0], self.n_types + 1))
            for held_out in range(FOLDS):
                rows = np.flatnonzero(fold[:, assignment] == held_out)
                scores[rows] = used[rows] @ coefficients[held_out].T + intercepts[held_out]
            found.append(scores - logsumexp(scores))
        return np.asarray(np.logaddexp.reduce(found) - np.log(len(found)))

    def contributions(
        self, features: sparse.csr_matrix, folds: Folds, label_type: Ints, competing: Ints
    ) -> Floats:
        """Compute how much each group speaks for one type and against another, in log odds.

        Args:
            features: shape (n, d).
            folds: of the n words.
            label_type: shape (n,), the type spoken against.
            competing: shape (n,), the type spoken for.

        Returns:
            Shape (n, len(GROUPS)); groups that the view does not look at contribute 0.
        """
        used = features[:, self.columns]
        # Two types of each word are looked at, so that its entries are added up one by one: a
        # product with the coefficients would compute all types.
        word = np.repeat(np.arange(used.shape[0]), np.diff(used.indptr))
        column = used.indices
        speaks = np.zeros(len(column), dtype=np.float64)
        for coefficients, fold in zip(self.coefficients, self.kind.fold(folds).T, strict=True):
            speaks += coefficients[fold[word], competing[word], column]
            speaks -= coefficients[fold[word], label_type[word], column]
        ends = [end for _, end in group_ranges(self.n_types).values()]
        group = np.searchsorted(ends, self.columns, side="right")[column]
        parts = np.bincount(
            word * len(GROUPS) + group,
            weights=used.data * speaks / len(self.coefficients),
            minlength=used.shape[0] * len(GROUPS),
        )
        return np.asarray(parts, dtype=np.float64).reshape(-1, len(GROUPS))

    def seen_types(self, folds: Folds) -> npt.NDArray[np.bool_]:
        """Say which label types all folds of each of n words have seen: shape (n, n_types)."""
        seen = self.intercepts[..., : self.n_types] > _FLOOR
        every = np.arange(len(seen))
        return np.asarray(seen[every, self.kind.fold(folds)].all(axis=1))


def fit_views(kinds: Sequence[ViewKind], data: TrainingData) -> tuple[View, ...]:
    """Fit views on the same words.

    Each fold of each assignment is a fit of its own in each view, and as many of them run at once
    as there are processors.
    """
    seen = np.bincount(data.features.indices, minlength=data.features.shape[1])
    frequent = seen >= max(_RARE_COUNT, _RARE_SHARE * data.features.shape[0])
    ranges = group_ranges(data.n_types)
    columns = [
        np.concatenate([start + np.flatnonzero(frequent[start:end]) for start, end in looked_at])
        for looked_at in ([ranges[group] for group in kind.groups] for kind in kinds)
    ]
    used = [data.features[:, each] for each in columns]
    assigned = [kind.fold(data.folds) for kind in kinds]
    shape = (assigned[0].shape[1], FOLDS)
    jobs = [(number, *fold) for number in range(len(kinds)) for fold in np.ndindex(shape)]

    def fit(job: tuple[int, int, int]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        number, assignment, held_out = job
        apart = assigned[number][:, assignment] == held_out
        rows = np.flatnonzero(~apart & (data.weight > 0))
        return _fit_fold(used[number], data, rows, kinds[number].strength)

    with warnings.catch_warnings(), one_blas_thread():
        # Stopping early is part of the method: it is a regulariser and bounds the time.
        warnings.filterwarnings("ignore", "lbfgs failed to converge")
        # Each fit has a thread, and BLAS in it one: the solver adds up one vector at a time, and
        # BLAS's threads lose more in waiting for each other than they gain.
        fitted = in_threads(fit, jobs)
    per_view = len(jobs) // len(kinds)

    def stacked(arrays: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        return np.stack(arrays).reshape(*shape, *arrays[0].shape)

    fits = (fitted[start : start + per_view] for start in range(0, len(fitted), per_view))
    return tuple(
        View(kind, used_columns, *(stacked(arrays) for arrays in zip(*mine, strict=True)))
        for kind, used_columns, mine in zip(kinds, columns, fits, strict=True)
    )


def _fit_fold(
    features: sparse.csr_matrix, data: TrainingData, rows: Ints, strength: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Fit on some rows; return coefficients (n_types + 1, c) and intercepts (n_types + 1,)."""
    # Importing scikit-learn takes longer than a run that finds nothing to do.
    from sklearn.linear_model import LogisticRegression

    coefficients = np.zeros((data.n_types + 1, features.shape[1]), dtype=np.float32)
    # A type that does not occur gets next to no probability.
    intercepts = np.full(data.n_types + 1, _FLOOR, dtype=np.float32)
    classes = np.unique(data.target[rows])
    if len(classes) < 2:
        intercepts[classes] = 0.0
        return coefficients, intercepts
    if not features.shape[1]:
        # Nothing that the view looks at occurs often enough: it says how frequent the types are.
        weight = np.bincount(data.target[rows], data.weight[rows], minlength=data.n_types + 1)
        intercepts[classes] = np.log(weight[classes] / weight.sum())
        return coefficients, intercepts
    learner = LogisticRegression(C=strength, max_iter=_ITERATIONS, tol=1e-3)
    learner.fit(features[rows], data.target[rows], sample_weight=data.weight[rows])
    if len(classes) == 2:
        coefficients[classes[1]] = learner.coef_[0]
        intercepts[classes] = (0.0, learner.intercept_[0])
    else:
        coefficients[classes] = learner.coef_
        intercepts[classes] = learner.intercept_
    return coefficients, intercepts


def logsumexp(values: Floats) -> Floats:
    """Compute log(sum(exp)) of each of n rows: shape (n, 1)."""
    from scipy import special

    return np.asarray(special.logsumexp(values, axis=1, keepdims=True))
