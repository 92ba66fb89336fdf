"""The scheduler: label types, merchants and words in flight at once, under one set of limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from harmonizer_assets.core.base.aio import wait_for_event
from harmonizer_assets.core.base.settings import JudgeSettings
from harmonizer_assets.core.judge.llm.calls.contact import Contact
from harmonizer_assets.core.judge.llm.calls.dispatch import (
    CallMaker,
    Dispatcher,
    PreparedCall,
    Received,
)
from harmonizer_assets.core.judge.llm.calls.estimates import Estimates
from harmonizer_assets.core.judge.llm.calls.limits import Limits
from harmonizer_assets.core.judge.llm.calls.packing import Packer
from harmonizer_assets.core.judge.llm.calls.retry import Retries
from harmonizer_assets.core.judge.llm.calls.work import OpenWork, PartitionWork
from harmonizer_assets.core.judge.llm.confidence import answer_from
from harmonizer_assets.core.judge.llm.memory.cache import BoughtAnswer
from harmonizer_assets.core.judge.llm.memory.shared.sharing import Sharing
from harmonizer_assets.core.judge.llm.memory.store import AnswerStore
from harmonizer_assets.core.judge.llm.money.accounts import Accounts
from harmonizer_assets.core.judge.llm.money.budget import Budget
from harmonizer_assets.core.judge.llm.money.prices import Price
from harmonizer_assets.core.judge.llm.wire.answers import (
    AnswerReader,
    MalformedAnswerError,
    ParsedAnswer,
)
from harmonizer_assets.core.judge.llm.wire.endpoint import Endpoint, UnsupportedParameterError
from harmonizer_assets.core.judge.llm.wire.prompt import Ask, Prompts
from harmonizer_assets.core.judge.llm.wire.replies import Outcome, Reply
from harmonizer_assets.core.records.reports import RunTotals

BUDGET_USED_UP: Final = "not asked: the budget is used up"

_SECONDS_BETWEEN_LOOKS: Final = 0.5
"""Between two looks for answers that others are buying."""
_FEED_BELOW_WORDS: Final = 5_000
"""More partitions are read once fewer words than this wait."""


class Scheduler:
    """Asks all questions of a stream of partitions.

    One loop decides what is sent next; nothing else starts calls.
    """

    def __init__(
        self,
        settings: JudgeSettings,
        prompts: Prompts,
        answers: AnswerReader,
        endpoint: Endpoint,
        store: AnswerStore,
        budget: Budget,
        price: Price | None,
        totals: RunTotals,
        *,
        known: bool,
        shared: Sharing | None = None,
    ) -> None:
        self._answers = answers
        self._shared = shared
        self._held_by_others: list[Ask] = []
        self._store = store
        self._totals = totals
        self._work = OpenWork()
        self._estimates = Estimates()
        self._packer = Packer(
            settings.max_label_type_concurrency,
            settings.max_merchant_concurrency,
            settings.max_word_concurrency,
        )
        limits = Limits.of(settings)
        self._contact = Contact(known=known)
        self._retries = Retries(settings, self._packer, self._work, limits, totals, self._contact)
        self._dispatcher = Dispatcher(
            CallMaker(
                settings,
                prompts,
                self._packer,
                self._work,
                limits,
                self._estimates,
                price,
                self._contact,
            ),
            self._packer,
            prompts,
            endpoint,
            limits,
            self._estimates,
            Accounts(budget, price, totals),
            self._contact,
            settings.timeout_seconds,
        )
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._failure: BaseException | None = None
        self._fed = False
        self._unsupported: Reply | None = None

    async def run(self, works: AsyncIterator[PartitionWork]) -> AsyncGenerator[PartitionWork]:
        """Yield each partition once all its questions are answered and stored, or given up.

        Closing the iterator cancels what is in flight.

        Raises:
            UnsupportedParameterError: the endpoint names a parameter that it does not take.
            JudgeError: the endpoint can answer nothing; what it answered before is stored.
            StoreError: answers cannot be stored.
        """
        tasks = [
            asyncio.create_task(self._guard(self._feed, works)),
            asyncio.create_task(self._guard(self._store.run, self._stored)),
            asyncio.create_task(self._guard(self._dispatch)),
        ]
        if self._shared is not None:
            tasks.append(asyncio.create_task(self._guard(self._wait_for_others, self._shared)))
        try:
            while (work := await self._work.next_finished()) is not None:
                yield work
            if self._failure is not None:
                raise self._failure
        finally:
            tasks += self._dispatcher.in_flight
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # Answers are stored however the run ends.
            self._stored(await self._store.flush())

    async def _guard(self, part: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Run a part of the scheduler; when it raises, the run fails."""
        try:
            await part(*args)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failure = self._failure or error
            self._work.close()

    async def _feed(self, works: AsyncIterator[PartitionWork]) -> None:
        async for work in works:
            if not work.asks:
                self._work.add(work)
                continue
            while self._packer.words >= _FEED_BELOW_WORDS:
                self._room.clear()
                await self._room.wait()
            if self._totals.stopped_at_budget:
                break
            self._work.add(work)
            if self._shared is None:
                self._packer.add(work)
            else:
                held = await self._claim(self._shared, work.asks)
                self._held_by_others += held
            self._wake.set()
        self._fed = True
        self._wake.set()

    async def _claim(self, shared: Sharing, asks: Sequence[Ask]) -> list[Ask]:
        """Take what others have bought, have the rest asked; return what others are asking."""
        claim = await shared.claim(asks)
        for ask in asks:
            ask.shared = ask.verdict_key in claim.found
        self._store.add_found(
            [BoughtAnswer(a, claim.found[a.verdict_key], 0, 0, 0.0) for a in asks if a.shared]
        )
        mine = [ask for ask in asks if ask.verdict_key in claim.mine]
        for partition in dict.fromkeys(ask.partition for ask in mine):
            self._packer.add(
                PartitionWork(partition, [ask for ask in mine if ask.partition == partition])
            )
        return [ask for ask in asks if not ask.shared and ask.verdict_key not in claim.mine]

    async def _wait_for_others(self, shared: Sharing) -> None:
        """Look again and again for what others ask, until it is answered or theirs no more."""
        while True:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
            held = list(self._held_by_others)
            if self._totals.stopped_at_budget:
                self._work.defer(held, BUDGET_USED_UP)
                still = set[Ask]()
            else:
                still = {*(await self._claim(shared, held))} if held else set()
            # More may have come meanwhile.
            gone = {*held} - still
            self._held_by_others = [ask for ask in self._held_by_others if ask not in gone]
            if gone:
                self._wake.set()

    async def _dispatch(self) -> None:
        held: PreparedCall | None = None
        while True:
            if self._packer.words < _FEED_BELOW_WORDS:
                self._room.set()
            if held is None and self._may_send():
                held = self._dispatcher.next_call()
            if held is not None and self._unsupported is None:
                wait = self._send(held)
                if wait is None:
                    held = None
                    continue
            elif self._unsupported is not None and not self._dispatcher.in_flight:
                raise UnsupportedParameterError(
                    self._unsupported.error, str(self._unsupported.parameter)
                )
            elif self._is_finished():
                await self._finish()
                return
            else:
                wait = self._dispatcher.until_retry()
            self._wake.clear()
            await wait_for_event(self._wake, wait)

    def _may_send(self) -> bool:
        if self._unsupported is not None:
            # What is in flight ends; the rest is asked in another way.
            return False
        return not self._store.behind and self._dispatcher.has_slot(self._store.unstored)

    def _send(self, held: PreparedCall) -> float | None:
        """Send a call, or give it up for the budget; else return the seconds to wait."""
        if not self._may_send():
            return self._dispatcher.until_retry()
        wait = self._dispatcher.delay(held)
        if wait is None:
            self._work.began(held.call.asks)
            self._dispatcher.start(held, self._guard(self._ask, held), self._wake.set)
            return None
        if self._totals.stopped_at_budget:
            self._work.defer([*held.call.asks, *self._packer.drain()], BUDGET_USED_UP)
            self._room.set()
            return None
        return wait

    async def _ask(self, prepared: PreparedCall) -> None:
        received = await self._dispatcher.ask(prepared, self._store)
        if received.reply.outcome is Outcome.ANSWERED:
            self._answered(prepared, received)
            return
        self._store.add([], received.used, received.spent)
        if received.reply.outcome is Outcome.UNSUPPORTED:
            self._unsupported = received.reply
            return
        alone = len(self._dispatcher.in_flight) <= 1
        self._retries.after(prepared.call, received.reply, alone=alone)

    def _answered(self, prepared: PreparedCall, received: Received) -> None:
        call = prepared.call
        label_type = call.asks[0].head.label_type
        try:
            parsed = self._answers.parse(received.reply.content, prepared.ids, label_type)
        except MalformedAnswerError as malformed:
            self._store.add([], received.used, received.spent)
            self._retries.unusable(call, str(malformed))
            return
        bought = _bought(prepared, received, parsed)
        if bought:
            self._contact.answered()
        self._totals.answered += len(bought)
        self._store.add(bought, received.used, received.spent)
        if parsed.rejected:
            by_id = zip(prepared.ids, call.asks, strict=True)
            self._retries.rejected(
                call, {ask: parsed.rejected[one] for one, ask in by_id if one in parsed.rejected}
            )
            return
        outliers = sum(entry.is_outlier for entry in parsed.entries.values())
        self._estimates.output.learn(
            len(call.asks) - outliers,
            outliers,
            received.reply.completion_tokens,
            sum(ask.chance for ask in call.asks),
        )

    def _stored(self, bought: list[BoughtAnswer]) -> None:
        self._work.answered(bought)
        self._wake.set()

    def _is_finished(self) -> bool:
        nothing_waits = not (
            self._packer.words or self._dispatcher.in_flight or self._held_by_others
        )
        return nothing_waits and (self._fed or self._totals.stopped_at_budget)

    async def _finish(self) -> None:
        self._stored(await self._store.flush())
        self._work.close()


def _bought(prepared: PreparedCall, received: Received, parsed: ParsedAnswer) -> list[BoughtAnswer]:
    """Collect the answers of a call, each with its share of the call's usage."""
    return [
        BoughtAnswer(
            ask,
            answer_from(parsed.entries[item_id], ask.chance),
            share.prompt_tokens,
            share.completion_tokens,
            share.cost,
        )
        for item_id, ask, share in zip(
            prepared.ids, prepared.call.asks, received.shares, strict=True
        )
        if item_id in parsed.entries
    ]
