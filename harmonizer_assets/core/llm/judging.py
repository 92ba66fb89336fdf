"""The language-model judge: chunks of labels in, verdicts of whole partitions out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import duckdb

from harmonizer_assets.core.home import Home
from harmonizer_assets.core.judge import DeadLetter, LabelKey, Question, Usage, Verdict
from harmonizer_assets.core.llm.batching import PartitionWork
from harmonizer_assets.core.llm.budget import Budget
from harmonizer_assets.core.llm.cache import add_usage, in_open_batches, look_up
from harmonizer_assets.core.llm.confidence import suggestion_confidence
from harmonizer_assets.core.llm.endpoint import Endpoint, model_name
from harmonizer_assets.core.llm.estimates import OutputTokens
from harmonizer_assets.core.llm.journal import Journal, judging_lock, recover
from harmonizer_assets.core.llm.prices import price_of
from harmonizer_assets.core.llm.scheduler import RunTotals, Scheduler
from harmonizer_assets.core.llm.store import VerdictStore
from harmonizer_assets.core.llm.wire import PROMPT_VERSION, Answer, Ask, Wire
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.questions import ChunkQuestions, read_questions
from harmonizer_assets.core.settings import JudgeSettings
from harmonizer_assets.core.stages import Chunk, ChunkRows
from harmonizer_assets.core.taxonomy import Taxonomy
from harmonizer_assets.core.verdicts import PartitionVerdicts, without_word, write_verdicts
from harmonizer_assets.core.warehouse import Warehouse

_COMMIT_SECONDS: Final = 2.0
"""Finished partitions, and what was answered with them, are written in groups of this long."""
_COMMIT_PARTITIONS: Final = 500
_CONTESTED_BELOW: Final = 0.5
"""Confidence of a suggestion below which it gets a second look, where that is configured."""
_EVEN: Final = 0.5


@dataclass
class _Partition:
    """One partition between its questions and its verdicts."""

    key: PartitionKey
    questions: Sequence[Question]
    without_word: list[Verdict]
    skipped: int
    labels: int
    fingerprint: str
    keys: list[str] = field(default_factory=list)
    cached: dict[str, Answer] = field(default_factory=dict)
    asks: dict[str, Ask] = field(default_factory=dict)

    def answer(self, verdict_key: str) -> Answer | None:
        """The answer to a question, from the cache or from this run."""
        ask = self.asks.get(verdict_key)
        return self.cached.get(verdict_key) or (ask.answer if ask else None)


_Finished = tuple[_Partition, PartitionWork]


class LLMJudge:
    """Asks an OpenAI-compatible endpoint about the labels that similarity leaves open.

    Answers are stored in `llm_verdicts` before they are used, under a key of everything that could
    change them, so a question is never asked twice.
    """

    totals: RunTotals
    """Of the run that is under way, or of the last one."""

    def __init__(
        self, home: Home, settings: JudgeSettings, taxonomy: Taxonomy, warehouse: Warehouse
    ) -> None:
        """Take the model's name from the environment; nothing is sent yet."""
        self._home = home
        self._settings = settings
        self._warehouse = warehouse
        self._wire = Wire(taxonomy, settings.cache_scope, settings.explanations)
        self._model = model_name()
        self.totals = RunTotals()

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def wire(self) -> Wire:
        """Prompts and answers."""
        return self._wire

    @property
    def answer_identity(self) -> str:
        """Everything besides the question that an answer depends on."""
        settings = self._settings
        parameters = f"temperature={settings.temperature},effort={settings.reasoning_effort}"
        return f"openai/{self._model}/{parameters}/{PROMPT_VERSION}/{self._wire.request_hash}"

    @property
    def identity(self) -> str:
        """Changes whenever the same labels could get other verdicts."""
        settings = self._settings
        scope = f"{settings.cache_scope}/{settings.skip_high_confidence}/{settings.second_look}"
        return f"{self.answer_identity}/{scope}"

    def request_parameters(self) -> dict[str, Any]:
        """What all requests have in common, besides model and messages."""
        parameters: dict[str, Any] = {"response_format": self._wire.response_format}
        if self._settings.temperature != "default":
            parameters["temperature"] = self._settings.temperature
        if self._settings.reasoning_effort is not None:
            parameters["reasoning_effort"] = self._settings.reasoning_effort
        return parameters

    def most_output_tokens(self, words: int) -> int:
        """Tokens at which the answer on so many words is cut off, before anything is learned."""
        return OutputTokens().limit(words)

    def budget(self, *, in_batch: bool = False) -> Budget:
        """A fresh budget with the limits that the settings set, at the Batch API's price or not.

        Raises:
            ConfigurationError: there is a limit in USD, and the model's price is not known.
        """
        limits = self._settings.budget_tokens, self._settings.budget_usd
        price = price_of(self._home, self._model)
        return Budget(*limits, price.in_batch() if price and in_batch else price, self._model)

    async def judge(
        self, chunks: Iterable[Chunk], run_id: str, on_wait: Callable[[], None] | None = None
    ) -> AsyncGenerator[tuple[Chunk, ChunkRows]]:
        """Judge chunks; partitions come out in groups as they are finished, in any order.

        Args:
            chunks: of scored labels.
            run_id: under which usage is kept.
            on_wait: called once if another run of the home has to finish first.

        Raises:
            ConfigurationError: there is no key, or a budget in USD for a model without a price.
            JudgeError: the endpoint can answer nothing; what it answered before is kept.
        """
        price, budget = price_of(self._home, self._model), self.budget()
        partitions: dict[PartitionKey, _Partition] = {}
        async with (
            judging_lock(self._home, on_wait),
            self._journal(run_id) as journal,
            Endpoint(self._model, self.request_parameters()) as endpoint,
        ):
            store = VerdictStore(journal, self._model)

            def scheduler() -> Scheduler:
                return Scheduler(
                    self._settings, self._wire, endpoint, store, budget, price, self.totals
                )

            contested: list[_Finished] = []
            finished = scheduler().run(self._works(chunks, partitions))
            async with aclosing(_grouped(finished)) as groups:
                async for works in groups:
                    ready: list[_Finished] = []
                    for work in works:
                        one = (partitions.pop(work.partition), work)
                        looks_again = self._settings.second_look and _contested(one[0])
                        (contested if looks_again else ready).append(one)
                    if ready:
                        yield self._rows(ready, run_id, journal)
            if contested:
                looks = await self._look_again(contested, scheduler())
                yield self._rows(contested, run_id, journal, looks)

    async def _look_again(
        self, contested: Sequence[_Finished], scheduler: Scheduler
    ) -> dict[LabelKey, Answer]:
        """Ask whether contested suggestions are right; the answers, by the labels' keys."""
        pairs = [pair for partition, _ in contested for pair in _contested(partition)]
        asks: dict[LabelKey, Ask] = {}
        by_partition: dict[PartitionKey, list[tuple[LabelKey, Question]]] = {}
        for key, question in pairs:
            partition = PartitionKey(question.key.label, question.merchant_key)
            by_partition.setdefault(partition, []).append((key, question))
        for questions in by_partition.values():
            head = self._wire.head([question for _, question in questions])
            distinct: dict[str, Ask] = {}
            for key, question in questions:
                ask = self._wire.ask(question, head, self.answer_identity)
                asks[key] = distinct.setdefault(ask.verdict_key, ask)
        wanted = sorted({ask.verdict_key for ask in asks.values()})
        cached = await asyncio.to_thread(self._warehouse.read, lambda con: look_up(con, wanted))
        works = [
            PartitionWork(
                partition,
                list(
                    dict.fromkeys(
                        asks[key] for key, _ in questions if asks[key].verdict_key not in cached
                    )
                ),
            )
            for partition, questions in by_partition.items()
        ]
        async with aclosing(scheduler.run(_each(works))) as finished:
            async for _ in finished:
                pass
        found = {key: cached.get(ask.verdict_key) or ask.answer for key, ask in asks.items()}
        return {key: answer for key, answer in found.items() if answer is not None}

    @asynccontextmanager
    async def _journal(self, run_id: str) -> AsyncIterator[Journal]:
        await asyncio.to_thread(recover, self._home.journals, self._warehouse)
        journal = Journal(self._home.journals, run_id)
        try:
            yield journal
        finally:
            await asyncio.to_thread(journal.close, self._warehouse)

    async def _works(
        self, chunks: Iterable[Chunk], partitions: dict[PartitionKey, _Partition]
    ) -> AsyncIterator[PartitionWork]:
        for chunk in chunks:
            for partition in await asyncio.to_thread(self.prepare, chunk):
                partitions[partition.key] = partition
                yield PartitionWork(
                    partition.key, [ask for ask in partition.asks.values() if not ask.given_up]
                )

    def prepare(self, chunk: Chunk) -> list[_Partition]:
        """Read a chunk's questions and the answers that are known already, each in one query."""
        all_labels = not self._settings.skip_high_confidence
        asked = self._warehouse.read(lambda con: read_questions(con, chunk, all_labels=all_labels))
        prepared = [self._partition(chunk, key, asked) for key in chunk.partitions]
        wanted = sorted({key for partition in prepared for key in partition.keys})
        cached, coming = self._warehouse.read(
            lambda con: (look_up(con, wanted), in_open_batches(con))
        )
        for partition in prepared:
            for key, ask in partition.asks.items():
                if key in coming:
                    ask.given_up = ask.deferred = True
                    ask.error = "waits for the answer of a batch"
            partition.cached = {key: cached[key] for key in partition.keys if key in cached}
            for key in partition.cached:
                partition.asks.pop(key, None)
        return prepared

    def _partition(self, chunk: Chunk, key: PartitionKey, asked: ChunkQuestions) -> _Partition:
        questions = asked.questions[key]
        partition = _Partition(
            key,
            questions,
            without_word(asked.without_word[key]),
            asked.skipped.get(key, 0),
            chunk.labels[key],
            asked.fingerprints.get(key.merchant_key, ""),
        )
        if questions:
            head = self._wire.head(questions)
            asks = [self._wire.ask(question, head, self.answer_identity) for question in questions]
            partition.keys = [ask.verdict_key for ask in asks]
            # The same question about several words is one question.
            partition.asks = {ask.verdict_key: ask for ask in asks}
        return partition

    def _rows(
        self,
        done: Sequence[_Finished],
        run_id: str,
        journal: Journal,
        looks: Mapping[LabelKey, Answer] | None = None,
    ) -> tuple[Chunk, ChunkRows]:
        judged = [_verdicts(partition, looks or {}) for partition, _ in done]
        used = {
            partition.key: Usage(
                cache_hits=len(partition.questions) - len(partition.asks),
                skipped_by_similarity=partition.skipped,
                wall_seconds=work.seconds,
            )
            for partition, work in done
        }
        deferred = frozenset(
            partition.key
            for partition, _ in done
            if any(ask.deferred for ask in partition.asks.values())
        )

        def write(con: duckdb.DuckDBPyConnection) -> None:
            journal.fold(con)
            write_verdicts(con, self._warehouse, judged)
            add_usage(con, run_id, used)

        chunk = Chunk(
            tuple(partition.key for partition, _ in done),
            {partition.key: partition.labels for partition, _ in done},
        )
        prints = {partition.key.merchant_key: partition.fingerprint for partition, _ in done}
        return chunk, ChunkRows(prints, write, deferred)


