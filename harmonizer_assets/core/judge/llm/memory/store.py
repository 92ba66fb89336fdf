"""Store answers durably before they are used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from harmonizer_assets.core.base.aio import to_end
from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.judge.llm.memory.cache import BoughtAnswer
from harmonizer_assets.core.judge.llm.memory.journal import Journal
from harmonizer_assets.core.judge.llm.memory.shared.sharing import Sharing
from harmonizer_assets.core.judge.llm.money.ledger import Spent
from harmonizer_assets.core.judge.llm.money.shares import UsageByPartition
from harmonizer_assets.core.judge.llm.wire.prompt import PROMPT_VERSION
from harmonizer_assets.core.records.label import Usage

GROUP_SECONDS: Final = 0.02
"""Seconds for which answers are gathered; with the writing they wait under 250 ms."""

_BEHIND_SECONDS: Final = 1.0
"""When answers have waited this many seconds for the disk, no further calls are sent."""


@dataclass(frozen=True)
class CallSpent:
    """What one call has spent, by the number that `AnswerStore.sends` gave it."""

    number: int
    spent: Spent


class AnswerStore:
    """Makes answers durable in groups; an answer may be used once its group is.

    While one group is being written the next one is gathered. When the disk cannot keep up,
    `behind` is true, and no further calls should be sent.
    """

    def __init__(self, journal: Journal, model: str, shared: Sharing | None = None) -> None:
        """Gather nothing yet.

        Args:
            journal: of the run.
            model: that answers.
            shared: where other homes find what is bought; None where no answers are shared.
        """
        self._journal = journal
        self._model = model
        self._shared = shared
        self._bought: list[BoughtAnswer] = []
        self._found: list[BoughtAnswer] = []
        self._used: UsageByPartition = {}
        self._spent: list[CallSpent] = []
        self._sent = 0
        self._unstored = 0
        self._oldest: float | None = None
        self._arrived = asyncio.Event()
        self._writing = asyncio.Lock()

    @property
    def behind(self) -> bool:
        """Return whether answers wait too long for the disk."""
        return self._oldest is not None and time.monotonic() - self._oldest > _BEHIND_SECONDS

    @property
    def unstored(self) -> int:
        """Return how many calls have ended whose answers are not durable yet."""
        return self._unstored

    def sends(self, most: Spent) -> int:
        """Note what a call may cost at most that is about to be sent; return its number.

        Raises:
            StoreError: the disk cannot be written.
        """
        self._sent += 1
        self._journal.sends(self._sent, most)
        return self._sent

    def add(self, bought: Sequence[BoughtAnswer], used: UsageByPartition, spent: CallSpent) -> None:
        """Add the answers of a call, their usage and what was spent to the next group."""
        self._bought.extend(bought)
        self._spent.append(spent)
        self._unstored += 1
        for key, usage in used.items():
            self._used.setdefault(key, Usage()).add(usage)
        if self._oldest is None:
            self._oldest = time.monotonic()
        self._arrived.set()

    def add_found(self, found: Sequence[BoughtAnswer]) -> None:
        """Add answers that others have bought to the next group."""
        if found:
            self._found.extend(found)
            self._arrived.set()

    async def run(self, stored: Callable[[list[BoughtAnswer]], None]) -> None:
        """Write groups until canceled; `stored` is called with the answers of each.

        Raises:
            StoreError: the disk cannot be written.
        """
        while True:
            await self._arrived.wait()
            await asyncio.sleep(GROUP_SECONDS)
            stored(await self.flush())

    async def flush(self) -> list[BoughtAnswer]:
        """Write the gathered answers; return those that are durable now.

        Raises:
            StoreError: the disk or the shared cache cannot be written.
            asyncio.CancelledError: the caller was cancelled; a write that had begun has ended.
        """
        async with self._writing:
            bought, used, spent, found = self._bought, self._used, self._spent, self._found
            if not spent and not found:
                return []
            self._bought, self._used, self._spent, self._found = [], {}, [], []
            self._arrived.clear()
            total = sum((one.spent for one in spent), Spent())
            ended = [one.number for one in spent]
            rows = self._rows([*bought, *found])
            await to_end(partial(self._journal.append, rows, used, total, ended))
            self._unstored -= len(spent)
            # What came in meanwhile is at most as old as this write.
            self._oldest = time.monotonic() if self._spent else None
            if self._shared is not None:
                await self._shared.put(bought)
            return [*bought, *found]

    def _rows(self, bought: Sequence[BoughtAnswer]) -> list[dict[str, Any]]:
        now = utc_now().isoformat()
        return [
            {
                "verdict_key": one.ask.verdict_key,
                "model": self._model,
                "prompt_version": PROMPT_VERSION,
                "label_type": one.ask.head.label_type,
                "merchant_key": one.ask.merchant_key,
                "word_text": one.ask.word_text,
                "prompt_tokens": one.prompt_tokens,
                "completion_tokens": one.completion_tokens,
                "cost_usd": one.cost_usd,
                "created_at": now,
                **vars(one.answer),
            }
            for one in bought
        ]
