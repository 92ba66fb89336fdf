"""The scheduler: label types, merchants and words in flight at once, under one set of limits."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from harmonizer_assets.core.aio import wait_for_event
from harmonizer_assets.core.errors import JudgeError
from harmonizer_assets.core.judge import Usage
from harmonizer_assets.core.llm.batching import (
    STRETCH,
    Batch,
    Load,
    Packer,
    PartitionWork,
    batch_words,
)
from harmonizer_assets.core.llm.budget import NOTHING, Budget, Reservation
from harmonizer_assets.core.llm.cache import BoughtAnswer, UsageByPartition
from harmonizer_assets.core.llm.confidence import answer_from
from harmonizer_assets.core.llm.endpoint import Endpoint, Outcome, Reply
from harmonizer_assets.core.llm.estimates import Latency, OutputTokens, PromptTokens
from harmonizer_assets.core.llm.limits import Circuit, Concurrency, RateLimits, Taken
from harmonizer_assets.core.llm.prices import Price
from harmonizer_assets.core.llm.shares import split_evenly
from harmonizer_assets.core.llm.store import VerdictStore
from harmonizer_assets.core.llm.wire import Ask, MalformedAnswerError, Wire
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.settings import JudgeSettings

BUDGET_USED_UP: Final = "not asked: the budget is used up"

_FEED_BELOW_WORDS: Final = 5_000
"""More partitions are read once fewer words than this wait."""
_SAMPLED_HEADS: Final = 8
_LONGEST_BACKOFF: Final = 30.0
_OUTPUT_PRICE_RATIO: Final = 4.0
"""Output against input tokens, where the model's price is not known; the usual ratio."""
_PATIENCE_UNANSWERED: Final = 60.0
"""Seconds after which a run gives up on an endpoint that has never answered it."""


@dataclass(eq=False)
class _Call:
    batch: Batch
    messages: list[dict[str, str]]
    ids: list[str]
    max_tokens: int
    expected_output: float
    expected_tokens: float
    reservation: Reservation = NOTHING


class _Flight(NamedTuple):
    """A call on its way: when it began, and what its answer's length depends on."""

    began: float
    words: int
    chances: float


@dataclass
class RunTotals:
    """What a run of the scheduler has used and done so far."""

    calls: int = 0
    answered: int = 0
    words_asked: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    retries: int = 0
    rate_limited: int = 0
    dead_letters: int = 0
    stopped_at_budget: bool = False