async def _grouped(
    works: AsyncGenerator[PartitionWork],
) -> AsyncGenerator[list[PartitionWork]]:
    """Gather finished partitions for about a second, so that one transaction writes them."""
    group: list[PartitionWork] = []
    until = 0.0
    following = asyncio.ensure_future(anext(works))
    try:
        while True:
            wait = max(0.0, until - time.monotonic()) if group else None
            await asyncio.wait({following}, timeout=wait)
            if following.done():
                try:
                    group.append(following.result())
                except StopAsyncIteration:
                    break
                following = asyncio.ensure_future(anext(works))
                if len(group) == 1:
                    until = time.monotonic() + _COMMIT_SECONDS
                if len(group) < _COMMIT_PARTITIONS:
                    continue
            yield group
            group = []
        if group:
            yield group
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await works.aclose()


async def _each(works: Iterable[PartitionWork]) -> AsyncIterator[PartitionWork]:
    for work in works:
        yield work


def _contested(partition: _Partition) -> list[tuple[LabelKey, Question]]:
    """Labels whose suggested type similar words do not support, each as a question about it."""
    found = []
    for question, verdict_key in zip(partition.questions, partition.keys, strict=True):
        answer = partition.answer(verdict_key)
        confidence = answer and suggestion_confidence(answer, question)
        if answer and answer.suggested_label and (confidence or 0.0) < _CONTESTED_BELOW:
            suggested = answer.suggested_label
            chance = question.alternatives.get(suggested, 0.0)
            about = replace(
                question,
                key=question.key._replace(label=suggested),
                label_probability=chance,
                competing_label=question.key.label,
                competing_probability=question.label_probability,
                outlier_score=_EVEN,
                examples=(
                    question.competing_examples if suggested == question.competing_label else ()
                ),
                competing_examples=question.examples,
            )
            found.append((question.key, about))
    return found


