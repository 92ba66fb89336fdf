"""Calibration: from a margin of suspicion to the probability that a label is wrong.

Which unvalidated labels are wrong is not known. With enough validated labels their share is
bounded without assuming any shape (mixture proportion estimation, Blanchard et al. 2010): no more
labels can be right than lie below a margin, divided by the share of validated ones that do. The
least bound over several margins is the estimate, and Bayes' rule gives the probability at a margin.

Otherwise the share is estimated twice.

1. The margins are taken as a mixture of those of right labels (two normal distributions, of clear
   and of hard ones) and those of wrong labels (one), fitted by expectation-maximisation (Dempster
   et al. 1977) with the known ones fixed (semi-supervised, Nigam et al. 2000).
2. No more labels can be wrong than lie above a margin, divided by the share of the same words under
   wrong types that do; the least such bound.

Where the two agree, the mixture has found the wrong labels. Where they do not, the shape that it
assumes is not that of these labels (mistakes that speak for each other, a type that most words
have, labels that are right and hard to tell), and the second one holds. A logistic curve (Platt
1999) makes the probability rise with the margin everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.records.status import RETIRED, WEIGHTS, Status

Floats = npt.NDArray[np.float64]

_ROUNDS: Final = 200
_LEAST_SPREAD: Final = 0.3
_FEWEST: Final = 50
_START_WRONG: Final = 0.08
_MOST_WRONG: Final = 0.5
_ENOUGH: Final = 300
"""Validated labels that show how the margins of right labels are spread."""
_RIGHT_LEVELS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Quantiles of the margins of right labels at which their number is bounded."""
_WRONG_LEVELS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Quantiles of the margins of wrong labels at which their number is bounded.

The highest are left out: labels that are swapped on purpose are worse than most real errors.
"""
_AGREEMENT: Final = 2.0
"""Factor up to which two estimates agree.

Where most mistakes are random, the second one is 1.4 times the share that is wrong, and half of it
where all are between types that are hard to tell apart: swaps are half of either.
"""
_SLOPES: Final = (0.05, 20.0)


@dataclass(frozen=True)
class Calibration:
    """P(wrong) = logistic(slope x margin + intercept), for labels that are not validated.

    Attributes:
        slope: positive, so that more suspicion never means a lower probability.
        intercept: log odds at margin 0.
        wrong_share: estimated share of wrong ones among unvalidated labels.
        doubted_share: the other estimate, where the two disagree; otherwise the same.
    """

    slope: float
    intercept: float
    wrong_share: float
    doubted_share: float

    @classmethod
    def fit(cls, unknown: Floats, right: Floats, wrong: Floats, swapped: Floats) -> Calibration:
        """Fit on margins.

        Args:
            unknown: shape (n,), of labels that are not validated.
            right: shape (m,), of validated labels.
            wrong: shape (k,), of labels known to be wrong.
            swapped: shape (n,), of the words of `unknown` under a wrong type; empty where there
                is no other type.
        """
        # SciPy is imported where it is used: a run that finds nothing to do needs none of it.
        from scipy.special import logit

        if len(unknown) < _FEWEST:
            # Too few to see a mixture: the model's own odds, at a usual share of wrong labels.
            return cls(1.0, float(logit(_START_WRONG)), _START_WRONG, _START_WRONG)
        if len(right) >= _ENOUGH:
            bound = _share_by_right(unknown, right)
            chance = _chance_of_second(right, unknown)
            posterior = 1.0 - (1.0 - bound) * (1.0 - chance) / chance
            return cls(*_curve(unknown, posterior, bound), bound, bound)
        posterior, share = _mixture(unknown, right, wrong)
        if not len(swapped):
            return cls(*_curve(unknown, posterior, share), share, share)
        bound = _share_by_swaps(unknown, swapped)
        if 1 / _AGREEMENT <= share / bound <= _AGREEMENT:
            return cls(*_curve(unknown, posterior, share), share, share)
        return cls(*_curve_of_swaps(unknown, swapped, bound), bound, share)

    def doubt(self) -> str:
        """Say in a sentence that the share of wrong labels cannot be told; empty where it can."""
        if self.doubted_share == self.wrong_share:
            return ""
        low, high = sorted((self.wrong_share, self.doubted_share))
        return (
            f"how many of the labels without a person's answer are wrong cannot be told ({low:.1%} "
            f"by one estimate, {high:.1%} by another); validating some would tell"
        )

    def log_odds(self, margin: Floats) -> Floats:
        """Compute log odds of being wrong, shape (n,), before statuses are taken into account."""
        return self.slope * margin + self.intercept


def are_rejected(statuses: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which of n labels are out of use, shape (n,): by a person, or by a rule alone."""
    return np.array([status in (Status.INVALID, RETIRED) for status in statuses], dtype=bool)


def probability(log_odds: Floats, statuses: Sequence[str]) -> Floats:
    """Compute P(wrong) of n labels, shape (n,), shifted by their statuses."""
    from scipy.special import expit

    shift = np.array([WEIGHTS[status].log_odds for status in statuses], dtype=np.float64)
    rejected = are_rejected(statuses)
    return np.asarray(expit(np.where(rejected, np.maximum(log_odds, 0.0), log_odds) + shift))


def _curve(margin: Floats, posterior: Floats, share: float) -> tuple[float, float]:
    """Fit slope and intercept of a logistic curve to the probabilities of n margins."""
    from scipy.optimize import minimize
    from scipy.special import logit

    # A weight of its own for each class keeps the curve in place where wrong labels are few.
    target = np.clip(posterior, 1e-6, 1 - 1e-6)

    def loss(parameters: Floats) -> float:
        scores = np.exp(parameters[0]) * margin + parameters[1]
        return float(np.mean(np.logaddexp(0.0, scores) - target * scores)) + 1e-4 * float(
            parameters[0] ** 2
        )

    found = minimize(loss, np.array([0.0, logit(share)]), method="Nelder-Mead")
    return float(np.exp(found.x[0])), float(found.x[1])