class Scheduler:
    """Asks all questions of a stream of partitions.

    One loop decides what is sent next; nothing else starts calls. A question is sent until it has a
    valid answer, at most `max_attempts` times beyond the halvings of its batch (of 50 words, six at
    most) and beyond refusals (429) while other calls were in flight, which are the run's own doing.
    """

    def __init__(
        self,
        settings: JudgeSettings,
        wire: Wire,
        endpoint: Endpoint,
        store: VerdictStore,
        budget: Budget,
        price: Price | None,
        totals: RunTotals,
    ) -> None:
        self._settings = settings
        self._wire = wire
        self._endpoint = endpoint
        self._store = store
        self._budget = budget
        self._price = price
        self._packer = Packer(
            settings.max_label_type_concurrency,
            settings.max_merchant_concurrency,
            settings.max_word_concurrency,
        )
        self._rates = RateLimits(settings.requests_per_minute, settings.tokens_per_minute)
        self._concurrency = Concurrency(settings.max_requests_in_flight)
        self._circuit = Circuit(settings.outage_patience_seconds)
        self._latency = Latency()
        self._output = OutputTokens()
        self._prompt = PromptTokens()
        self._timeout_factor = 1.0
        self._in_flight: dict[asyncio.Task[None], _Flight] = {}
        self._works: dict[PartitionKey, PartitionWork] = {}
        self._began: dict[PartitionKey, float] = {}
        self._finished: asyncio.Queue[PartitionWork | None] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._failure: BaseException | None = None
        self._fed = False
        self.totals = totals

    async def run(self, works: AsyncIterator[PartitionWork]) -> AsyncGenerator[PartitionWork]:
        """Yield each partition once all its questions are answered and stored, or given up.

        Closing the iterator cancels what is in flight.

        Raises:
            JudgeError: the endpoint can answer nothing; what it answered before is stored.
            StoreError: answers cannot be stored.
        """
        tasks = [
            asyncio.create_task(self._guard(self._feed(works))),
            asyncio.create_task(self._guard(self._store.run(self._stored))),
            asyncio.create_task(self._guard(self._dispatch())),
        ]
        try:
            while (work := await self._finished.get()) is not None:
                yield work
            if self._failure is not None:
                raise self._failure
        finally:
            for task in (*tasks, *self._in_flight):
                task.cancel()
            await asyncio.gather(*tasks, *self._in_flight, return_exceptions=True)
            # What was answered is kept, however the run ends.
            self._stored(await self._store.flush())

    async def _guard(self, part: Any) -> None:
        """Run a part of the scheduler; when it fails, the run fails."""
        try:
            await part
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failure = self._failure or error
            self._finished.put_nowait(None)

    async def _feed(self, works: AsyncIterator[PartitionWork]) -> None:
        async for work in works:
            if not work.asks:
                self._finished.put_nowait(work)
                continue
            while self._packer.words >= _FEED_BELOW_WORDS:
                self._room.clear()
                await self._room.wait()
            if self.totals.stopped_at_budget:
                break
            self._works[work.partition] = work
            self._packer.add(work)
            self._wake.set()
        self._fed = True
        self._wake.set()

    async def _dispatch(self) -> None:
        held: _Call | None = None
        while True:
            if self._packer.words < _FEED_BELOW_WORDS:
                self._room.set()
            if held is None and self._may_send():
                held = self._next_call()
            if held is not None:
                wait = self._delay(held)
                if wait is None:
                    self._send(held)
                    held = None
                    continue
                if self.totals.stopped_at_budget:
                    self._give_up_for_budget(held)
                    held = None
                    continue
            elif self._is_finished():
                await self._finish()
                return
            else:
                wait = self._until_retry()
            self._wake.clear()
            await wait_for_event(self._wake, wait)

    def _may_send(self) -> bool:
        if self._store.behind or len(self._in_flight) >= self._concurrency.limit:
            return False
        return not (self._circuit.is_open and (self._in_flight or self._circuit.delay()))

    def _until_retry(self) -> float:
        """Seconds until something may change without being told; at most one."""
        times = [1.0]
        due = self._packer.next_retry()
        if due is not None:
            times.append(due - time.monotonic())
        if self._circuit.is_open and not self._in_flight:
            times.append(self._circuit.delay())
        return max(0.002, min(times))

    def _next_call(self) -> _Call | None:
        now = time.monotonic()
        if not self._packer.has_word(now):
            return None
        fixed = self._settings.llm_batch_size
        if fixed:
            batch = self._packer.next(fixed, now)
        else:
            words = batch_words(self._settings.profile, self._load())
            batch = self._packer.next(words, now, STRETCH)
        if batch is None:
            return None
        messages, ids = self._wire.messages(batch.asks)
        expected = sum(self._output.expected(ask.chance) for ask in batch.asks)
        prompt = self._prompt.expected(self._wire.prompt_bytes(batch.asks))
        return _Call(
            batch,
            messages,
            ids,
            self._output.limit(len(batch.asks)),
            expected,
            prompt + expected,
        )

    def _load(self) -> Load:
        waiting = max(1, self._packer.words)
        chance = self._packer.chances / waiting
        mean = self._output.expected(chance)
        word_prompt = self._prompt.expected(self._packer.bytes / waiting)
        reach = self._packer.reach()
        heads = [work.asks[0].head.size for work in islice(self._works.values(), _SAMPLED_HEADS)]
        head_bytes = self._wire.prompt_bytes([]) + sum(heads) / max(1, len(heads))
        head_prompt = self._prompt.expected(head_bytes)
        output_price = (
            self._price.output / max(self._price.input, 1e-9)
            if self._price
            else _OUTPUT_PRICE_RATIO
        )
        rates = self._rates
        tokens = waiting * (word_prompt + mean)
        per_minute = rates.tokens.per_minute
        calls_per_minute = rates.requests.per_minute
        return Load(
            slots=min(self._concurrency.limit, reach.calls),
            busy_until=[]
            if reach.more
            else [self._left(flight) for flight in self._in_flight.values()],
            words=reach.words,
            tokens=reach.words * mean,
            mean_tokens=mean,
            # While more lanes follow there is nothing to even out yet.
            variance=0.0 if reach.more else self._output.variance(chance),
            first_token=self._latency.first_token,
            per_token=self._latency.per_token,
            head_cost=head_prompt,
            word_cost=word_prompt + output_price * mean,
            token_seconds=(
                max(0.0, tokens - rates.tokens.level()) * 60 / per_minute if per_minute else 0.0
            ),
            calls_left=max(0.0, rates.requests.level()),
            calls_per_second=(calls_per_minute or 0.0) / 60,
        )

    def _left(self, flight: _Flight) -> float:
        """Seconds until a call ends, by what is known of its kind by now."""
        expected = flight.words * self._output.expected(flight.chances / flight.words)
        return max(0.0, flight.began + self._latency.seconds(expected) - time.monotonic())

    def _delay(self, call: _Call) -> float | None:
        """Seconds to wait before a call may be sent; None when it may be sent now."""
        if not self._may_send():
            return self._until_retry()
        wait = self._rates.delay(call.expected_tokens)
        if wait > 0:
            return wait
        reservation = self._budget.reserve(
            self._wire.most_prompt_tokens(call.messages), call.max_tokens
        )
        if reservation is None:
            # Calls in flight may give back what they do not take.
            self.totals.stopped_at_budget = not self._in_flight
            return 1.0
        call.reservation = reservation
        return None

    def _send(self, call: _Call) -> None:
        now = time.monotonic()
        taken = self._rates.take(call.expected_tokens)
        self._packer.started(call.batch)
        for ask in call.batch.asks:
            self._began.setdefault(ask.partition, now)
        task = asyncio.create_task(self._guard(self._call(call, taken)))
        chances = sum(ask.chance for ask in call.batch.asks)
        self._in_flight[task] = _Flight(now, len(call.batch.asks), chances)
        task.add_done_callback(self._call_ended)

    def _call_ended(self, task: asyncio.Task[None]) -> None:
        del self._in_flight[task]
        self._wake.set()

    async def _call(self, call: _Call, taken: tuple[Taken, Taken]) -> None:
        busy = len(self._in_flight) >= self._concurrency.limit
        timeout = self._timeout(call)
        reply = await self._endpoint.ask(call.messages, call.max_tokens, timeout)
        used, shares = self._account(call, reply)
        if reply.headers is not None and reply.outcome is not Outcome.RATE_LIMITED:
            self._rates.learn(taken, reply.headers)
        self._packer.ended(call.batch)
        if reply.outcome in (Outcome.ANSWERED, Outcome.UNUSABLE):
            self._circuit.answered()
            if reply.cut_off and reply.completion_tokens >= call.max_tokens:
                self._output.cut_off()
            if reply.usage_known:
                self._learn(call, reply, busy=busy)
        match reply.outcome:
            case Outcome.RATE_LIMITED:
                self._refused(call, reply)
            case Outcome.FAILED:
                self._failed(call, reply)
            case Outcome.UNUSABLE:
                self._unusable(call.batch, reply.error)
            case Outcome.ANSWERED:
                self._answered(call, reply, used, shares)
                return
        self._store.add([], used)

    def _timeout(self, call: _Call) -> float:
        expected = self._latency.seconds(call.max_tokens)
        return min(self._settings.timeout_seconds, (10.0 + 3.0 * expected) * self._timeout_factor)

    def _account(self, call: _Call, reply: Reply) -> tuple[UsageByPartition, list[_Share]]:
        """Settle the budget and divide what the call took among its words."""
        asks = call.batch.asks
        cost: float | None = None
        if reply.usage_known:
            if self._price is not None:
                cost = self._price.cost(
                    reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens
                )
            self._budget.settle(
                call.reservation, reply.prompt_tokens + reply.completion_tokens, cost
            )
        elif reply.outcome is Outcome.RATE_LIMITED:
            self._budget.release(call.reservation)
        else:
            self._budget.forfeit(call.reservation)
        repeated = any(ask.calls for ask in asks)
        limited = reply.outcome is Outcome.RATE_LIMITED
        unpriced = reply.usage_known and cost is None
        shares = [
            _Share(*tokens, cost=None if unpriced else (cost or 0.0) / len(asks))
            for tokens in zip(
                split_evenly(reply.prompt_tokens, len(asks)),
                split_evenly(reply.cached_tokens, len(asks)),
                split_evenly(reply.completion_tokens, len(asks)),
                strict=True,
            )
        ]
        used: UsageByPartition = {}
        for index, (ask, share) in enumerate(zip(asks, shares, strict=True)):
            usage = used.setdefault(ask.partition, Usage())
            usage.add(
                Usage(
                    calls=int(index == 0),
                    words_asked=int(ask.calls == 0),
                    prompt_tokens=share.prompt_tokens,
                    cached_tokens=share.cached_tokens,
                    completion_tokens=share.completion_tokens,
                    cost_usd=share.cost,
                    retries=int(index == 0 and repeated),
                    rate_limited=int(index == 0 and limited),
                )
            )
            ask.calls += 1
        totals = self.totals
        totals.calls += 1
        totals.words_asked += sum(ask.calls == 1 for ask in asks)
        totals.prompt_tokens += reply.prompt_tokens
        totals.completion_tokens += reply.completion_tokens
        if cost is not None and totals.cost_usd is not None:
            totals.cost_usd += cost
        elif unpriced:
            totals.cost_usd = None
        totals.retries += repeated
        totals.rate_limited += limited
        return used, shares

    def _learn(self, call: _Call, reply: Reply, *, busy: bool) -> None:
        took = reply.prompt_tokens + reply.completion_tokens
        self._rates.tokens.give_back(call.expected_tokens - took)
        slowness = reply.seconds / max(0.01, self._latency.seconds(reply.completion_tokens))
        self._latency.learn(reply.completion_tokens, reply.seconds)
        self._prompt.learn(self._wire.prompt_bytes(call.batch.asks), reply.prompt_tokens)
        self._concurrency.answered(slowness, busy=busy)
        self._timeout_factor = max(1.0, self._timeout_factor * 0.9)

    def _answered(
        self, call: _Call, reply: Reply, used: UsageByPartition, shares: Sequence[_Share]
    ) -> None:
        asks = call.batch.asks
        try:
            parsed = self._wire.parse(reply.content, call.ids, asks[0].head.label_type)
        except MalformedAnswerError as malformed:
            self._store.add([], used)
            self._unusable(call.batch, str(malformed))
            return
        bought = [
            BoughtAnswer(
                ask,
                answer_from(parsed.entries[item_id], ask.chance),
                share.prompt_tokens,
                share.completion_tokens,
                share.cost,
            )
            for item_id, ask, share in zip(call.ids, asks, shares, strict=True)
            if item_id in parsed.entries
        ]
        self.totals.answered += len(bought)
        self._store.add(bought, used)
        if not parsed.rejected:
            outliers = sum(entry.is_outlier for entry in parsed.entries.values())
            self._output.learn(
                len(asks) - outliers,
                outliers,
                reply.completion_tokens,
                sum(ask.chance for ask in asks),
            )
            return
        again = []
        for item_id, ask in zip(call.ids, asks, strict=True):
            if item_id in parsed.rejected:
                ask.attempts += 1
                ask.error = parsed.rejected[item_id]
                again.append(ask)
        self._retry(Batch(again, call.batch.lane, call.batch.failures), 0.0)

    def _unusable(self, batch: Batch, error: str) -> None:
        """Halve a batch whose answer is no good, until the word that spoils it stands alone."""
        for ask in batch.asks:
            ask.error = error
        if len(batch.asks) > 1:
            self._packer.split(batch, time.monotonic())
            return
        batch.asks[0].attempts += 1
        self._retry(batch, self._backoff(batch.asks[0].attempts))

    def _failed(self, call: _Call, reply: Reply) -> None:
        """Try again later; a batch that has failed twice may hold the cause, so halve it."""
        batch = call.batch
        self._circuit.failed()
        if self._circuit.is_open:
            self._check_patience(reply.error)
        if reply.timed_out:
            self._timeout_factor *= 2.0
        if self._waits_too_long(batch, reply):
            return
        for ask in batch.asks:
            ask.attempts += 1
            ask.error = reply.error
        batch.failures += 1
        pause = max(self._backoff(batch.failures), reply.retry_after or 0.0)
        if batch.failures % 2 == 0 and len(batch.asks) > 1:
            middle = (len(batch.asks) + 1) // 2
            for half in (batch.asks[:middle], batch.asks[middle:]):
                self._retry(Batch(half, batch.lane, batch.failures), pause)
            return
        self._retry(batch, pause)

    def _refused(self, call: _Call, reply: Reply) -> None:
        """The endpoint is over a limit: send less, and honour what it asks for."""
        batch = call.batch
        self._concurrency.refused()
        self._rates.refused(call.expected_tokens, reply.headers or {})
        self._circuit.failed()
        if self._circuit.is_open:
            self._check_patience(reply.error)
        if self._waits_too_long(batch, reply):
            return
        batch.failures += 1
        pause = self._backoff(batch.failures)
        if reply.retry_after is not None:
            pause = reply.retry_after
            self._rates.pause(reply.retry_after)
        alone = len(self._in_flight) <= 1
        for ask in batch.asks:
            # While others are in flight a refusal is the run's own doing, not the word's.
            ask.attempts += alone
            ask.error = reply.error
        self._retry(batch, pause)

    def _waits_too_long(self, batch: Batch, reply: Reply) -> bool:
        """Leave words to a later run if the endpoint asks to wait longer than this one will."""
        if (reply.retry_after or 0.0) <= self._settings.max_retry_after_seconds:
            return False
        self._defer(batch.asks, f"deferred: wait {reply.retry_after:.0f} s ({reply.error})")
        return True

    def _check_patience(self, error: str) -> None:
        never = self.totals.answered == 0
        if self._circuit.exhausted or (never and self._circuit.failing_for > _PATIENCE_UNANSWERED):
            raise JudgeError(
                f"the endpoint has answered nothing for {self._circuit.failing_for:.0f} s "
                f"({error}): check OPENAI_BASE_URL and the provider's status, then run again; "
                "what was answered is kept"
            )

    def _backoff(self, failures: int) -> float:
        """Exponential backoff with full jitter (Brooker 2015), in seconds."""
        ceiling = min(_LONGEST_BACKOFF, self._settings.backoff_seconds * 2**failures)
        return random.uniform(0, ceiling)

    def _retry(self, batch: Batch, pause: float) -> None:
        """Put back the words that have attempts left, give up the others."""
        spent = [ask for ask in batch.asks if ask.attempts >= self._settings.max_attempts]
        batch.asks = [ask for ask in batch.asks if ask.attempts < self._settings.max_attempts]
        for ask in spent:
            self.totals.dead_letters += 1
            self._give_up(ask)
        if batch.asks:
            self._packer.retry(batch, time.monotonic() + pause)

    def _give_up(self, ask: Ask) -> None:
        ask.given_up = True
        self._resolved(ask)

    def _defer(self, asks: Sequence[Ask], reason: str) -> None:
        """Leave words to a later run."""
        for ask in asks:
            ask.error = reason
            ask.deferred = True
            self._give_up(ask)

    def _give_up_for_budget(self, held: _Call) -> None:
        self._defer([*held.batch.asks, *self._packer.drain()], BUDGET_USED_UP)
        self._room.set()

    def _stored(self, bought: Sequence[BoughtAnswer]) -> None:
        for one in bought:
            one.ask.answer = one.answer
            self._resolved(one.ask)
        self._wake.set()

    def _resolved(self, ask: Ask) -> None:
        work = self._works[ask.partition]
        work.unresolved -= 1
        if not work.unresolved:
            del self._works[ask.partition]
            began = self._began.pop(ask.partition, None)
            if began is not None:
                work.seconds = time.monotonic() - began
            self._finished.put_nowait(work)

    def _is_finished(self) -> bool:
        nothing_waits = not self._packer.words and not self._in_flight
        return nothing_waits and (self._fed or self.totals.stopped_at_budget)

    async def _finish(self) -> None:
        self._stored(await self._store.flush())
        self._finished.put_nowait(None)


@dataclass(frozen=True)
class _Share:
    """One word's part of what its call took."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost: float | None
