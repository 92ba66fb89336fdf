"""Limits of an endpoint: requests and tokens per minute, requests in flight, and pauses.

They are learned while calls are answered; configured limits are never exceeded.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from harmonizer_assets.core.base.settings import JudgeSettings

_log = logging.getLogger(__name__)

Clock = Callable[[], float]

_START_IN_FLIGHT: Final = 64
_MOST_IN_FLIGHT: Final = 512
_BACK_OFF: Final = 0.5
_SLOW_BACK_OFF: Final = 0.9
_SLOW: Final = 1.5
"""Slowdown of calls from which the endpoint counts as overloaded."""
_OPEN_AFTER: Final = 12
"""Failures in a row, without any answer, that open the circuit."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True)
class Taken:
    """The level of a bucket after an amount was taken, to be compared with the endpoint's."""

    level: float
    corrections: float


class Bucket:
    """A token bucket that follows the endpoint's own.

    It is full at first and refilled continuously. The headers of each answer hold the level of the
    endpoint's bucket when it accepted that call; the difference to the level of this one at that
    time is applied to the present level.
    """

    def __init__(self, per_minute: float | None, clock: Clock = time.monotonic) -> None:
        self.per_minute = per_minute
        self._fixed = per_minute is not None
        self._clock = clock
        self._level = per_minute or 0.0
        self._at = clock()
        self._corrections = 0.0
        self._taken_unlimited = 0.0

    def _refill(self) -> None:
        now = self._clock()
        if self.per_minute is not None:
            gained = (now - self._at) * self.per_minute / 60
            self._level = min(self.per_minute, self._level + gained)
        self._at = now

    def level(self) -> float:
        """Return the level; infinite while no limit is known."""
        self._refill()
        return float("inf") if self.per_minute is None else self._level

    def delay(self, amount: float) -> float:
        """Return the seconds until an amount can be taken."""
        self._refill()
        if self.per_minute is None:
            return 0.0
        # An amount that is larger than the bucket may be taken when the bucket is full.
        missing = min(amount, self.per_minute) - self._level
        return max(0.0, missing) * 60 / self.per_minute

    def take(self, amount: float) -> Taken:
        """Take an amount, even if the level becomes negative."""
        self._refill()
        self._level -= amount
        return Taken(self._level, self._corrections)

    def give_back(self, amount: float) -> None:
        """Correct an estimate: the call took less (or, if negative, more) than was taken."""
        self._level += amount

    def learn(self, taken: Taken | None, limit: float | None, remaining: float | None) -> None:
        """Follow the endpoint's headers on one answer."""
        self._refill()
        if limit and not self._fixed and limit != self.per_minute:
            # Before the first answer nothing was known, so the level counts down from nothing.
            self._level += limit - (self.per_minute or 0.0)
            if taken is not None:
                taken = Taken(taken.level + limit - (self.per_minute or 0.0), taken.corrections)
            self.per_minute = limit
        if remaining is None or taken is None or self.per_minute is None:
            return
        expected = min(self.per_minute, taken.level + self._corrections - taken.corrections)
        # Several answers may report the same surprise: apply a part, so that they agree.
        surprise = 0.5 * (expected - remaining)
        self._level -= surprise
        self._corrections -= surprise

    def refused(self, amount: float, remaining: float | None) -> None:
        """Account for an amount that the endpoint refused, given the level of its bucket."""
        self._refill()
        self._level += amount
        if self.per_minute is not None and remaining is not None:
            self._level = min(self._level, remaining)


