"""How sure a verdict is: what the model says, weighed with the evidence."""

from __future__ import annotations

from typing import Final

from harmonizer_assets.core.judge import Question
from harmonizer_assets.core.llm.wire import Answer, Entry

_MODEL_IS_RIGHT: Final = 0.9
"""Trust in a model's verdict before the evidence is looked at."""
_UNSUPPORTED: Final = 0.01
"""Probability of a type that no similar word carries."""


def answer_from(entry: Entry, chance: float) -> Answer:
    """Give a model's verdict a confidence.

    The evidence's chance of an outlier, 0..1 exclusive, is the prior and the model's verdict a
    witness who is right nine times out of ten: Bayes' rule in odds form.
    """
    odds = chance / (1.0 - chance)
    witness = _MODEL_IS_RIGHT / (1.0 - _MODEL_IS_RIGHT)
    odds = odds * witness if entry.is_outlier else odds / witness
    outlier = odds / (1.0 + odds)
    confidence = outlier if entry.is_outlier else 1.0 - outlier
    return Answer(entry.is_outlier, entry.suggested_label, round(confidence, 4), entry.reasoning)


def suggestion_confidence(answer: Answer, question: Question) -> float | None:
    """How far similar words agree with the label type that a model suggests; 0..1, or None.

    The probability that similar, mostly VALID, words give the suggested type, among the types other
    than the label's own, weighed with the model's word in the same way. It costs no call.
    """
    if answer.suggested_label is None:
        return None
    others = {name: p for name, p in question.alternatives.items() if name != question.key.label}
    support = max(_UNSUPPORTED, others.get(answer.suggested_label, 0.0))
    share = min(0.99, support / max(sum(others.values()), support))
    odds = share / (1.0 - share) * _MODEL_IS_RIGHT / (1.0 - _MODEL_IS_RIGHT)
    return round(odds / (1.0 + odds), 4)
