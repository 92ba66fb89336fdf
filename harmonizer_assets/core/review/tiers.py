"""Tiers: a rule of the policy is applied only while a blind sample says that people agree with it.

People answer about a part of what the rule would apply without being shown what is proposed. The
rule opens once the lower bound of their agreement reaches the level of the policy; a disagreement
that brings the bound below it closes the rule until somebody reopens it, and counting begins anew.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

CONFIDENCE: Final = 0.95


class Evidence(NamedTuple):
    """One event in the life of a rule, in the order of time.

    Attributes:
        at: when.
        agrees: whether a person's blind answer is what was proposed; None where somebody has
            reopened the rule.
    """

    at: dt.datetime
    agrees: bool | None


@dataclass(frozen=True)
class TierState:
    """What the blind sample of a rule says.

    Attributes:
        answers: blind answers that count.
        agreeing: how many of them say what was proposed.
        bound: lower bound of the share that agrees, 0..1, with 95 % confidence.
        is_open: whether the rule is applied.
        was_closed: whether a disagreement has closed it, so that somebody has to reopen it.
    """

    answers: int = 0
    agreeing: int = 0
    bound: float = 0.0
    is_open: bool = False
    was_closed: bool = False


def lower_bound(agreeing: int, answers: int, confidence: float = CONFIDENCE) -> float:
    """Return the lower bound of a share, one-sided.

    Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of
    the binomial".
    """
    # Imported where it is used: a run that finds nothing to do needs none of SciPy.
    from scipy.stats import beta

    if not agreeing:
        return 0.0
    return float(beta.ppf(1 - confidence, agreeing, answers - agreeing + 1))


def tier_state(events: Iterable[Evidence], level: float) -> TierState:
    """Follow a rule through its events.

    Args:
        events: in the order of time.
        level: of agreement, 0..1, from which the rule is open.
    """
    state = TierState()
    for event in events:
        if event.agrees is None:
            state = TierState()
            continue
        answers, agreeing = state.answers + 1, state.agreeing + event.agrees
        bound = lower_bound(agreeing, answers)
        closed = state.was_closed or (state.is_open and bound < level)
        state = TierState(answers, agreeing, bound, bound >= level and not closed, closed)
    return state
