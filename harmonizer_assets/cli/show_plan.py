"""Show a plan: what judging would ask, take and cost, and one of the prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from harmonizer_assets.cli.show import as_text, facts, show

if TYPE_CHECKING:
    from harmonizer_assets.core.judge.llm.plan import Plan


def show_plan(plan: Plan) -> None:
    """Show a plan and, if anything would be asked, one of its prompts."""
    show(facts(_estimates(plan)))
    if plan.prompt:
        show(Text("\nOne of the prompts:\n"), *map(_message, plan.prompt))


def _estimates(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "model", f"{plan.model} ({plan.profile})"
    yield "labels", f"{plan.labels:,}"
    yield "decided by similarity", f"{plan.skipped_by_similarity:,}"
    yield "without a word", f"{plan.without_word:,}"
    if plan.unasked:
        yield "not worth a question", f"{plan.unasked:,}"
    yield "known already", f"{plan.cache_hits:,}"
    yield "to be asked", f"{plan.words:,} words in about {plan.calls:,} calls"
    yield "tokens, about", f"{plan.prompt_tokens:,} in, {plan.completion_tokens:,} out"
    yield "cost, about", plan.cost()
    yield "time, about", f"{plan.seconds:,.1f} s"


def _message(message: dict[str, str]) -> Text:
    content = message["content"]
    if message["role"] == "user":
        content = json.dumps(json.loads(content), indent=1, ensure_ascii=False)
    lines = f"[{message['role']}] {content}".split("\n")
    return Text("\n").join(map(as_text, lines))
