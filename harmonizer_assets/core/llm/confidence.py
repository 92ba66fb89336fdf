"""How sure a verdict is: what the model says, weighed with the evidence."""

from __future__ import annotations

from typing import Final

from harmonizer_assets.core.judge import Question
from harmonizer_assets.core.llm.wire import Answer, Entry

_MODEL_IS_RIGHT: Final = 0.9
"""Trust in a model's verdict before the evidence is looked at."""
_UNSUPPORTED: Final = 0.01
"""Probability of a type that no similar word carries."""
_LEAST_EVIDENCE: Final = 0.2
"""Where all other types together are less probable than this, similar words support none."""


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


def suggestion_confidence(
    answer: Answer, question: Question, *, confirmed: bool = False
) -> float | None:
    """How far similar words agree with the label type that a model suggests; 0..1, or None.

    The probability that similar, mostly VALID, words give the suggested type, among the types other
    than the label's own, weighed with the model's word in the same way. It costs no call. A second
    look that has `confirmed` the suggestion is a second witness.
    """
    if answer.suggested_label is None:
        return None
    others = {name: p for name, p in question.alternatives.items() if name != question.key.label}
    support = max(_UNSUPPORTED, others.get(answer.suggested_label, 0.0))
    share = min(0.99, support / max(sum(others.values()), support, _LEAST_EVIDENCE))
    witness = _MODEL_IS_RIGHT / (1.0 - _MODEL_IS_RIGHT)
    odds = share / (1.0 - share) * (witness**2 if confirmed else witness)
    return round(odds / (1.0 + odds), 4)
