"""Dispatching: make calls, send them within the limits, and learn from the replies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, NamedTuple

from harmonizer_assets.core.base.errors import JudgeError
from harmonizer_assets.core.base.settings import JudgeSettings
from harmonizer_assets.core.judge.llm.calls.contact import FIRST_CALLS, FIRST_WORDS, Contact
from harmonizer_assets.core.judge.llm.calls.estimates import Estimates, tokens_in
from harmonizer_assets.core.judge.llm.calls.limits import Limits, Taken
from harmonizer_assets.core.judge.llm.calls.packing import Call, Packer
from harmonizer_assets.core.judge.llm.calls.sizing import STRETCH, Load, words_per_call
from harmonizer_assets.core.judge.llm.calls.work import OpenWork
from harmonizer_assets.core.judge.llm.memory.store import AnswerStore, CallSpent
from harmonizer_assets.core.judge.llm.money.accounts import Accounts
from harmonizer_assets.core.judge.llm.money.budget import NOTHING, Reservation
from harmonizer_assets.core.judge.llm.money.prices import Price
from harmonizer_assets.core.judge.llm.money.shares import Share, UsageByPartition
from harmonizer_assets.core.judge.llm.wire.endpoint import Endpoint
from harmonizer_assets.core.judge.llm.wire.prompt import Prompts
from harmonizer_assets.core.judge.llm.wire.replies import Outcome, Reply

_log = logging.getLogger(__name__)

_SAMPLED_HEADS: Final = 8
_OUTPUT_PRICE_RATIO: Final = 4.0
"""Output against input tokens, where the model's price is not known; the usual ratio."""
_AT_RISK: Final = 2
"""Calls that a kill may lose, as a multiple of those that may be in flight."""
_LEAST_WAIT: Final = 0.002
_MOST_WAIT: Final = 1.0


@dataclass(eq=False)
class PreparedCall:
    """A call that is ready to be sent.

    Attributes:
        ids: of the items, in the order of the call's questions.
        max_tokens: at which the answer is cut off.
        expected_tokens: of prompt and answer.
        reservation: what it may take of the budget; set when it may be sent.
        taken: its amounts from the rate limits; set when it is sent.
    """

    call: Call
    messages: list[dict[str, str]]
    ids: list[str]
    max_tokens: int
    expected_tokens: float
    reservation: Reservation = NOTHING
    taken: tuple[Taken, Taken] | None = None


@dataclass(frozen=True)
class Received:
    """The reply to a call, its usage per partition and per word, and what it has spent."""

    reply: Reply
    used: UsageByPartition
    shares: Sequence[Share]
    spent: CallSpent


class Flight(NamedTuple):
    """A call in flight: its start, and what its answer's length depends on."""

    began: float
    words: int
    chances: float