class RateLimits:
    """Requests and tokens per minute."""

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.requests = Bucket(requests_per_minute, clock)
        self.tokens = Bucket(tokens_per_minute, clock)
        self._clock = clock
        self._paused_until = 0.0

    def delay(self, tokens: float) -> float:
        """Return the seconds until a call of this many tokens may be sent."""
        pause = self._paused_until - self._clock()
        return max(pause, self.requests.delay(1), self.tokens.delay(tokens), 0.0)

    def take(self, tokens: float) -> tuple[Taken, Taken]:
        """Account for a call that is being sent."""
        return self.requests.take(1), self.tokens.take(tokens)

    def learn(self, taken: tuple[Taken, Taken], headers: Mapping[str, str]) -> None:
        """Follow the rate-limit headers of an answer."""
        for name, bucket, of_bucket in (
            ("requests", self.requests, taken[0]),
            ("tokens", self.tokens, taken[1]),
        ):
            bucket.learn(
                of_bucket,
                _number(headers.get(f"x-ratelimit-limit-{name}")),
                _number(headers.get(f"x-ratelimit-remaining-{name}")),
            )

    def pause(self, seconds: float) -> None:
        """Send nothing for this many seconds."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def refused(self, tokens: float, headers: Mapping[str, str]) -> None:
        """Account for a call that was refused with 429."""
        self.requests.refused(1, _number(headers.get("x-ratelimit-remaining-requests")))
        self.tokens.refused(tokens, _number(headers.get("x-ratelimit-remaining-tokens")))


class Concurrency:
    """How many calls may be in flight: additive increase, multiplicative decrease.

    As in TCP's congestion avoidance (Chiu and Jain 1989), with a slow start that doubles each round
    until the first sign of a limit. Refusals halve it, once per round; answers that take markedly
    longer than before reduce it a little.
    """

    def __init__(self, most: int | None = None) -> None:
        """Start at `most` when it is given; otherwise learn the limit."""
        self._most = most or _MOST_IN_FLIGHT
        self._limit = float(most or _START_IN_FLIGHT)
        self._doubling = most is None
        self._usual = 1.0
        self._recent = 1.0
        self._until_next_cut = 0
        self._answered_since_cut = True

    @property
    def limit(self) -> int:
        """Return how many calls may be in flight now."""
        return max(1, int(self._limit))

    def answered(self, slowness: float, *, busy: bool) -> None:
        """Learn from an answer.

        Args:
            slowness: seconds that it took, relative to what was expected of its length.
            busy: whether the limit was reached; an unused limit does not grow.
        """
        self._answered_since_cut = True
        self._until_next_cut -= 1
        self._usual += 0.01 * (slowness - self._usual)
        self._recent += 0.1 * (slowness - self._recent)
        if self._recent > _SLOW * self._usual:
            self._cut(_SLOW_BACK_OFF)
        elif busy:
            self._limit += 1.0 if self._doubling else 1.0 / self._limit
            self._limit = min(self._limit, self._most)

    def refused(self) -> None:
        """Learn from a refusal (429)."""
        self._until_next_cut -= 1
        # When nothing was answered since the last cut, one call at a time tries.
        if self._cut(_BACK_OFF if self._answered_since_cut else 0.0):
            self._answered_since_cut = False

    def _cut(self, factor: float) -> bool:
        """Lower the limit, at most once until all calls that may be in flight have returned."""
        if self._until_next_cut > 0:
            return False
        self._until_next_cut = self.limit
        self._limit = max(1.0, self._limit * factor)
        self._doubling = False
        return True


class Circuit:
    """Pauses when nothing is answered any more; after each pause one call may try."""

    def __init__(self, patience: float, clock: Clock = time.monotonic) -> None:
        """Give up when nothing was answered for `patience` seconds although it was tried."""
        self._patience = patience
        self._clock = clock
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._opened_at: float | None = None
        self._closed_until = 0.0

    @property
    def is_open(self) -> bool:
        """Return whether only one call at a time may try."""
        return self._opened_at is not None

    @property
    def failing_for(self) -> float:
        """Return the seconds since the circuit opened; 0 while it is closed."""
        return 0.0 if self._opened_at is None else self._clock() - self._opened_at

    @property
    def exhausted(self) -> bool:
        """Return whether nothing was answered for longer than the run waits."""
        return self.failing_for > self._patience

    def delay(self) -> float:
        """Return the seconds until the next call may try."""
        return max(0.0, self._closed_until - self._clock()) if self.is_open else 0.0

    def answered(self) -> None:
        """Close the circuit."""
        if self._opened_at is not None:
            _log.info(
                "the endpoint answers again after %.1f s: the circuit closes", self.failing_for
            )
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._opened_at = None

    def failed(self, *, at_once: bool = False) -> None:
        """Count a failure; open after several in a row, or at once, and wait longer each time."""
        self._failures = _OPEN_AFTER if at_once else self._failures + 1
        now = self._clock()
        if self._failures < _OPEN_AFTER or now < self._closed_until:
            return
        if self._opened_at is None:
            self._opened_at = now
            _log.info(
                "%d calls in a row have failed: the circuit opens, one call at a time tries",
                self._failures,
            )
        self._closed_until = now + self._pause
        self._pause = min(_LONGEST_PAUSE, self._pause * 2)


@dataclass(frozen=True)
class Limits:
    """All limits of the calls to one endpoint."""

    rates: RateLimits
    concurrency: Concurrency
    circuit: Circuit

    @classmethod
    def of(cls, settings: JudgeSettings) -> Self:
        """Start from the limits that the settings set."""
        return cls(
            RateLimits(settings.requests_per_minute, settings.tokens_per_minute),
            Concurrency(settings.max_requests_in_flight),
            Circuit(settings.outage_patience_seconds),
        )

    def refused(self, tokens: float, headers: Mapping[str, str]) -> None:
        """Account for a call of this many tokens that was refused with 429."""
        self.concurrency.refused()
        self.rates.refused(tokens, headers)
        self.circuit.failed()


def _number(text: str | None) -> float | None:
    """Parse a header's number; some gateways send -1 or infinity for none."""
    try:
        number = float(text) if text else -1.0
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None
