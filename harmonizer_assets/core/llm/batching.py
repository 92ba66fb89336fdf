"""Which words go into the next call: lanes, batch sizes and splits."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice
from typing import Final

from harmonizer_assets.core.llm.wire import Ask
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.settings import Profile

MAX_BATCH_WORDS: Final = 50
MAX_PROMPT_BYTES: Final = 24_000
_SMALL_PARTITION: Final = 10
"""Partitions with fewer questions than this share a lane, and so calls, with their like."""
_OVERHEAD_SHARE: Final = 0.1
"""`cheap` makes batches so large that the shared prompt is a tenth of what the words cost."""
_CLIENT_CALLS_PER_SECOND: Final = 150.0
"""What one core carries beside its other work; beyond it more and smaller calls take longer."""
STRETCH: Final = 1.15
"""How much longer than they should be batches of a chosen size may be, to be even."""
_SPREAD: Final = 1.0
"""Standard deviations by which a first batch stays short of its share, to even out later."""


@dataclass(eq=False)
class PartitionWork:
    """The questions of one partition that have to be asked.

    Attributes:
        asks: distinct questions.
        unresolved: how many of them have neither an answer nor a dead letter yet.
        seconds: from the first call to the last answer, once all are resolved.
    """

    partition: PartitionKey
    asks: Sequence[Ask]
    seconds: float = 0.0
    unresolved: int = field(init=False)

    def __post_init__(self) -> None:
        self.unresolved = len(self.asks)


@dataclass(eq=False)
class Lane:
    """Words of one label type that may share calls: one partition, or several small ones.

    `words` counts all that it has been given, `pending` holds those that wait.
    """

    label_type: str
    pending: deque[Ask] = field(default_factory=deque)
    words: int = 0
    shared: bool = False
    in_flight: int = 0


@dataclass(eq=False)
class Batch:
    """The words of one call."""

    asks: list[Ask]
    lane: Lane
    failures: int = 0


@dataclass(frozen=True)
class Load:
    """What the scheduler knows when it asks for the next batch.

    Attributes:
        slots: calls that may be in flight.
        busy_until: expected seconds from now until each call in flight ends.
        words, tokens: words that no call holds yet, and the expected tokens of their answers.
        mean_tokens, variance: of the answer on one of them.
        first_token, per_token: seconds.
        head_cost, word_cost: what the shared prompt of a call and each word cost, in one unit.
        token_seconds: seconds that tokens per minute will take at least.
        calls_left, calls_per_second: what requests per minute allow now and later.
    """

    slots: int
    busy_until: Sequence[float]
    words: int
    tokens: float
    mean_tokens: float
    variance: float
    first_token: float
    per_token: float
    head_cost: float
    word_cost: float
    token_seconds: float = 0.0
    calls_left: float = math.inf
    calls_per_second: float = 0.0


def batch_words(profile: Profile, load: Load) -> int:
    """How many words the next call should hold.

    `cheap` makes the shared prompt a small part of the cost. `fast` makes all calls end together:
    each free slot gets its share of the words that are left, less one standard deviation, which a
    later, smaller batch takes up. That is factoring, a rule for self-scheduling loops of uneven
    iterations (Hummel, Schonberg and Flynn 1992). Where the limits per minute bind and not the
    latency, larger batches spend fewer tokens and requests on shared prompts; they shrink towards
    the end, for the last call must not outlast the limits.
    """
    amortized = math.ceil(load.head_cost / (_OVERHEAD_SHARE * max(load.word_cost, 1e-12)))
    if profile == "cheap":
        return min(MAX_BATCH_WORDS, max(1, amortized))
    share, end = _share(load)
    per_word = max(load.mean_tokens, 1e-9)
    deviation = math.sqrt(load.variance * share / per_word)
    if load.per_token * deviation * _SPREAD > load.first_token:
        share -= _SPREAD * deviation
    words = max(1.0, share / per_word)
    seconds = max(end, load.token_seconds)
    allowed = min(
        load.calls_left + load.calls_per_second * seconds, _CLIENT_CALLS_PER_SECOND * seconds
    )
    words = max(words, load.words / max(1.0, allowed))
    if load.token_seconds > end:
        # A call that takes a quarter of what is left leaves time to even out.
        short = (load.token_seconds / 4 - load.first_token) / (load.per_token * per_word)
        words = max(words, min(amortized, short))
    return min(MAX_BATCH_WORDS, max(1, round(words)))


def _share(load: Load) -> tuple[float, float]:
    """Tokens that a free slot takes so that all slots end together, and seconds until then."""
    free = max(1, load.slots - len(load.busy_until))
    ready = [0.0] * free + sorted(load.busy_until)
    work = load.tokens * load.per_token
    # Water-filling: slots that are free later count once the level has reached them.
    taken, total = 0, 0.0
    level = 0.0
    for taken, at in enumerate(ready, start=1):
        total += at + load.first_token
        level = (work + total) / taken
        if taken < len(ready) and level <= ready[taken] + load.first_token:
            break
    return max(0.0, (level - load.first_token) / load.per_token), level


@dataclass(frozen=True)
class Reach:
    """What may be packed at one time.

    Attributes:
        words: that wait in lanes that are open or may be; while there are `more` lanes behind them,
            those that such lanes hold at first, since others follow as they empty.
        calls: that these lanes may have in flight.
    """

    words: int
    calls: int
    more: bool


class Packer:
    """Holds the words that wait and packs them into batches.

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
        self._retries: list[tuple[float, int, Batch]] = []
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
        """Take the questions of a partition."""
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
        """What may be packed now, given how many lanes may be open."""
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

    def retry(self, batch: Batch, at: float) -> None:
        """Take a batch back, to be sent again no sooner than at a time."""
        heapq.heappush(self._retries, (at, next(self._order), batch))
        self._retrying += len(batch.asks)
        self._count(batch.asks, 1)

    def split(self, batch: Batch, at: float) -> None:
        """Take a batch back in two halves."""
        middle = (len(batch.asks) + 1) // 2
        for half in (batch.asks[:middle], batch.asks[middle:]):
            self.retry(Batch(half, batch.lane), at)

    def next_retry(self) -> float | None:
        """When the next retry is due."""
        return self._retries[0][0] if self._retries else None

    def has_word(self, now: float) -> bool:
        """Whether a call could be made now."""
        return bool(self._retries and self._retries[0][0] <= now) or self._lane() is not None

    def next(self, words: int, now: float, stretch: float = 1.0) -> Batch | None:
        """The next batch: what is due for a retry, else new words of an open lane.

        Args:
            words: how many new words it should hold.
            now: to tell which retries are due.
            stretch: how much longer it may be, relative to `words`, for a lane's batches to be
                even.
        """
        if self._retries and self._retries[0][0] <= now:
            batch = heapq.heappop(self._retries)[2]
            self._retrying -= len(batch.asks)
            self._count(batch.asks, -1)
            return batch
        lane = self._lane()
        if lane is None:
            return None
        asks = self._take(lane, words, stretch)
        self._count(asks, -1)
        return Batch(asks, lane)

    def started(self, batch: Batch) -> None:
        """Note that a batch is in flight; opens its lane again if it was closed meanwhile."""
        lane = batch.lane
        lane.in_flight += 1
        lanes = self._open.setdefault(lane.label_type, [])
        if lane not in lanes:
            lanes.append(lane)

    def ended(self, batch: Batch) -> None:
        """Note that a batch is not in flight any more; closes a lane that has nothing left."""
        lane = batch.lane
        lane.in_flight -= 1
        if not lane.in_flight and not lane.pending:
            # A closed lane gets no more words; nobody would look for them there.
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
        left.extend(ask for _, _, batch in self._retries for ask in batch.asks)
        for lane in lanes:
            lane.pending.clear()
        self._retries.clear()
        self._retrying = 0
        self._waiting.clear()
        self._shared.clear()
        self._count(left, -1)
        return left

    def _lane(self) -> Lane | None:
        """An open lane with words, the least busy one, or a newly opened one."""
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
        """The first waiting lane that may be opened; it is opened when words are taken from it."""
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
        # Even batches: a full one and a remainder of a few words would take longer than two halves.
        calls = max(1, round(len(lane.pending) / words))
        if math.ceil(len(lane.pending) / calls) > min(MAX_BATCH_WORDS, stretch * words):
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
