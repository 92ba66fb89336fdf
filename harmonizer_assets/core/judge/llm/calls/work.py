"""The partitions that are being judged: what is still open in each of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harmonizer_assets.core.judge.llm.memory.cache import BoughtAnswer
from harmonizer_assets.core.judge.llm.wire.prompt import Ask, Head
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.stages.stage import Chunk


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


class OpenChunks:
    """The chunks of a run; what of them is not finished can be taken once more."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = iter(chunks)
        self._open: dict[PartitionKey, int] = {}

    def take(self) -> Iterator[Chunk]:
        """Iterate over what was taken before and is not finished, then over the other chunks."""
        if self._open:
            yield Chunk(tuple(self._open), dict(self._open))
        for chunk in self._chunks:
            self._open.update((key, chunk.labels[key]) for key in chunk.partitions)
            yield chunk

    def finished(self, partitions: Iterable[PartitionKey]) -> None:
        """Record that partitions are judged."""
        for partition in partitions:
            del self._open[partition]


class OpenWork:
    """Holds partitions until each of their questions is answered or given up.

    `next_finished` returns partitions in the order in which they are finished.
    """

    def __init__(self) -> None:
        self._open: dict[PartitionKey, PartitionWork] = {}
        self._began: dict[PartitionKey, float] = {}
        self._finished: asyncio.Queue[PartitionWork | None] = asyncio.Queue()

    def add(self, work: PartitionWork) -> None:
        """Add a partition; one without questions is finished at once."""
        if work.asks:
            self._open[work.partition] = work
        else:
            self._finished.put_nowait(work)

    def heads(self) -> Iterator[Head]:
        """Iterate over the shared parts of the open partitions' questions."""
        return (work.asks[0].head for work in self._open.values())

    def began(self, asks: Sequence[Ask]) -> None:
        """Record that a call with these questions is in flight."""
        now = time.monotonic()
        for ask in asks:
            self._began.setdefault(ask.partition, now)

    def answered(self, bought: Sequence[BoughtAnswer]) -> None:
        """Add answers that are durable."""
        for one in bought:
            one.ask.answer = one.answer
            self._resolved(one.ask)

    def give_up(self, ask: Ask) -> None:
        """Leave a question without an answer; it becomes a dead letter."""
        ask.given_up = True
        self._resolved(ask)

    def defer(self, asks: Sequence[Ask], reason: str) -> None:
        """Leave questions to a later run."""
        for ask in asks:
            ask.error = reason
            ask.deferred = True
            self.give_up(ask)

    def close(self) -> None:
        """Make `next_finished` return None once all that is finished now has been returned."""
        self._finished.put_nowait(None)

    async def next_finished(self) -> PartitionWork | None:
        """Wait for the next partition that is finished; None when no other follows."""
        return await self._finished.get()

    def _resolved(self, ask: Ask) -> None:
        work = self._open[ask.partition]
        work.unresolved -= 1
        if not work.unresolved:
            del self._open[ask.partition]
            began = self._began.pop(ask.partition, None)
            if began is not None:
                work.seconds = time.monotonic() - began
            self._finished.put_nowait(work)
