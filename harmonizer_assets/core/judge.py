"""Judges decide the labels that similarity leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final, Literal, NamedTuple

DecidedBy = Literal["similarity", "cache", "llm", "offline_judge", "rule", "unresolved"]


class LabelKey(NamedTuple):
    """Names one label: the four ids of its word, and the label."""

    image_id: str
    receipt_id: int
    line_id: int
    word_id: int
    label: str


@dataclass(frozen=True)
class Question:
    """One ambiguous label and what is known about it.

    Attributes:
        left, right: up to two words beside the word on its row, digits masked.
        height: of the word on the page, 0 at the top to 1.
        alternatives: other label types and their probabilities, the most probable first.
        examples: texts that VALID labels of this type have in the merchant.
        competing_examples: texts that VALID labels of the competing type have there.
        support: kernel-weighted votes for or against, near and far; 1 is one VALID label on an
            identical word.
        calibrated: whether `outlier_score` is a calibrated probability of being wrong, by a model
            that looks at more than similar words.
    """

    key: LabelKey
    merchant_key: str
    merchant_name: str | None
    word_text: str
    outlier_score: float
    label_probability: float
    competing_label: str | None
    competing_probability: float
    support: float
    left: str = ""
    right: str = ""
    height: float | None = None
    alternatives: Mapping[str, float] = field(default_factory=dict)
    calibrated: bool = False
    examples: tuple[str, ...] = ()
    competing_examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A judge's decision on one label; `is_outlier` is None where it could not decide.

    `suggestion_confidence`, 0..1, says how well similar words support the suggested label.
    """

    key: LabelKey
    is_outlier: bool | None
    decided_by: DecidedBy
    suggested_label: str | None = None
    confidence: float | None = None
    reasoning: str | None = None
    verdict_key: str | None = None
    suggestion_confidence: float | None = None


@dataclass(frozen=True)
class DeadLetter:
    """A question that could not be judged after all attempts."""

    key: LabelKey
    error: str
    attempts: int


@dataclass
class Usage:
    """What judging one partition's questions took."""

    calls: int = 0
    words_asked: int = 0
    cache_hits: int = 0
    skipped_by_similarity: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    retries: int = 0
    rate_limited: int = 0
    wall_seconds: float = 0.0

    def add(self, more: Usage) -> None:
        """Add to this what something else took; a cost that is not known makes the sum unknown."""
        for part in fields(self):
            ours, theirs = getattr(self, part.name), getattr(more, part.name)
            unknown = ours is None or theirs is None
            setattr(self, part.name, None if unknown else ours + theirs)


class OfflineJudge:
    """A statistical judge without a model: decides by the odds that the evidence gives.

    It is not a language model and knows nothing that the evidence does not say. Where the evidence
    is thin or balanced, the label stays unresolved.
    """

    _VERSION: Final = "3"
    _MIN_SUPPORT: Final = 0.05
    """One VALID label at cosine similarity 0.70."""
    _VALID_UP_TO: Final = 0.45
    _OUTLIER_FROM: Final = 0.70
    """Where similar words are all that is known: their odds are too sure in the middle."""
    _CALIBRATED_OUTLIER_FROM: Final = 0.55

    @property
    def identity(self) -> str:
        """Changes whenever the same question could get another answer."""
        return f"offline_judge/{self._VERSION}"

    def decide(self, questions: Sequence[Question]) -> list[Verdict]:
        """Decide questions; one verdict each, in their order."""
        return [self._decide(question) for question in questions]

    def _decide(self, question: Question) -> Verdict:
        score = question.outlier_score
        odds = (
            f"the evidence says {question.competing_label} with probability "
            f"{question.competing_probability:.2f}, {question.key.label} with "
            f"{question.label_probability:.2f}"
        )
        outlier_from = self._CALIBRATED_OUTLIER_FROM if question.calibrated else self._OUTLIER_FROM
        supported = question.calibrated or question.support >= self._MIN_SUPPORT
        if question.competing_label is None or not supported:
            return Verdict(
                question.key,
                None,
                "unresolved",
                reasoning="no labelled word is similar enough to compare with",
            )
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
