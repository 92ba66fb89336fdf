"""Calibration: from a margin of suspicion to the probability that a label is wrong.

Which unvalidated labels are wrong is not known. The margins are taken as a mixture of those of
right labels (two normal distributions, of clear and of hard ones) and those of wrong labels (one),
fitted by expectation-maximisation (Dempster et al. 1977) with the known ones fixed
(semi-supervised, Nigam et al. 2000). A logistic curve through the mixture's posterior (Platt 1999)
makes the probability rise with the margin everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.records.status import WEIGHTS, Status

Floats = npt.NDArray[np.float64]

_ROUNDS: Final = 200
_LEAST_SPREAD: Final = 0.3
_FEWEST: Final = 50
_START_WRONG: Final = 0.08
_MOST_WRONG: Final = 0.5


@dataclass(frozen=True)
class Calibration:
    """P(wrong) = logistic(slope x margin + intercept), for labels that are not validated.

    Attributes:
        slope: positive, so that more suspicion never means a lower probability.
        intercept: log odds at margin 0.
        wrong_share: estimated share of wrong ones among unvalidated labels.
    """

    slope: float
    intercept: float
    wrong_share: float

    @classmethod
    def fit(cls, unknown: Floats, right: Floats, wrong: Floats) -> Calibration:
        """Fit on margins.

        Args:
            unknown: shape (n,), of labels that are not validated.
            right: shape (m,), of validated labels.
            wrong: shape (k,), of labels known to be wrong.
        """
        # SciPy is imported where it is used: a run that finds nothing to do needs none of it.
        from scipy.optimize import minimize
        from scipy.special import logit

        if len(unknown) < _FEWEST:
            # Too few to see a mixture: the model's own odds, at a usual share of wrong labels.
            return cls(1.0, float(logit(_START_WRONG)), _START_WRONG)
        posterior, share = _mixture(unknown, right, wrong)
        # A weight of its own for each class keeps the curve in place where wrong labels are few.
        target = np.clip(posterior, 1e-6, 1 - 1e-6)

        def loss(parameters: Floats) -> float:
            scores = np.exp(parameters[0]) * unknown + parameters[1]
            return float(np.mean(np.logaddexp(0.0, scores) - target * scores)) + 1e-4 * float(
                parameters[0] ** 2
            )

        found = minimize(loss, np.array([0.0, logit(share)]), method="Nelder-Mead")
        return cls(float(np.exp(found.x[0])), float(found.x[1]), share)

    def log_odds(self, margin: Floats) -> Floats:
        """Compute log odds of being wrong, shape (n,), before statuses are taken into account."""
        return self.slope * margin + self.intercept


def probability(log_odds: Floats, statuses: Sequence[str]) -> Floats:
    """Compute P(wrong) of n labels, shape (n,), shifted by their statuses."""
    from scipy.special import expit

    shift = np.array([WEIGHTS[status].log_odds for status in statuses], dtype=np.float64)
    rejected = np.array([status == Status.INVALID for status in statuses], dtype=bool)
    return np.asarray(expit(np.where(rejected, np.maximum(log_odds, 0.0), log_odds) + shift))


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
