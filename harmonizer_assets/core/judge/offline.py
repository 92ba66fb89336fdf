"""The offline judge: decides by the odds of scoring, without a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from harmonizer_assets.core.records.label import Question, Verdict


class OfflineJudge:
    """A statistical judge: decides by the odds of scoring, without a language model.

    It uses no other information than the scores. Where they can know nothing, or the odds are
    balanced, the label stays unresolved.
    """

    _VERSION: Final = "4"
    _VALID_UP_TO: Final = 0.45
    _OUTLIER_FROM: Final = 0.70
    """The same where only similar words are known, whose odds are overconfident in the middle."""
    _CALIBRATED_OUTLIER_FROM: Final = 0.55

    @property
    def identity(self) -> str:
        """Return an identity that changes whenever the same question could get another verdict."""
        return f"offline_judge/{self._VERSION}"

    def decide(self, questions: Sequence[Question]) -> list[Verdict]:
        """Decide questions; one verdict each, in their order."""
        return [self._decide(question) for question in questions]

    def _decide(self, question: Question) -> Verdict:
        if question.unknown_because is not None:
            return Verdict(question.key, None, "unresolved", reasoning=question.unknown_because)
        score = question.outlier_score
        odds = (
            f"the evidence says {question.competing_label} with probability "
            f"{question.competing_probability:.2f}, {question.key.label} with "
            f"{question.label_probability:.2f}"
        )
        outlier_from = self._CALIBRATED_OUTLIER_FROM if question.calibrated else self._OUTLIER_FROM
        if score >= outlier_from:
            return Verdict(
                question.key, True, "offline_judge", question.competing_label, score, odds
            )
        if score <= self._VALID_UP_TO:
            return Verdict(question.key, False, "offline_judge", None, 1.0 - score, odds)
        return Verdict(
            question.key,
            None,
            "unresolved",
            question.competing_label,
            None,
            f"the evidence is balanced: {odds}",
        )
