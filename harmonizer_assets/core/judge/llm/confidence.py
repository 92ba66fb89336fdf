"""Confidence of a verdict: the model's own, combined with the outlier score."""

from __future__ import annotations

from typing import Final

from harmonizer_assets.core.judge.llm.wire.answers import Answer, Entry
from harmonizer_assets.core.records.label import Question

_MODEL_IS_RIGHT: Final = 0.9
"""Probability that a model's verdict is right, all else unknown."""
_UNSUPPORTED: Final = 0.01
"""Probability of a type that no similar word carries."""
_LEAST_SUPPORT: Final = 0.2
"""Where all other types together are less probable than this, similar words support none."""


def answer_from(entry: Entry, chance: float) -> Answer:
    """Combine a model's verdict with the probability that was known before it was asked.

    The prior is `chance`, the probability of an outlier, 0..1 exclusive; the model is taken to be
    right nine times out of ten. Bayes' rule in odds form gives the confidence.
    """
    odds = chance / (1.0 - chance)
    witness = _MODEL_IS_RIGHT / (1.0 - _MODEL_IS_RIGHT)
    odds = odds * witness if entry.is_outlier else odds / witness
    outlier = odds / (1.0 + odds)
    confidence = outlier if entry.is_outlier else 1.0 - outlier
    return Answer(entry.is_outlier, entry.suggested_label, round(confidence, 4), entry.reasoning)


def suggestion_confidence(
    answer: Answer, question: Question, *, confirmed: bool = False
) -> float | None:
    """Return the confidence in the label type that a model suggests, 0..1; None without one.

    The prior is the probability that similar, mostly VALID, words give the suggested type, among
    the types other than the label's own; the model's answer is combined with it as in
    `answer_from`. It costs no call. A second look that has `confirmed` the suggestion counts as a
    second answer.
    """
    if answer.suggested_label is None:
        return None
    others = {name: p for name, p in question.alternatives.items() if name != question.key.label}
    support = max(_UNSUPPORTED, others.get(answer.suggested_label, 0.0))
    share = min(0.99, support / max(sum(others.values()), support, _LEAST_SUPPORT))
    witness = _MODEL_IS_RIGHT / (1.0 - _MODEL_IS_RIGHT)
    odds = share / (1.0 - share) * (witness**2 if confirmed else witness)
    return round(odds / (1.0 + odds), 4)
