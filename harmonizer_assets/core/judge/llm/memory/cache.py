"""The answer cache: every answer that was ever paid for, in the table `llm_verdicts`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.judge.llm.money.shares import UsageByPartition
from harmonizer_assets.core.judge.llm.wire.answers import Answer
from harmonizer_assets.core.judge.llm.wire.prompt import Ask
from harmonizer_assets.core.judge.verdicts import ASSET, DOWNSTREAM
from harmonizer_assets.core.stages.state import invalidate
from harmonizer_assets.core.store.numbers import next_number

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

_NEW: Final = """
CREATE OR REPLACE TEMP TABLE new_answers AS
SELECT * FROM answers ANTI JOIN llm_verdicts USING (verdict_key)
"""
_STORE: Final = f"""
INSERT INTO llm_verdicts BY NAME
SELECT *, {next_number("llm_verdicts")} AS number FROM new_answers
"""

_LOOKUP: Final = """
SELECT verdict_key, is_outlier, suggested_label, confidence, reasoning
FROM llm_verdicts SEMI JOIN wanted USING (verdict_key)
UNION ALL
SELECT a.verdict_key, v.is_outlier, v.suggested_label, v.confidence, v.reasoning
FROM answer_aliases a SEMI JOIN wanted USING (verdict_key)
JOIN llm_verdicts v ON v.verdict_key = a.answered_by
WHERE a.verdict_key NOT IN (SELECT verdict_key FROM llm_verdicts)
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
    estimated_calls = coalesce(u.estimated_calls, 0) + n.estimated_calls,
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


def look_up(con: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> dict[str, Answer]:
    """Look up the stored answers among these verdict keys, in one query."""
    if not keys:
        return {}
    con.register("wanted", pa.table({"verdict_key": pa.array(keys, pa.string())}))
    found = con.execute(_LOOKUP).fetchall()
    con.unregister("wanted")
    return {key: Answer(*values) for key, *values in found}


def in_batch_jobs(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Return the verdict keys that batch jobs are to answer."""
    return {key for (key,) in con.execute("SELECT verdict_key FROM llm_batch_items").fetchall()}


def store_answers(
    con: duckdb.DuckDBPyConnection, rows: Sequence[Mapping[str, Any]], run_id: str = ""
) -> None:
    """Add rows to `llm_verdicts`, inside a transaction; a key that is there stays as it is.

    Partitions with new answers become stale, so that whichever run comes next uses them.

    Args:
        con: a connection inside a transaction.
        rows: of `llm_verdicts`.
        run_id: the run that bought them and uses them itself.
    """
    if not rows:
        return
    moments = [dt.datetime.fromisoformat(row["created_at"]) for row in rows]
    by_key = {
        row["verdict_key"]: {**row, "created_at": moment}
        for row, moment in zip(rows, moments, strict=True)
    }
    con.register("answers", pa.Table.from_pylist(list(by_key.values()), _VERDICT_SCHEMA))
    con.execute(_NEW)
    con.execute(_STORE)
    invalidate(con, [ASSET, *DOWNSTREAM], "new_answers", by_run=run_id)
    con.execute("DROP TABLE new_answers")
    con.unregister("answers")


def add_usage(con: duckdb.DuckDBPyConnection, run_id: str, used: UsageByPartition) -> None:
    """Add to the usage of a run, per label type and merchant."""
    if not used:
        return
    rows = [{"run_id": run_id, **key._asdict(), **vars(usage)} for key, usage in used.items()]
    con.register("used", pa.Table.from_pylist(rows))
    # New rows last, or the update would count them twice.
    con.execute(_ADD_USAGE)
    con.execute(_NEW_USAGE)
    con.unregister("used")
