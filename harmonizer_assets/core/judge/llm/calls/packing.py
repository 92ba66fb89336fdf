"""Packing: choose the words of the next call from lanes, retries and splits."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice
from typing import Final

from harmonizer_assets.core.judge.llm.calls.sizing import MAX_CALL_WORDS
from harmonizer_assets.core.judge.llm.calls.work import PartitionWork
from harmonizer_assets.core.judge.llm.wire.prompt import Ask

MAX_PROMPT_BYTES: Final = 24_000
_SMALL_PARTITION: Final = 10
"""Partitions with fewer questions than this share lanes, and so calls."""


@dataclass(eq=False)
class Lane:
    """Words of one label type that may share calls: one partition, or several small ones.

    `words` counts all words that were added, `pending` holds those that wait.
    """

    label_type: str
    pending: deque[Ask] = field(default_factory=deque)
    words: int = 0
    shared: bool = False
    in_flight: int = 0


@dataclass(eq=False)
class Call:
    """The words that are asked together.

    Attributes:
        failures: how often the call was sent without an answer.
    """

    asks: list[Ask]
    lane: Lane
    failures: int = 0

    def halves(self) -> tuple[Call, Call]:
        """Split into two calls with the same number of failures."""
        middle = (len(self.asks) + 1) // 2
        first, second = self.asks[:middle], self.asks[middle:]
        return Call(first, self.lane, self.failures), Call(second, self.lane, self.failures)


@dataclass(frozen=True)
class Reach:
    """The words and calls that may be packed at one time.

    Attributes:
        words: that wait in lanes that are open or may be; while there are `more` lanes behind them,
            those that such lanes hold at first, since others follow as they empty.
        calls: that these lanes may have in flight.
    """

    words: int
    calls: int
    more: bool


class Packer:
    """Holds the words that wait and packs them into calls.

    Lanes are opened label type by label type. At most so many label types have calls in flight or
    words waiting in an open lane, so many lanes of each, and so many calls of each lane; retries
    of what is in flight already are not held back.
    """

    def __init__(
        self,
        max_label_types: int,
        max_lanes: int,
        max_calls: int,
    ) -> None:
        self._max_label_types = max_label_types
        self._max_lanes = max_lanes
        self._max_calls = max_calls
        self._waiting: dict[str, deque[Lane]] = {}
        self._open: dict[str, list[Lane]] = {}
        self._shared: dict[str, Lane] = {}
        self._retries: list[tuple[float, int, Call]] = []
        self._retrying = 0
        self._order = count()
        self.words = 0
        self.chances = 0.0
        self.bytes = 0

    def _count(self, asks: Sequence[Ask], sign: int) -> None:
        self.words += sign * len(asks)
        self.chances += sign * sum(ask.chance for ask in asks)
        self.bytes += sign * sum(ask.size for ask in asks)

    def add(self, work: PartitionWork) -> None:
        """Add the questions of a partition."""
        label_type = work.partition.label_type
        if len(work.asks) < _SMALL_PARTITION:
            lane = self._shared.get(label_type)
            if lane is None:
                lane = self._new_lane(label_type, shared=True)
                self._shared[label_type] = lane
        else:
            lane = self._new_lane(label_type, shared=False)
        lane.pending.extend(work.asks)
        lane.words += len(work.asks)
        self._count(work.asks, 1)

    def _new_lane(self, label_type: str, *, shared: bool) -> Lane:
        lane = Lane(label_type, shared=shared)
        self._waiting.setdefault(label_type, deque()).append(lane)
        return lane

    def reach(self) -> Reach:
        """Return what may be packed now, given how many lanes may be open."""
        names = list(dict.fromkeys((*self._open, *self._waiting)))
        lanes = [
            lane
            for name in names[: self._max_label_types]
            for lane in islice(
                chain(self._open.get(name, ()), self._waiting.get(name, ())), self._max_lanes
            )
        ]
        pending = sum(len(lane.pending) for lane in lanes) + self._retrying
        more = self.words > pending
        words = min(self.words, sum(lane.words for lane in lanes)) if more else pending
        return Reach(words, max(1, len(lanes)) * self._max_calls, more)

    def retry(self, call: Call, at: float) -> None:
        """Queue a call again, to be sent no sooner than at `at`."""
        heapq.heappush(self._retries, (at, next(self._order), call))
        self._retrying += len(call.asks)
        self._count(call.asks, 1)

    def split(self, call: Call, at: float) -> None:
        """Queue a call again in two halves."""
        for half in Call(call.asks, call.lane).halves():
            self.retry(half, at)

    def next_retry(self) -> float | None:
        """Return when the next retry is due."""
        return self._retries[0][0] if self._retries else None

    def has_word(self, now: float) -> bool:
        """Return whether a call could be made now."""
        return bool(self._retries and self._retries[0][0] <= now) or self._lane() is not None

    def next(self, words: int, now: float, stretch: float = 1.0) -> Call | None:
        """Take the next call: what is due for a retry, else new words of an open lane.

        Args:
            words: how many new words it should hold.
            now: to tell which retries are due.
            stretch: how much longer it may be, relative to `words`, for a lane's calls to be
                even.
        """
        if self._retries and self._retries[0][0] <= now:
            call = heapq.heappop(self._retries)[2]
            self._retrying -= len(call.asks)
            self._count(call.asks, -1)
            return call
        lane = self._lane()
        if lane is None:
            return None
        asks = self._take(lane, words, stretch)
        self._count(asks, -1)
        return Call(asks, lane)

    def started(self, call: Call) -> None:
        """Count a call as in flight; open its lane again if it was closed meanwhile."""
        lane = call.lane
        lane.in_flight += 1
        lanes = self._open.setdefault(lane.label_type, [])
        if lane not in lanes:
            lanes.append(lane)

    def ended(self, call: Call) -> None:
        """Count a call as ended; close its lane if that has nothing left."""
        lane = call.lane
        lane.in_flight -= 1
        if not lane.in_flight and not lane.pending:
            # A closed lane gets no more words, since closed lanes are not searched.
            if self._shared.get(lane.label_type) is lane:
                del self._shared[lane.label_type]
            lanes = self._open.get(lane.label_type, [])
            if lane in lanes:
                lanes.remove(lane)
            if not lanes:
                self._open.pop(lane.label_type, None)

    def drain(self) -> list[Ask]:
        """Give up all waiting words."""
        lanes = [
            lane for lanes in (*self._waiting.values(), *self._open.values()) for lane in lanes
        ]
        left = [ask for lane in lanes for ask in lane.pending]
        left.extend(ask for _, _, call in self._retries for ask in call.asks)
        for lane in lanes:
            lane.pending.clear()
        self._retries.clear()
        self._retrying = 0
        self._waiting.clear()
        self._shared.clear()
        self._count(left, -1)
        return left

    def _lane(self) -> Lane | None:
        """Find an open lane with words, the least busy one, or a newly opened one."""
        candidates = [
            lane
            for lanes in self._open.values()
            for lane in lanes
            if lane.pending and lane.in_flight < self._max_calls
        ]
        opened = self._openable()
        if opened is not None and (not candidates or all(lane.in_flight for lane in candidates)):
            return opened
        return min(candidates, key=lambda lane: lane.in_flight, default=None)

    def _openable(self) -> Lane | None:
        """Find the first waiting lane that may be opened; taking words from it opens it."""
        for label_type, lanes in self._waiting.items():
            is_open = label_type in self._open
            if lanes and (
                len(self._open[label_type]) < self._max_lanes
                if is_open
                else len(self._open) < self._max_label_types
            ):
                return lanes[0]
        return None

    def _take(self, lane: Lane, words: int, stretch: float) -> list[Ask]:
        waiting = self._waiting.get(lane.label_type)
        if waiting and waiting[0] is lane:
            waiting.popleft()
            if not waiting:
                del self._waiting[lane.label_type]
            self._open.setdefault(lane.label_type, []).append(lane)
        # Even calls: a full one and a remainder of a few words would take longer than two halves.
        calls = max(1, round(len(lane.pending) / words))
        if math.ceil(len(lane.pending) / calls) > min(MAX_CALL_WORDS, stretch * words):
            calls = math.ceil(len(lane.pending) / words)
        most = math.ceil(len(lane.pending) / calls)
        taken: list[Ask] = []
        heads = set()
        size = 0
        while lane.pending and len(taken) < most:
            ask = lane.pending[0]
            size += ask.size + (0 if ask.head in heads else ask.head.size)
            # Where merchants may differ, each item names its own.
            size += ask.head.merchant_size if lane.shared else 0
            if taken and (ask.alone or taken[0].alone or size > MAX_PROMPT_BYTES):
                break
            heads.add(ask.head)
            taken.append(lane.pending.popleft())
        return taken
