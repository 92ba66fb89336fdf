"""Outlier scores and triage: what evidence alone decides, and what a judge is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.evidence import Evidence, Floats
from harmonizer_assets.core.settings import SimilaritySettings

SCORER_VERSION: Final = "2"

_STATUS_ODDS: Final = {
    # A validated label is rarely wrong and a rejected one rarely right, whatever else says so.
    "VALID": 0.01,
    "PENDING": 1.0,
    "NEEDS_REVIEW": 1.2,
    "NONE": 1.0,
    "INVALID": 100.0,
}
_DECIMALS: Final = 6


@dataclass(frozen=True)
class Scores:
    """Scores of n labels.

    Attributes:
        outlier_score: shape (n,), 0..1, higher is more suspicious.
        triage: shape (n,), `valid`, `outlier` or `ambiguous`.
    """

    outlier_score: Floats
    triage: npt.NDArray[np.str_]


def score_labels(
    evidence: Evidence, statuses: Sequence[str], settings: SimilaritySettings
) -> Scores:
    """Score labels with the scorer that the settings name.

    `evidence` compares the probability of the best other label type with that of the label's own,
    as odds, shifted by what the status says. `count_rule` is the classic baseline: enough VALID
    matches in the merchant make a label valid, none make it an outlier.
    """
    if settings.scorer == "count_rule":
        return _count_rule(evidence, settings)
    odds = evidence.competing_probability / np.maximum(evidence.label_probability, 1e-12)
    odds = odds * np.array([_STATUS_ODDS[status] for status in statuses])
    score = np.round(odds / (1.0 + odds), _DECIMALS)
    triage = np.select(
        [score < settings.valid_below, score > settings.outlier_above],
        ["valid", "outlier"],
        "ambiguous",
    )
    return Scores(score, triage)


def _count_rule(evidence: Evidence, settings: SimilaritySettings) -> Scores:
    matches, enough = evidence.valid_matches, settings.min_valid_matches
    score = np.round(1.0 - np.minimum(matches, enough) / enough, _DECIMALS)
    triage = np.select([matches >= enough, matches == 0], ["valid", "outlier"], "ambiguous")
    return Scores(score, triage)
