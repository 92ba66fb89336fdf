"""Questions for a language model, made without a warehouse."""

from __future__ import annotations

from typing import Any

from harmonizer_assets.core.judge.llm.wire.answers import AnswerReader
from harmonizer_assets.core.judge.llm.wire.prompt import Ask, Prompts
from harmonizer_assets.core.records.label import LabelKey, Question
from harmonizer_assets.core.records.taxonomy import Taxonomy

TAXONOMY = Taxonomy.default()
IDENTITY = "openai/some-model"


def prompts(scope: Any = "context", explanations: Any = "codes") -> Prompts:
    return Prompts(TAXONOMY, scope, explanations)


def answers(explanations: Any = "codes") -> AnswerReader:
    return AnswerReader(TAXONOMY.names, explanations)


def question(text: str = "14:05", word_id: int = 1, label: str = "DATE", **more: Any) -> Question:
    """A question that is ambiguous; `more` replaces any of its other parts."""
    parts: dict[str, Any] = {
        "merchant_key": "shop-00000001",
        "merchant_name": "Shop",
        "outlier_score": 0.5,
        "label_probability": 0.4,
        "competing_label": "TIME",
        "competing_probability": 0.4,
        "left": "on the",
        "right": "at 00:00",
        "height": 0.3,
        "examples": ("2024-01-01",),
        "competing_examples": ("14:05",),
    }
    return Question(LabelKey("image", 1, 1, word_id, label), word_text=text, **(parts | more))


def asks(*questions: Question, by: Prompts | None = None) -> list[Ask]:
    """The questions of one partition as they are asked."""
    used = by or prompts()
    head = used.head(questions)
    return [used.ask(one, head, IDENTITY) for one in questions]
