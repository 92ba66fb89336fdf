"""The second look: ask whether the types that a model suggests are right themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import duckdb

from harmonizer_assets.core.base.aio import to_end
from harmonizer_assets.core.judge.llm.calls.scheduler import Scheduler
from harmonizer_assets.core.judge.llm.calls.work import PartitionWork
from harmonizer_assets.core.judge.llm.confidence import suggestion_confidence
from harmonizer_assets.core.judge.llm.memory.cache import look_up
from harmonizer_assets.core.judge.llm.partitions import PreparedPartition
from harmonizer_assets.core.judge.llm.wire.answers import Answer
from harmonizer_assets.core.judge.llm.wire.prompt import Ask, Prompts
from harmonizer_assets.core.records.label import LabelKey, Question
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.store.warehouse import Warehouse

_CONTESTED_BELOW: Final = 0.5
"""Confidence of a suggestion below which it gets a second look, where that is configured."""
_EVEN: Final = 0.5

_AsksByPartition = dict[PartitionKey, dict[LabelKey, Ask]]


def contested(partition: PreparedPartition) -> list[tuple[LabelKey, Question]]:
    """Find labels whose suggested type similar words do not support, each as a question on it."""
    answers = zip(partition.questions, map(partition.answer, partition.keys), strict=True)
    return _contested((question, answer) for question, answer in answers if answer)


def _contested(pairs: Iterable[tuple[Question, Answer]]) -> list[tuple[LabelKey, Question]]:
    return [
        (question.key, _about(question, answer.suggested_label))
        for question, answer in pairs
        if answer.suggested_label is not None
        and (suggestion_confidence(answer, question) or 0.0) < _CONTESTED_BELOW
    ]


def _about(question: Question, suggested: str) -> Question:
    """Ask whether the suggested type is right for the same word."""
    return replace(
        question,
        key=question.key._replace(label=suggested),
        label_probability=question.alternatives.get(suggested, 0.0),
        competing_label=question.key.label,
        competing_probability=question.label_probability,
        outlier_score=_EVEN,
        examples=question.competing_examples if suggested == question.competing_label else (),
        competing_examples=question.examples,
    )


async def look_again(
    partitions: Sequence[PreparedPartition],
    prompts: Prompts,
    identity: str,
    warehouse: Warehouse,
    scheduler: Scheduler,
) -> dict[LabelKey, Answer]:
    """Ask whether contested suggestions are right; return the answers by the labels' keys.

    Args:
        partitions: that have contested suggestions.
        prompts: writes the questions.
        identity: everything besides the question that an answer depends on.
        warehouse: that holds the answer cache.
        scheduler: a fresh one.
    """
    doubtful = [pair for partition in partitions for pair in contested(partition)]
    by_partition = _asks(doubtful, prompts, identity)
    asks = {key: ask for some in by_partition.values() for key, ask in some.items()}
    wanted = sorted({ask.verdict_key for ask in asks.values()})
    cached = await to_end(lambda: warehouse.read(lambda con: look_up(con, wanted)))
    works = [
        PartitionWork(
            partition,
            list(dict.fromkeys(ask for ask in some.values() if ask.verdict_key not in cached)),
        )
        for partition, some in by_partition.items()
    ]
    async with aclosing(scheduler.run(_each(works))) as finished:
        async for _ in finished:
            pass
    found = {key: cached.get(ask.verdict_key) or ask.answer for key, ask in asks.items()}
    return {key: answer for key, answer in found.items() if answer is not None}


def _asks(
    doubtful: Iterable[tuple[LabelKey, Question]], prompts: Prompts, identity: str
) -> _AsksByPartition:
    """Make the questions by the suggested type's partition; equal ones share one ask."""
    questions: dict[PartitionKey, list[tuple[LabelKey, Question]]] = {}
    for key, question in doubtful:
        about = PartitionKey(question.key.label, question.merchant_key)
        questions.setdefault(about, []).append((key, question))
    made: _AsksByPartition = {}
    for partition, pairs in questions.items():
        head = prompts.head([question for _, question in pairs])
        distinct: dict[str, Ask] = {}
        made[partition] = {}
        for key, question in pairs:
            ask = prompts.ask(question, head, identity)
            made[partition][key] = distinct.setdefault(ask.verdict_key, ask)
    return made


def known_looks(
    con: duckdb.DuckDBPyConnection,
    pairs: Iterable[tuple[Question, Answer]],
    prompts: Prompts,
    identity: str,
) -> dict[LabelKey, Answer]:
    """Look up the second looks at contested suggestions that were taken before, by label."""
    by_partition = _asks(_contested(pairs), prompts, identity)
    asks = {key: ask for some in by_partition.values() for key, ask in some.items()}
    cached = look_up(con, sorted({ask.verdict_key for ask in asks.values()}))
    return {key: cached[ask.verdict_key] for key, ask in asks.items() if ask.verdict_key in cached}


async def _each(works: Iterable[PartitionWork]) -> AsyncIterator[PartitionWork]:
    for work in works:
        yield work
