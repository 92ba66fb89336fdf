"""Outlier scores and triage: what is decided by the score alone, and what a judge is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.base.memory import return_free_memory
from harmonizer_assets.core.base.settings import SimilaritySettings, TriageSettings
from harmonizer_assets.core.records.status import WEIGHTS, Status
from harmonizer_assets.core.score.calibration import are_rejected, probability
from harmonizer_assets.core.score.features import extract_features
from harmonizer_assets.core.score.fitting import FittedModel, LabelFeatures
from harmonizer_assets.core.score.unknown import (
    Reasons,
    is_unknown,
    unknown_to_model,
    without_similar_words,
    without_witnesses,
)
from harmonizer_assets.core.score.votes import Floats, Ints, Votes

SCORER_VERSION: Final = "7"

LOOKS_RIGHT_UP_TO: Final = 0.05
"""Score, its status apart, up to which a label that a person has rejected looks right."""
DECIMALS: Final = 6
"""Decimals of scores: the last bits of a matrix product depend on the processor."""
_WORDS_PER_PART: Final = 25_000
"""About so many words whose features are held at once."""


@dataclass(frozen=True)
class Scores:
    """Scores of n labels.

    Attributes:
        outlier_score: shape (n,), 0..1, higher is more suspicious.
        without_status: shape (n,), what `outlier_score` would be if the status were not known.
        triage: shape (n,), `valid`, `outlier`, `ambiguous`, or `unasked`: neither decided nor
            worth a question that costs something.
        looks_right: shape (n,), for labels that a person has rejected, whether they look right;
            None for all others.
        unknown_because: shape (n,), why nothing can be known about a label, whose score is then
            that of its status alone; None where something can.
        type_probability: shape (n, t), of every label type.
        competing_type: shape (n,), the most probable other type.
        no_label: shape (n,), whether the word looks like one that carries no label.
        contributions: shape (n, g), log odds against the label by group; None where the scorer
            does not separate them.
    """

    outlier_score: Floats
    without_status: Floats
    triage: npt.NDArray[np.str_]
    looks_right: npt.NDArray[np.object_]
    unknown_because: Reasons
    type_probability: Floats
    competing_type: Ints
    no_label: npt.NDArray[np.bool_]
    contributions: Floats | None = None


def score_in_parts(
    model: FittedModel, located: LabelFeatures, votes: Votes, settings: TriageSettings
) -> Scores:
    """Score n labels like `score_with_model`, whose features are not all held at once."""
    numbers, parts = [], []
    for at, part in located.parts(_WORDS_PER_PART):
        if len(at):
            numbers.append(at)
            parts.append(score_with_model(model, part, votes.of(at), settings))
            if located.page.n_words > _WORDS_PER_PART:
                return_free_memory()
    back = np.argsort(np.concatenate(numbers))
    return Scores(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])[back]
            for field in fields(Scores)
        }
    )


def score_with_model(
    model: FittedModel, located: LabelFeatures, votes: Votes, settings: TriageSettings
) -> Scores:
    """Score n labels with a fitted model; `outlier_score` is the calibrated P(wrong).

    The model's thresholds decide by what P(wrong) would be without the label's status, as they were
    chosen. A VALID label is never rejected without a question and an INVALID one always; labels of
    types with too few trusted examples are always asked about, and so are those about which the
    model can know nothing.
    """
    words, row = np.unique(located.word, return_inverse=True)
    features = extract_features(located.page, words)[row]
    opinions = model.suspicion.opinions(features, located.folds, located.votes)
    suspicion = model.suspicion.assess(
        opinions, features, located.label_type, located.folds, located.votes
    )
    unknown = unknown_to_model(model, located, votes)
    nothing = is_unknown(unknown)
    log_odds = np.where(nothing, 0.0, model.calibration.log_odds(suspicion.margin))
    statuses = located.labels["validation_status"].to_pylist()
    status = np.array(statuses, dtype=object)
    score = probability(log_odds, statuses)
    unseen = probability(log_odds, [Status.PENDING] * len(statuses))
    valid, invalid = status == Status.VALID, are_rejected(statuses)
    rare = np.array(model.examples)[located.label_type] < settings.least_examples
    triage = np.select(
        [
            invalid,
            nothing & ~valid,
            valid & (score <= settings.accept_at_most),
            valid | rare,
            unseen <= model.thresholds.accept,
            unseen >= model.thresholds.reject,
            unseen <= model.thresholds.ask,
        ],
        ["outlier", "ambiguous", "valid", "ambiguous", "valid", "outlier", "unasked"],
        "ambiguous",
    )
    return Scores(
        np.round(score, DECIMALS),
        np.round(unseen, DECIMALS),
        triage,
        rejected_but_right(invalid, (unseen <= LOOKS_RIGHT_UP_TO) & ~rare),
        unknown,
        np.exp(suspicion.type_log_probability),
        suspicion.competing_type,
        suspicion.unlabelled,
        suspicion.contributions,
    )


def score_labels(votes: Votes, statuses: Sequence[str], settings: SimilaritySettings) -> Scores:
    """Score n labels by similar words alone, with `count_rule` or `evidence`.

    `evidence` compares the probability of the best other label type with that of the label's own,
    as odds, shifted by the status. `count_rule` is the classic baseline: enough VALID matches in
    the merchant make a label valid, none make it an outlier. With either, a label about which
    nothing can be known is left open, and an INVALID one is rejected without a question.
    """
    status = np.array(statuses, dtype=object)
    by_status: Floats = np.array([WEIGHTS[status].odds for status in statuses])
    if settings.scorer == "count_rule":
        matches, enough = votes.valid_matches, settings.min_valid_matches
        score = unseen = 1.0 - np.minimum(matches, enough) / enough
        valid, outlier = matches >= enough, matches == 0
        unknown = without_similar_words(votes)
    else:
        odds = votes.competing_probability / np.maximum(votes.label_probability, 1e-12)
        unknown = without_witnesses(votes, odds, statuses)
        unseen = odds / (1.0 + odds)
        score = odds * by_status / (1.0 + odds * by_status)
        valid, outlier = score < settings.valid_below, score > settings.outlier_above
    invalid, nothing = are_rejected(statuses), is_unknown(unknown)
    unseen = np.where(nothing, 0.5, unseen).astype(np.float64)
    score = np.where(nothing, by_status / (1.0 + by_status), score).astype(np.float64)
    return Scores(
        np.round(score, DECIMALS),
        np.round(unseen, DECIMALS),
        np.select(
            [invalid, nothing & (status == Status.VALID), nothing, valid, outlier],
            ["outlier", "valid", "ambiguous", "valid", "outlier"],
            "ambiguous",
        ),
        rejected_but_right(invalid, unseen <= LOOKS_RIGHT_UP_TO),
        unknown,
        votes.type_probability,
        votes.competing_type,
        np.zeros(len(score), dtype=bool),
    )


def rejected_but_right(
    rejected: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]
) -> npt.NDArray[np.object_]:
    """Say of n labels whether they look right; None for those that nobody has rejected."""
    looks_right = np.full(len(rejected), None, dtype=object)
    looks_right[rejected] = right[rejected]
    return looks_right
