"""Outlier scores and triage: what evidence alone decides, and what a judge is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.calibration import probability
from harmonizer_assets.core.evidence import Evidence, Floats, Ints
from harmonizer_assets.core.features import extract_features
from harmonizer_assets.core.fitting import FittedModel, LabelFeatures
from harmonizer_assets.core.settings import SimilaritySettings, TriageSettings

SCORER_VERSION: Final = "4"

_STATUS_ODDS: Final = {
    # A validated label is rarely wrong and a rejected one rarely right, whatever else says so.
    "VALID": 0.01,
    "PENDING": 1.0,
    "NEEDS_REVIEW": 1.2,
    "NONE": 1.0,
    "INVALID": 100.0,
}
DECIMALS: Final = 6
"""The last bits of a matrix product depend on the processor; six decimals do not."""


@dataclass(frozen=True)
class Scores:
    """Scores of n labels.

    Attributes:
        outlier_score: shape (n,), 0..1, higher is more suspicious.
        triage: shape (n,), `valid`, `outlier` or `ambiguous`.
        type_probability: shape (n, t), of every label type.
        competing_type: shape (n,), the most probable other type.
        no_label: shape (n,), whether the word looks like one that carries no label.
        contributions: shape (n, g), log odds against the label by group of evidence; None where
            the scorer does not tell them apart.
    """

    outlier_score: Floats
    triage: npt.NDArray[np.str_]
    type_probability: Floats
    competing_type: Ints
    no_label: npt.NDArray[np.bool_]
    contributions: Floats | None = None


def score_with_model(
    model: FittedModel, located: LabelFeatures, settings: TriageSettings
) -> Scores:
    """Score n labels with a fitted model; `outlier_score` is the calibrated P(wrong).

    The model's thresholds decide by what P(wrong) would be without the label's status, as they were
    chosen. A VALID label is never rejected without a question and an INVALID one always; labels of
    types with too few trusted examples are always asked about.
    """
    words, row = np.unique(located.word, return_inverse=True)
    features = extract_features(located.page, words)[row]
    judged = model.suspicion.judge(features, located.label_type, located.fold, located.votes)
    log_odds = model.calibration.log_odds(judged.margin)
    statuses = located.labels["validation_status"].to_pylist()
    status = np.array(statuses, dtype=object)
    score = probability(log_odds, statuses)
    unseen = probability(log_odds, ["PENDING"] * len(statuses))
    valid, invalid = status == "VALID", status == "INVALID"
    rare = np.array(model.examples)[located.label_type] < settings.least_examples
    triage = np.select(
        [
            invalid,
            valid & (score <= settings.accept_at_most),
            valid | rare,
            unseen <= model.thresholds.accept,
            unseen >= model.thresholds.reject,
        ],
        ["outlier", "valid", "ambiguous", "valid", "outlier"],
        "ambiguous",
    )
    return Scores(
        np.round(score, DECIMALS),
        triage,
        np.exp(judged.type_log_probability),
        judged.competing_type,
        judged.unlabelled,
        judged.contributions,
    )


def score_labels(
    evidence: Evidence, statuses: Sequence[str], settings: SimilaritySettings
) -> Scores:
    """Score n labels by similar words alone, with `count_rule` or `evidence`.

    `evidence` compares the probability of the best other label type with that of the label's own,
    as odds, shifted by what the status says. `count_rule` is the classic baseline: enough VALID
    matches in the merchant make a label valid, none make it an outlier.
    """
    if settings.scorer == "count_rule":
        matches, enough = evidence.valid_matches, settings.min_valid_matches
        score = np.round(1.0 - np.minimum(matches, enough) / enough, DECIMALS)
        triage = np.select([matches >= enough, matches == 0], ["valid", "outlier"], "ambiguous")
    else:
        odds = evidence.competing_probability / np.maximum(evidence.label_probability, 1e-12)
        odds = odds * np.array([_STATUS_ODDS[status] for status in statuses])
        score = np.round(odds / (1.0 + odds), DECIMALS)
        triage = np.select(
            [score < settings.valid_below, score > settings.outlier_above],
            ["valid", "outlier"],
            "ambiguous",
        )
    return Scores(
        score,
        triage,
        evidence.type_probability,
        evidence.competing_type,
        np.zeros(len(score), dtype=bool),
    )
