"""The verdict cache: every answer that was ever bought, durable before it is used."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.judge import Usage
from harmonizer_assets.core.llm.wire import PROMPT_VERSION, Answer, Ask
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.warehouse import Warehouse

GROUP_SECONDS: Final = 0.1
"""Answers of this long go into one transaction; with the time it takes they wait under 250 ms."""

_BEHIND_SECONDS: Final = 1.0
"""When answers have waited this long for the store, no further ones are bought."""

_VERDICT_SCHEMA: Final = pa.schema(
    [
        ("verdict_key", pa.string()),
        ("model", pa.string()),
        ("prompt_version", pa.string()),
        ("label_type", pa.string()),
        ("merchant_key", pa.string()),
        ("word_text", pa.string()),
        ("is_outlier", pa.bool_()),
        ("suggested_label", pa.string()),
        ("confidence", pa.float64()),
        ("reasoning", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)

_STORE: Final = """
INSERT INTO llm_verdicts BY NAME SELECT * FROM answers ANTI JOIN llm_verdicts USING (verdict_key)
"""

_LOOKUP: Final = """
SELECT verdict_key, is_outlier, suggested_label, confidence, reasoning
FROM llm_verdicts SEMI JOIN wanted USING (verdict_key)
"""

_ADD_USAGE: Final = """
UPDATE llm_usage u SET
    calls = u.calls + n.calls, words_asked = u.words_asked + n.words_asked,
    cache_hits = u.cache_hits + n.cache_hits,
    skipped_by_similarity = u.skipped_by_similarity + n.skipped_by_similarity,
    prompt_tokens = u.prompt_tokens + n.prompt_tokens,
    cached_tokens = u.cached_tokens + n.cached_tokens,
    completion_tokens = u.completion_tokens + n.completion_tokens,
    cost_usd = u.cost_usd + n.cost_usd,
    retries = u.retries + n.retries, rate_limited = u.rate_limited + n.rate_limited,
    wall_seconds = u.wall_seconds + n.wall_seconds
FROM used n
WHERE (u.run_id, u.label_type, u.merchant_key) = (n.run_id, n.label_type, n.merchant_key)
"""

_NEW_USAGE: Final = """
INSERT INTO llm_usage BY NAME
SELECT * FROM used n ANTI JOIN llm_usage USING (run_id, label_type, merchant_key)
"""


@dataclass(frozen=True)
class BoughtAnswer:
    """An answer to one question, with what it cost."""

    ask: Ask
    answer: Answer
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


UsageByPartition = dict[PartitionKey, Usage]


def look_up(con: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> dict[str, Answer]:
    """The stored answers among these verdict keys, found in one query."""
    if not keys:
        return {}
    con.register("wanted", pa.table({"verdict_key": pa.array(keys, pa.string())}))
    found = con.execute(_LOOKUP).fetchall()
    con.unregister("wanted")
    return {key: Answer(*values) for key, *values in found}


def add_usage(con: duckdb.DuckDBPyConnection, run_id: str, used: UsageByPartition) -> None:
    """Add to what a run has used, per label type and merchant."""
    if not used:
        return
    rows = [{"run_id": run_id, **key._asdict(), **vars(usage)} for key, usage in used.items()]
    con.register("used", pa.Table.from_pylist(rows))
    # New rows last, or the update would count them twice.
    con.execute(_ADD_USAGE)
    con.execute(_NEW_USAGE)
    con.unregister("used")


class VerdictStore:
    """Commits answers in groups; an answer may be used once its group is committed.

    While one group is being committed the next one gathers. When the database cannot keep up,
    `behind` says so, and nothing more should be bought.
    """

    def __init__(self, warehouse: Warehouse, model: str, run_id: str) -> None:
        self._warehouse = warehouse
        self._model = model
        self._run_id = run_id
        self._bought: list[BoughtAnswer] = []
        self._used: UsageByPartition = {}
        self._oldest: float | None = None
        self._arrived = asyncio.Event()
        self._commit = asyncio.Lock()

    @property
    def behind(self) -> bool:
        """Whether answers wait too long for the database."""
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
        """Commit groups until canceled; `stored` is called with the answers of each.

        Raises:
            StoreError: the database cannot be written.
        """
        while True:
            await self._arrived.wait()
            await asyncio.sleep(GROUP_SECONDS)
            stored(await self.flush())

    async def flush(self) -> Sequence[BoughtAnswer]:
        """Commit what has gathered; the answers that are durable now."""
        async with self._commit:
            bought, used = self._bought, self._used
            if not bought and not used:
                return []
            self._bought, self._used = [], {}
            self._arrived.clear()
            await asyncio.to_thread(self._write, bought, used)
            # What came in meanwhile is at most as old as this transaction.
            self._oldest = time.monotonic() if self._bought else None
            return bought

    def _write(self, bought: Sequence[BoughtAnswer], used: UsageByPartition) -> None:
        answers = self._rows(bought)

        def commit(con: duckdb.DuckDBPyConnection) -> None:
            if answers.num_rows:
                con.register("answers", answers)
                con.execute(_STORE)
            add_usage(con, self._run_id, used)

        self._warehouse.write(commit)

    def _rows(self, bought: Sequence[BoughtAnswer]) -> pa.Table:
        now = dt.datetime.now(dt.UTC)
        rows: list[dict[str, Any]] = [
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
        return pa.Table.from_pylist(rows, _VERDICT_SCHEMA)