class Timeouts:
    """Seconds to wait for an answer: a multiple of what is expected, longer after each time-out."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._factor = 1.0

    def seconds(self, expected: float) -> float:
        """Return how long to wait for an answer that is expected to take this many seconds."""
        return min(self._longest, (10.0 + 3.0 * expected) * self._factor)

    def answered(self) -> None:
        """Record that an answer has come in time."""
        self._factor = max(1.0, self._factor * 0.9)

    def timed_out(self) -> None:
        """Record that no answer has come in time."""
        self._factor *= 2.0


class CallMaker:
    """Makes the next call, of a size that fits the present load."""

    def __init__(
        self,
        settings: JudgeSettings,
        prompts: Prompts,
        packer: Packer,
        work: OpenWork,
        limits: Limits,
        estimates: Estimates,
        price: Price | None,
        contact: Contact,
    ) -> None:
        self._settings = settings
        self._prompts = prompts
        self._packer = packer
        self._work = work
        self._limits = limits
        self._estimates = estimates
        self._price = price
        self._contact = contact

    def next(self, flights: Sequence[Flight]) -> PreparedCall | None:
        """Make the next call, given those on their way; None while no word may be sent."""
        call = self._packed(flights, time.monotonic())
        if call is None:
            return None
        messages, ids = self._prompts.messages(call.asks)
        output = self._estimates.output
        expected = sum(output.expected(ask.chance) for ask in call.asks)
        prompt = self._estimates.prompt.expected(self._prompts.prompt_bytes(call.asks))
        return PreparedCall(call, messages, ids, output.limit(len(call.asks)), prompt + expected)

    def _packed(self, flights: Sequence[Flight], now: float) -> Call | None:
        if not self._packer.has_word(now):
            return None
        fixed = self._settings.llm_batch_size
        if fixed:
            return self._packer.next(fixed, now)
        words = words_per_call(self._settings.profile, self._load(flights))
        if not self._contact.known:
            words = min(words, FIRST_WORDS)
        return self._packer.next(words, now, STRETCH)

    def _load(self, flights: Sequence[Flight]) -> Load:
        rates, estimates = self._limits.rates, self._estimates
        waiting = max(1, self._packer.words)
        chance = self._packer.chances / waiting
        mean = estimates.output.expected(chance)
        word_prompt = estimates.prompt.expected(self._packer.bytes / waiting)
        reach = self._packer.reach()
        tokens = waiting * (word_prompt + mean)
        per_minute = rates.tokens.per_minute
        return Load(
            slots=min(self._limits.concurrency.limit, reach.calls),
            busy_until=[] if reach.more else [self._left(flight) for flight in flights],
            words=reach.words,
            tokens=reach.words * mean,
            mean_tokens=mean,
            # While more lanes follow there is nothing to even out yet.
            variance=0.0 if reach.more else estimates.output.variance(chance),
            first_token=estimates.latency.first_token,
            per_token=estimates.latency.per_token,
            head_cost=self._head_tokens(),
            word_cost=word_prompt + self._output_price() * mean,
            token_seconds=(
                max(0.0, tokens - rates.tokens.level()) * 60 / per_minute if per_minute else 0.0
            ),
            calls_left=max(0.0, rates.requests.level()),
            calls_per_second=(rates.requests.per_minute or 0.0) / 60,
        )

    def _head_tokens(self) -> float:
        """Return the expected tokens of what the words of a call have in common."""
        sizes = [head.size for head in islice(self._work.heads(), _SAMPLED_HEADS)]
        shared = self._prompts.prompt_bytes([]) + sum(sizes) / max(1, len(sizes))
        return self._estimates.prompt.expected(shared)

    def _output_price(self) -> float:
        """Return the price of an output token in input tokens."""
        if self._price is None:
            return _OUTPUT_PRICE_RATIO
        return self._price.output / max(self._price.input, 1e-9)

    def _left(self, flight: Flight) -> float:
        """Return the expected seconds until a call ends."""
        expected = flight.words * self._estimates.output.expected(flight.chances / flight.words)
        took = time.monotonic() - flight.began
        return max(0.0, self._estimates.latency.seconds(expected) - took)


class Dispatcher:
    """Sends calls, as many and as fast as limits and budget allow.

    Args:
        calls: makes them.
        packer: that they are made from.
        prompts: whose lengths are learned.
        endpoint: that they are sent to.
        limits: of the endpoint, learned here.
        estimates: of what calls take, learned here.
        accounts: that settle what they took.
        contact: what has come back so far.
        longest_timeout: seconds.
    """

    def __init__(
        self,
        calls: CallMaker,
        packer: Packer,
        prompts: Prompts,
        endpoint: Endpoint,
        limits: Limits,
        estimates: Estimates,
        accounts: Accounts,
        contact: Contact,
        longest_timeout: float,
    ) -> None:
        self._calls = calls
        self._packer = packer
        self._prompts = prompts
        self._endpoint = endpoint
        self._limits = limits
        self._estimates = estimates
        self._accounts = accounts
        self._contact = contact
        self._timeouts = Timeouts(longest_timeout)
        self._in_flight: dict[asyncio.Task[None], Flight] = {}

    @property
    def in_flight(self) -> Sequence[asyncio.Task[None]]:
        """The tasks that handle the calls on their way."""
        return list(self._in_flight)

    def has_slot(self, unstored: int) -> bool:
        """Return whether one more call may be in flight.

        What a kill loses is what is in flight and what has ended without being durable: together at
        most twice as many calls as may be in flight.

        Args:
            unstored: calls that have ended and whose answers are not durable.
        """
        circuit = self._limits.circuit
        in_flight, limit = len(self._in_flight), self._limits.concurrency.limit
        most = limit if self._contact.known else min(limit, FIRST_CALLS)
        if in_flight >= most or in_flight + unstored >= _AT_RISK * limit:
            return False
        return not (circuit.is_open and (self._in_flight or circuit.delay()))

    def next_call(self) -> PreparedCall | None:
        """Make the next call; None while no word may be sent."""
        return self._calls.next(list(self._in_flight.values()))

    def until_retry(self) -> float:
        """Return the seconds until a call may become possible without an event; at most one."""
        times = [_MOST_WAIT]
        due = self._packer.next_retry()
        if due is not None:
            times.append(due - time.monotonic())
        if self._limits.circuit.is_open and not self._in_flight:
            times.append(self._limits.circuit.delay())
        return max(_LEAST_WAIT, min(times))

    def delay(self, prepared: PreparedCall) -> float | None:
        """Return the seconds to wait before a call may be sent; None when it may be sent now.

        The budget is reserved for a call that may be sent.
        """
        wait = self._limits.rates.delay(prepared.expected_tokens)
        if wait > 0:
            return wait
        most = self._prompts.most_prompt_tokens(prepared.messages)
        reservation = self._accounts.reserve(most, prepared.max_tokens)
        if reservation is None:
            # Calls in flight may release parts of their reservations.
            if not self._in_flight:
                self._accounts.stop()
            return _MOST_WAIT
        prepared.reservation = reservation
        return None

    def start(
        self,
        prepared: PreparedCall,
        handled: Coroutine[Any, Any, None],
        ended: Callable[[], None],
    ) -> None:
        """Send a call that may be sent.

        Args:
            prepared: the call.
            handled: sends it, by `ask`, and handles the reply.
            ended: called once that is done.
        """
        asks = prepared.call.asks
        prepared.taken = self._limits.rates.take(prepared.expected_tokens)
        self._packer.started(prepared.call)
        task = asyncio.create_task(handled)
        chances = sum(ask.chance for ask in asks)
        self._in_flight[task] = Flight(time.monotonic(), len(asks), chances)

        def forget(done: asyncio.Task[None]) -> None:
            del self._in_flight[done]
            ended()

        task.add_done_callback(forget)

    async def ask(self, prepared: PreparedCall, store: AnswerStore) -> Received:
        """Make a call, settle its usage and learn from the reply.

        Args:
            prepared: the call.
            store: in which it is noted that the call may cost something, before it is sent.

        Raises:
            JudgeError: no call can succeed.
        """
        number = store.sends(self._accounts.most(prepared.reservation))
        busy = len(self._in_flight) >= self._limits.concurrency.limit
        timeout = self._timeouts.seconds(self._estimates.latency.seconds(prepared.max_tokens))
        try:
            reply = await self._endpoint.ask(prepared.messages, prepared.max_tokens, timeout)
        except JudgeError:
            store.add([], {}, CallSpent(number, self._accounts.refused(prepared.reservation)))
            raise
        if not reply.unreachable:
            self._contact.reached()
        if reply.is_completion and not reply.usage_known:
            reply = self._estimated(prepared, reply)
        asks = prepared.call.asks
        used, shares, spent = self._accounts.settle(asks, prepared.reservation, reply)
        self._packer.ended(prepared.call)
        self._learn_limits(prepared, reply)
        if reply.is_completion:
            if reply.cut_off and _used_its_room(prepared, reply):
                self._estimates.output.cut_off(len(asks), prepared.max_tokens)
            if reply.usage_known:
                self._learn(prepared, reply, busy=busy)
        _log.debug(
            "call: %d words, %d + %d tokens, %.3f s, status %s, %s",
            len(asks),
            reply.prompt_tokens,
            reply.completion_tokens,
            reply.seconds,
            reply.status,
            reply.outcome.value,
        )
        return Received(reply, used, shares, CallSpent(number, spent))

    def _estimated(self, prepared: PreparedCall, reply: Reply) -> Reply:
        """Estimate the tokens of a reply whose endpoint does not say how many it took."""
        sent = self._prompts.prompt_bytes(prepared.call.asks)
        return replace(
            reply,
            prompt_tokens=round(self._estimates.prompt.expected(sent)),
            completion_tokens=tokens_in(reply.content),
        )

    def _learn_limits(self, prepared: PreparedCall, reply: Reply) -> None:
        match reply.outcome:
            case Outcome.RATE_LIMITED:
                self._limits.refused(prepared.expected_tokens, reply.headers or {})
            case Outcome.FAILED:
                at_once = reply.unreachable and self._contact.never_reached
                self._limits.circuit.failed(at_once=at_once)
                if reply.timed_out:
                    self._timeouts.timed_out()
            case _:
                self._limits.circuit.answered()
                if reply.headers is not None and prepared.taken is not None:
                    self._limits.rates.learn(prepared.taken, reply.headers)

    def _learn(self, prepared: PreparedCall, reply: Reply, *, busy: bool) -> None:
        took = reply.prompt_tokens + reply.completion_tokens
        latency = self._estimates.latency
        self._limits.rates.tokens.give_back(prepared.expected_tokens - took)
        slowness = reply.seconds / max(0.01, latency.seconds(reply.completion_tokens))
        latency.learn(reply.completion_tokens, reply.seconds)
        sent_bytes = self._prompts.prompt_bytes(prepared.call.asks)
        self._estimates.prompt.learn(sent_bytes, reply.prompt_tokens)
        self._limits.concurrency.answered(slowness, busy=busy)
        self._timeouts.answered()


def _used_its_room(prepared: PreparedCall, reply: Reply) -> bool:
    """Return whether an answer was cut off where the request says, so that more room helps."""
    told = reply.usage_known and reply.content
    return not told or reply.completion_tokens >= prepared.max_tokens
