"""The language-model judge: chunks of labels in, verdicts of whole partitions out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import duckdb

from harmonizer_assets.core.base.aio import to_end
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import JudgeSettings
from harmonizer_assets.core.judge.llm.bought import BoughtAnswers
from harmonizer_assets.core.judge.llm.calls.estimates import OutputTokens
from harmonizer_assets.core.judge.llm.calls.scheduler import Scheduler
from harmonizer_assets.core.judge.llm.calls.work import OpenChunks, PartitionWork
from harmonizer_assets.core.judge.llm.lease import asking_async
from harmonizer_assets.core.judge.llm.memory.cache import add_usage
from harmonizer_assets.core.judge.llm.memory.journal import Journal, recover
from harmonizer_assets.core.judge.llm.memory.shared.sharing import Sharing, sharing
from harmonizer_assets.core.judge.llm.memory.store import AnswerStore
from harmonizer_assets.core.judge.llm.money.budget import Budget
from harmonizer_assets.core.judge.llm.money.ledger import left
from harmonizer_assets.core.judge.llm.money.prices import Price, price_of
from harmonizer_assets.core.judge.llm.money.shares import UsageByPartition
from harmonizer_assets.core.judge.llm.partitions import PreparedPartition, Preparer
from harmonizer_assets.core.judge.llm.second_look import contested, look_again
from harmonizer_assets.core.judge.llm.wire.answers import Answer, AnswerReader
from harmonizer_assets.core.judge.llm.wire.dialect import Dialect
from harmonizer_assets.core.judge.llm.wire.endpoint import (
    Endpoint,
    UnsupportedParameterError,
    model_name,
)
from harmonizer_assets.core.judge.llm.wire.wording import Wording
from harmonizer_assets.core.judge.verdicts import write_verdicts
from harmonizer_assets.core.records.account import Account
from harmonizer_assets.core.records.label import LabelKey, Question, Usage
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import RunTotals
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.core.stages.stage import Chunk, ChunkRows
from harmonizer_assets.core.store.warehouse import Warehouse

_COMMIT_SECONDS: Final = 2.0
"""Seconds for which finished partitions are gathered before they are written together."""
_COMMIT_PARTITIONS: Final = 500

_Finished = tuple[PreparedPartition, PartitionWork]


@dataclass(frozen=True)
class _Session:
    """What asking takes, while the lease is held.

    Attributes:
        journal: of the run.
        store: that makes answers durable.
        budget: what may be spent.
        price: of the model; None where it is not known.
        totals: to which calls, tokens and cost are added.
        shared: the cache that homes share, if any.
    """

    journal: Journal
    store: AnswerStore
    budget: Budget
    price: Price | None
    totals: RunTotals
    shared: Sharing | None


class LLMJudge:
    """Asks an OpenAI-compatible endpoint about the labels that similarity leaves open.

    Answers are stored in the answer cache, the table `llm_verdicts`, before they are used, under a
    key of everything that could change them, so a question is never asked twice.

    Attributes:
        wording: how questions are asked.
        answers: reads the answers.
    """

    def __init__(
        self, home: Home, settings: JudgeSettings, taxonomy: Taxonomy, warehouse: Warehouse
    ) -> None:
        """Read the model's name from the environment; nothing is sent yet."""
        self._home = home
        self._settings = settings
        self._taxonomy = taxonomy
        self._warehouse = warehouse
        self._model = model_name()
        self.wording = Wording(warehouse, settings, taxonomy, self._model)
        self.answers = AnswerReader(taxonomy.names, settings.explanations)

    @property
    def model(self) -> str:
        """Return the model's name."""
        return self._model

    @property
    def wait_seconds(self) -> float:
        """Return how long to wait for another process that asks."""
        return self._settings.wait_seconds

    @property
    def identity(self) -> str:
        """Return an identity that changes whenever the same labels could get other verdicts."""
        settings = self._settings
        scope = f"{settings.cache_scope}/{settings.skip_high_confidence}/{settings.second_look}"
        return f"{self.wording.usual_identity}/{scope}/{settings.keep_bought_answers}"

    def bought_answers(self) -> BoughtAnswers | None:
        """Make what finds the answers of all models; None where the settings leave them out."""
        if not self._settings.keep_bought_answers:
            return None
        return BoughtAnswers(self._wording_of, second_look=self._settings.second_look)

    def _wording_of(self, model: str, dialect: Dialect) -> Wording:
        return Wording(self._warehouse, self._settings, self._taxonomy, model, dialect)

    def most_output_tokens(self, words: int) -> int:
        """Return the tokens at which an answer is cut off, before anything is learned."""
        return OutputTokens().limit(words)

    def check_budget(self) -> None:
        """Check that the budgets of the settings can be kept.

        Raises:
            ConfigurationError: there is a limit in USD, and the model's price is not known.
        """
        price = price_of(self._home, self._model)
        Budget(None, 0.0 if self._settings.limits_usd else None, price, self._model)

    def budget(self, account: Account, *, in_batch: bool = False) -> Budget:
        """Make a budget of what the settings leave to an account, while holding the lease.

        Args:
            account: that is charged.
            in_batch: whether it is spent at the Batch API's price.

        Raises:
            ConfigurationError: there is a limit in USD, and the price of the model, or of one that
                was asked before, is not known.
        """
        limits = self._warehouse.read(lambda con: left(con, self._settings, account))
        price = price_of(self._home, self._model)
        return Budget(*limits, price.in_batch() if price and in_batch else price, self._model)

    def prepare(self, chunk: Chunk) -> list[PreparedPartition]:
        """Read a chunk's questions and the answers that are cached."""
        return self._preparer(self._settings).prepare(chunk)

    def _preparer(self, settings: JudgeSettings) -> Preparer:
        wording = self.wording
        return Preparer(
            self._warehouse, settings, wording.prompts, wording.answer_identity, self._model
        )

    def keys_now(self, partitions: Sequence[PartitionKey]) -> set[str]:
        """Return the verdict keys of all labels of these partitions, as they are scored now."""
        every = self._settings.model_copy(update={"skip_high_confidence": False})
        chunk = Chunk(tuple(partitions), dict.fromkeys(partitions, 0))
        prepared = self._preparer(every).prepare(chunk)
        return {key for partition in prepared for key in partition.keys}

    async def judge(
        self,
        chunks: Iterable[Chunk],
        account: Account,
        totals: RunTotals,
        on_wait: Callable[[], None] | None = None,
    ) -> AsyncGenerator[tuple[Chunk, ChunkRows]]:
        """Judge chunks; yield partitions in groups as they are finished, in any order.

        Args:
            chunks: of scored labels.
            account: key of the usage, and charged with what is spent.
            totals: to which calls, tokens and cost are added.
            on_wait: called once if another run of the home has to finish first.

        Raises:
            ConfigurationError: there is no key, or a budget in USD for a model without a price.
            JudgeError: the endpoint can answer nothing; what it answered before is kept.
            StoreError: the shared cache cannot be used; what was bought before is kept.
        """
        run_id = account.run_id
        open_chunks, doubtful = OpenChunks(chunks), list[_Finished]()
        async with self._session(account, totals, on_wait) as session:
            while True:
                async with self._endpoint() as endpoint:
                    scheduler = partial(self._scheduler, endpoint, session)
                    judged = self._judged(open_chunks, doubtful, scheduler)
                    try:
                        async with aclosing(judged) as groups:
                            async for done, looks in groups:
                                yield self._rows(done, run_id, session, looks)
                        return
                    except UnsupportedParameterError as refused:
                        self.wording.adapt(refused)

    async def answers_to(
        self,
        batches: Iterable[Sequence[Question]],
        account: Account,
        totals: RunTotals,
        on_wait: Callable[[], None] | None = None,
    ) -> AsyncGenerator[list[tuple[Question, Answer | None]]]:
        """Ask about words that carry no label; yield the questions of each batch with the answers.

        Nothing is written but answers, usage and spending: see `judge` for arguments and errors.
        """
        waiting = iter(batches)
        async with self._session(account, totals, on_wait) as session:
            while (questions := await to_end(partial(next, waiting, None))) is not None:
                if questions:
                    yield await self._answered(questions, account.run_id, session)

    async def _answered(
        self, questions: Sequence[Question], run_id: str, session: _Session
    ) -> list[tuple[Question, Answer | None]]:
        key = PartitionKey(questions[0].key.label, questions[0].merchant_key)
        while True:
            prepare = self._preparer(self._settings).prepare_questions
            partition = await to_end(partial(prepare, key, questions))
            work = partition.work()
            try:
                async with self._endpoint() as endpoint:
                    scheduler = self._scheduler(endpoint, session)
                    async with aclosing(scheduler.run(_only(work))) as finished:
                        async for _ in finished:
                            pass
                break
            except UnsupportedParameterError as refused:
                self.wording.adapt(refused)
        keep = self._kept(session, run_id, {key: _usage(partition, work)})
        await to_end(partial(self._warehouse.write, keep))
        answers = map(partition.answer, partition.keys)
        return list(zip(partition.questions, answers, strict=True))

    @asynccontextmanager
    async def _session(
        self, account: Account, totals: RunTotals, on_wait: Callable[[], None] | None
    ) -> AsyncIterator[_Session]:
        """Hold the lease, and what asking takes."""
        price = price_of(self._home, self._model)
        self.check_budget()
        lease = asking_async(self._home, on_wait, timeout=self.wait_seconds)
        settings = self._settings
        async with (
            lease,
            self._journal(account) as journal,
            sharing(settings.answers, settings.answers_lease_seconds) as shared,
        ):
            store = AnswerStore(journal, self._model, shared)
            budget = await to_end(partial(self.budget, account))
            await to_end(lambda: self.wording.dialect)
            yield _Session(journal, store, budget, price, totals, shared)

    async def _judged(
        self,
        open_chunks: OpenChunks,
        doubtful: list[_Finished],
        scheduler: Callable[[], Scheduler],
    ) -> AsyncGenerator[tuple[list[_Finished], Mapping[LabelKey, Answer]]]:
        """Yield groups of finished partitions, each with the answers on a second look.

        Args:
            open_chunks: what is to be judged.
            doubtful: partitions that wait for a second look; more are added.
            scheduler: makes a fresh one.
        """
        partitions: dict[PartitionKey, PreparedPartition] = {}
        finished = scheduler().run(self._works(open_chunks, partitions))
        async with aclosing(_grouped(finished)) as groups:
            async for works in groups:
                done = [(partitions.pop(work.partition), work) for work in works]
                open_chunks.finished(partition.key for partition, _ in done)
                unsure = {one.key for one, _ in done if self._looks_again(one)}
                doubtful += [one for one in done if one[0].key in unsure]
                if ready := [one for one in done if one[0].key not in unsure]:
                    yield ready, {}
        if doubtful:
            looks = await look_again(
                [partition for partition, _ in doubtful],
                self.wording.prompts,
                self.wording.answer_identity,
                self._warehouse,
                scheduler(),
            )
            yield doubtful, looks

    def _scheduler(self, endpoint: Endpoint, session: _Session) -> Scheduler:
        return Scheduler(
            self._settings,
            self.wording.prompts,
            self.answers,
            endpoint,
            session.store,
            session.budget,
            session.price,
            session.totals,
            known=self.wording.is_known,
            shared=session.shared,
        )

    def _endpoint(self) -> Endpoint:
        return Endpoint(self._model, self.wording.parameters(), self.wording.dialect.length)

    def _looks_again(self, partition: PreparedPartition) -> bool:
        return self._settings.second_look and bool(contested(partition))

    @asynccontextmanager
    async def _journal(self, account: Account) -> AsyncIterator[Journal]:
        await to_end(partial(recover, self._home.journals, self._warehouse))
        journal = Journal(self._home.journals, account)
        try:
            yield journal
        finally:
            await to_end(partial(journal.close, self._warehouse))

    async def _works(
        self, open_chunks: OpenChunks, partitions: dict[PartitionKey, PreparedPartition]
    ) -> AsyncIterator[PartitionWork]:
        for chunk in open_chunks.take():
            for partition in await to_end(partial(self.prepare, chunk)):
                partitions[partition.key] = partition
                yield partition.work()

    def _rows(
        self,
        done: Sequence[_Finished],
        run_id: str,
        session: _Session,
        looks: Mapping[LabelKey, Answer],
    ) -> tuple[Chunk, ChunkRows]:
        """Make the rows of finished partitions, given the answers on a second look."""
        verdicts = [partition.verdicts(looks) for partition, _ in done]
        used = {partition.key: _usage(partition, work) for partition, work in done}
        deferred = frozenset(partition.key for partition, _ in done if partition.is_deferred())
        keep = self._kept(session, run_id, used)

        def write(con: duckdb.DuckDBPyConnection) -> None:
            keep(con)
            write_verdicts(con, verdicts)

        chunk = Chunk(
            tuple(partition.key for partition, _ in done),
            {partition.key: partition.labels for partition, _ in done},
        )
        prints = {partition.key.merchant_key: partition.fingerprint for partition, _ in done}
        return chunk, ChunkRows(prints, write, deferred)

    def _kept(
        self, session: _Session, run_id: str, used: UsageByPartition
    ) -> Callable[[duckdb.DuckDBPyConnection], None]:
        """Make what writes answers and usage, and how the endpoint was asked, in a transaction."""
        learned = session.totals.answered > 0 and not self.wording.is_known

        def write(con: duckdb.DuckDBPyConnection) -> None:
            session.journal.fold(con)
            if learned:
                self.wording.remember(con)
            add_usage(con, run_id, used)

        return write


def _usage(partition: PreparedPartition, work: PartitionWork) -> Usage:
    """Return the usage of a partition besides its calls, which are in the journal."""
    return Usage(
        cache_hits=len(partition.questions)
        - sum(not ask.shared for ask in partition.asks.values()),
        skipped_by_similarity=partition.skipped,
        wall_seconds=work.seconds,
    )


async def _only(work: PartitionWork) -> AsyncIterator[PartitionWork]:
    yield work


async def _grouped(
    works: AsyncGenerator[PartitionWork],
) -> AsyncGenerator[list[PartitionWork]]:
    """Gather finished partitions for a moment, so that one transaction writes them."""
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
