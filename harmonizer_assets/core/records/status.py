"""Validation statuses, and the weights that they have in each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """A person's verdict on a label, as it arrives."""

    VALID = "VALID"
    INVALID = "INVALID"
    PENDING = "PENDING"
    NEEDS_REVIEW = "NEEDS_REVIEW"
    NONE = "NONE"


RETIRED: Final = "RETIRED"
"""What a label that a rule of the review policy alone has made INVALID counts as, as evidence."""


@dataclass(frozen=True)
class StatusWeights:
    """The weights of a status.

    Attributes:
        vote: weight of the label's vote for its type on similar words; negative votes against it.
        trust: weight of the label, 0..1, when a model learns from it and when the words
            around are described.
        odds: factor on the odds of being wrong that similar words alone give it.
        log_odds: added to the model's calibrated log odds of being wrong.
    """

    vote: float
    trust: float
    odds: float
    log_odds: float


WEIGHTS: Final[Mapping[str, StatusWeights]] = {
    # A person has looked at it: that outweighs all but the strongest votes and features.
    Status.VALID: StatusWeights(vote=1.0, trust=1.0, odds=0.01, log_odds=-5.0),
    Status.PENDING: StatusWeights(vote=0.4, trust=0.25, odds=1.0, log_odds=0.0),
    Status.NEEDS_REVIEW: StatusWeights(vote=0.3, trust=0.2, odds=1.2, log_odds=0.5),
    Status.NONE: StatusWeights(vote=0.4, trust=0.25, odds=1.0, log_odds=0.0),
    # A person has rejected it: it votes against its type with the weight of VALID, and
    # nothing makes it likely to be right.
    Status.INVALID: StatusWeights(vote=-1.0, trust=0.0, odds=100.0, log_odds=5.0),
    # It is out of use as well, but no person has looked at it: nothing is learned from it.
    RETIRED: StatusWeights(vote=0.0, trust=0.0, odds=100.0, log_odds=5.0),
}
"""Weights by status. Changing one changes scores: raise the versions of the scorers as well."""