def _share_by_right(unknown: Floats, right: Floats) -> float:
    """Estimate the share of wrong labels by how many are as little suspicious as right ones."""
    levels = np.array(_RIGHT_LEVELS)
    below = np.searchsorted(np.sort(unknown), np.quantile(right, levels), side="right")
    # The quantiles of a small sample are uncertain, and the least of many bounds would always err
    # on the same side.
    error = np.sqrt(levels * (1 - levels) / len(right)) / levels
    return _possible_share(1.0 - float((below / len(unknown) / levels + error).min()), len(unknown))


def _share_by_swaps(unknown: Floats, swapped: Floats) -> float:
    """Estimate the share of wrong labels by how many are as suspicious as swapped ones."""
    above = [
        (np.count_nonzero(unknown > np.quantile(swapped, level)) + 0.5) / (1 - level)
        for level in _WRONG_LEVELS
    ]
    return _possible_share(min(above) / len(unknown), len(unknown))


def _possible_share(share: float, n: int) -> float:
    return float(np.clip(share, 1.0 / (n + 2), _MOST_WRONG))


def _chance_of_second(first: Floats, second: Floats) -> Floats:
    """Estimate how probably a margin is of the second sample, were both equally large.

    Returns:
        Shape (n,), for the margins of the second one; by isotonic regression, so that it rises with
        the margin. Bayes' rule makes the ratio of the two densities of it.
    """
    from sklearn.isotonic import IsotonicRegression

    n, k = len(first), len(second)
    curve = IsotonicRegression(y_min=1e-6, y_max=1 - 1e-6, out_of_bounds="clip")
    is_second = np.concatenate([np.zeros(n), np.ones(k)])
    weight = np.concatenate([np.full(n, 1.0 / n), np.full(k, 1.0 / k)])
    curve.fit(np.concatenate([first, second]), is_second, sample_weight=weight)
    return np.asarray(curve.predict(second))


def _curve_of_swaps(unknown: Floats, swapped: Floats, share: float) -> tuple[float, float]:
    """Find slope and intercept of a logistic curve for a known share of wrong labels.

    The curve passes one half where as many labels are more suspicious as are wrong. Its slope is
    that of the probability of being wrong, which Bayes' rule gives from how often a margin occurs
    among swapped labels and among all.
    """
    from scipy.optimize import minimize_scalar

    n = len(unknown)
    ordered = np.sort(unknown)[::-1]
    last = int(np.clip(round(share * n), 1, n - 1))
    half = float(ordered[last - 1] + ordered[last]) / 2.0
    # Isotonic regression rises: of suspicion taken as its opposite, all labels come second.
    chance = 1.0 - _chance_of_second(-swapped, -unknown)
    target = np.minimum(share * chance / (1.0 - chance), 1.0)

    def loss(log_slope: float) -> float:
        scores = np.exp(log_slope) * (unknown - half)
        return float(np.mean(np.logaddexp(0.0, scores) - target * scores))

    found = minimize_scalar(loss, bounds=tuple(np.log(_SLOPES)), method="bounded")
    slope = float(np.exp(found.x))
    return slope, -slope * half


def _mixture(unknown: Floats, right: Floats, wrong: Floats) -> tuple[Floats, float]:
    """Compute the posterior of being wrong of unknown margins, and the share of wrong ones."""
    from scipy.special import logsumexp

    known = np.concatenate([right, wrong])
    values = np.concatenate([unknown, known])
    n = len(unknown)
    # Rows: clear right, hard right, wrong. Known labels may only be in their own part.
    allowed = np.zeros((3, len(values)))
    allowed[:2, n + len(right) :] = -np.inf
    allowed[2, n : n + len(right)] = -np.inf
    pool = right if len(right) >= _FEWEST else unknown
    found = wrong if len(wrong) >= _FEWEST else np.quantile(unknown, [1 - _START_WRONG / 2])
    mean = np.array([np.median(pool), np.quantile(pool, 0.9), found.mean()])
    spread = np.full(3, max(_LEAST_SPREAD, float(np.std(pool)) / 2))
    share = np.array([0.8, 0.2 - _START_WRONG, _START_WRONG])
    # Known wrong labels are synthetic: they shape their part but must not outnumber the rest.
    importance = np.ones(len(values))
    importance[n + len(right) :] = min(1.0, _START_WRONG * n / max(len(wrong), 1))
    responsibility = np.zeros((3, len(values)))
    for _ in range(_ROUNDS):
        density = (
            -0.5 * ((values - mean[:, None]) / spread[:, None]) ** 2
            - np.log(spread)[:, None]
            + np.log(share)[:, None]
            + allowed
        )
        updated = np.exp(density - logsumexp(density, axis=0))
        if np.abs(updated - responsibility).max() < 1e-6:
            break
        responsibility = updated
        mass = responsibility * importance
        total = mass.sum(axis=1) + 1e-9
        mean = mass @ values / total
        variance = np.sum(mass * (values - mean[:, None]) ** 2, axis=1) / total
        spread = np.sqrt(np.maximum(variance, _LEAST_SPREAD**2))
        among_unknown = responsibility[:, :n].sum(axis=1) + 0.5
        share = among_unknown / among_unknown.sum()
        share[2] = min(share[2], _MOST_WRONG)
        share = share / share.sum()
    return responsibility[2, :n], float(np.clip(share[2], 1.0 / (n + 2), _MOST_WRONG))