def _verdicts(partition: _Partition, looks: Mapping[LabelKey, Answer]) -> PartitionVerdicts:
    judged = PartitionVerdicts(partition.key, list(partition.without_word))
    told: set[str] = set()
    for question, key in zip(partition.questions, partition.keys, strict=True):
        ask = partition.asks.get(key)
        answer = partition.answer(key)
        if answer:
            fresh = ask is not None and key not in told
            told.add(key)
            look = looks.get(question.key)
            refuted = look is not None and look.is_outlier
            explained = _explained(answer, question)
            if refuted:
                explained = f"{explained}; on a second look {answer.suggested_label} is wrong, too"
            judged.verdicts.append(
                Verdict(
                    question.key,
                    answer.is_outlier,
                    "llm" if fresh else "cache",
                    None if refuted else answer.suggested_label,
                    answer.confidence,
                    explained,
                    key,
                    None
                    if refuted
                    else suggestion_confidence(answer, question, confirmed=look is not None),
                )
            )
            continue
        assert ask is not None
        reason = ask.error if ask.deferred else f"not judged: {ask.error}"
        judged.verdicts.append(Verdict(question.key, None, "unresolved", reasoning=reason))
        if not ask.deferred:
            judged.dead_letters.append(DeadLetter(question.key, ask.error, ask.calls))
    return judged


def _explained(answer: Answer, question: Question) -> str | None:
    """What the model says, and beside it what similar words say."""
    if not answer.is_outlier:
        return answer.reasoning
    odds = ", ".join(f"{name} {chance:.2f}" for name, chance in question.alternatives.items())
    said = answer.reasoning or "the model finds the label wrong"
    return f"{said}; similar words: {odds}" if odds else said
