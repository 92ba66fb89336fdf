"""Answers become durable before they are used."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from harmonizer_assets.core.judge import Usage
from harmonizer_assets.core.llm.cache import BoughtAnswer, UsageByPartition
from harmonizer_assets.core.llm.journal import Journal
from harmonizer_assets.core.llm.wire import PROMPT_VERSION

GROUP_SECONDS: Final = 0.02
"""Answers of this long are written together; with the time it takes they wait under 250 ms."""

_BEHIND_SECONDS: Final = 1.0
"""When answers have waited this long for the disk, no further ones are bought."""


class VerdictStore:
    """Makes answers durable in groups; an answer may be used once its group is.

    While one group is being written the next one gathers. When the disk cannot keep up, `behind`
    says so, and nothing more should be bought.
    """

    def __init__(self, journal: Journal, model: str) -> None:
        self._journal = journal
        self._model = model
        self._bought: list[BoughtAnswer] = []
        self._used: UsageByPartition = {}
        self._oldest: float | None = None
        self._arrived = asyncio.Event()
        self._writing = asyncio.Lock()

    @property
    def behind(self) -> bool:
        """Whether answers wait too long for the disk."""
        return self._oldest is not None and time.monotonic() - self._oldest > _BEHIND_SECONDS

    def add(self, bought: Sequence[BoughtAnswer], used: UsageByPartition) -> None:
        """Take answers, and what was used for them, into the next group."""
        self._bought.extend(bought)
        for key, usage in used.items():
            self._used.setdefault(key, Usage()).add(usage)
        if self._oldest is None:
            self._oldest = time.monotonic()
        self._arrived.set()

    async def run(self, stored: Callable[[Sequence[BoughtAnswer]], None]) -> None:
        """Write groups until canceled; `stored` is called with the answers of each.

        Raises:
            StoreError: the disk cannot be written.
        """
        while True:
            await self._arrived.wait()
            await asyncio.sleep(GROUP_SECONDS)
            stored(await self.flush())

    async def flush(self) -> Sequence[BoughtAnswer]:
        """Write what has gathered; the answers that are durable now."""
        async with self._writing:
            bought, used = self._bought, self._used
            if not bought and not used:
                return []
            self._bought, self._used = [], {}
            self._arrived.clear()
            await asyncio.to_thread(self._journal.append, self._rows(bought), used)
            # What came in meanwhile is at most as old as this write.
            self._oldest = time.monotonic() if self._bought else None
            return bought

    def _rows(self, bought: Sequence[BoughtAnswer]) -> list[dict[str, Any]]:
        now = dt.datetime.now(dt.UTC).isoformat()
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
