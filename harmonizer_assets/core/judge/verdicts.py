"""Verdicts of partitions: the stage that they belong to, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    LABEL_KEY,
    WORD_KEY,
    DeadLetter,
    LabelKey,
    Verdict,
    qualified,
)
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.score.unknown import NO_WORD
from harmonizer_assets.core.stages.stage import Stage, partition_table
from harmonizer_assets.core.stages.state import invalidate
from harmonizer_assets.core.store.numbers import newest_first
from harmonizer_assets.core.store.warehouse import replace_partitions

ASSET: Final = "llm_verdicts"
DOWNSTREAM: Final = ("outliers",)
"""Assets that are computed from the verdicts."""

_OUTCOMES = """
SELECT label_type, merchant_key,
    CASE WHEN is_outlier THEN 'outlier' WHEN is_outlier IS NULL THEN 'unresolved' ELSE 'valid' END,
    count(*)
FROM judgements SEMI JOIN chunk USING (label_type, merchant_key) GROUP BY ALL
"""

NOT_ASKED: Final = (
    "not asked: without a guarantee only the most suspicious labels are; validate those that "
    "`harmonizer next` names, and some at random"
)

_DEAD_PARTITIONS: Final = f"""
CREATE OR REPLACE TEMP TABLE dead_partitions AS
SELECT DISTINCT l.label AS label_type, l.merchant_key
FROM dead_letters d JOIN labels l USING ({LABEL_COLUMNS})
WHERE d.stage = $1
ORDER BY ALL
"""

_QUARANTINED_WORDS: Final = "row->>'$.image_id' AS image_id, " + ", ".join(
    f"TRY_CAST(TRY_CAST(row->>'$.{column}' AS DOUBLE) AS BIGINT) AS {column}"
    for column in WORD_KEY[1:]
)
# A word may be missing because it is quarantined: whoever looks at its labels learns why.
_PASS_ON_WHY: Final = f"""
UPDATE judgements j
SET reasoning = 'the labelled word is quarantined: ' || q.reason
    || ' (' || q.file || ', ' || coalesce(q.source_row, 'row ' || q.row_number) || ')'
FROM (
    SELECT {_QUARANTINED_WORDS}, reason, file, row_number, source_row
    FROM quarantine WHERE table_name = 'words' AND json_type(row) = 'OBJECT'
    QUALIFY row_number() OVER (
        PARTITION BY {", ".join(WORD_KEY)} ORDER BY {newest_first("quarantined_at")}) = 1
) q
WHERE j.reasoning = $not_arrived
    AND {" AND ".join(f"j.{column} = q.{column}" for column in WORD_KEY)}
"""

USAGE_METRICS: Final = """
SELECT label_type, merchant_key, calls, words_asked, cache_hits, prompt_tokens, completion_tokens,
    cost_usd, retries, rate_limited, wall_seconds
FROM llm_usage SEMI JOIN chunk USING (label_type, merchant_key) WHERE run_id = $run_id
"""


def verdict_stage(scoring: Stage, judge_identity: str) -> Stage:
    """Describe the stage; its rows depend on the scores and on the judge."""
    identity = f"{scoring.identity}\n{judge_identity}"
    return Stage(
        ASSET,
        identity,
        _OUTCOMES,
        upstream=("similarity_matches",),
        downstream=DOWNSTREAM,
        metrics=USAGE_METRICS,
    )


@dataclass
class PartitionVerdicts:
    """The verdicts on one partition's questions, one for each, and the dead letters."""

    partition: PartitionKey
    verdicts: list[Verdict] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)


def unresolved(keys: Iterable[LabelKey], because: str) -> list[Verdict]:
    """Make the verdicts on labels that no judge is asked about, with the reason."""
    return [Verdict(key, None, "unresolved", reasoning=because) for key in keys]


def write_verdicts(con: duckdb.DuckDBPyConnection, made: Sequence[PartitionVerdicts]) -> None:
    """Replace the verdicts, in `judgements`, and dead letters of exactly these partitions."""
    rows = _verdict_rows(made)
    partitions = partition_table(one.partition for one in made)
    replace_partitions(con, "judgements", partitions, rows)
    if any(verdict.reasoning == NO_WORD for one in made for verdict in one.verdicts):
        con.execute(_PASS_ON_WHY, {"not_arrived": NO_WORD})
    letters = [letter for one in made for letter in one.dead_letters]
    _write_dead_letters(con, partitions, letters)


def requeue_dead_letters(con: duckdb.DuckDBPyConnection) -> list[PartitionKey]:
    """Invalidate the partitions that hold dead letters, so that they are asked again.

    The dead letters themselves stay until their words are answered.
    """
    con.execute(_DEAD_PARTITIONS, [ASSET])
    found = [PartitionKey(*row) for row in con.execute("FROM dead_partitions").fetchall()]
    invalidate(con, [ASSET, *DOWNSTREAM], "dead_partitions")
    con.execute("DROP TABLE dead_partitions")
    return found


def _verdict_rows(made: Sequence[PartitionVerdicts]) -> pa.Table:
    verdicts = [verdict for one in made for verdict in one.verdicts]
    merchants = [one.partition.merchant_key for one in made for _ in one.verdicts]

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([getattr(verdict, name) for verdict in verdicts], kind)

    keys = [verdict.key for verdict in verdicts]
    return pa.table(
        {
            **_key_columns(keys),
            "label_type": pa.array([key.label for key in keys], pa.string()),
            "merchant_key": pa.array(merchants, pa.string()),
            "is_outlier": column("is_outlier", pa.bool_()),
            "decided_by": column("decided_by", pa.string()),
            "suggested_label": column("suggested_label", pa.string()),
            "confidence": column("confidence", pa.float64()),
            "reasoning": column("reasoning", pa.string()),
            "verdict_key": column("verdict_key", pa.string()),
            "suggestion_confidence": column("suggestion_confidence", pa.float64()),
        }
    )


def _key_columns(keys: Sequence[LabelKey]) -> dict[str, pa.Array]:
    kinds = {"image_id": pa.string(), "label": pa.string()}
    return {
        name: pa.array([getattr(key, name) for key in keys], kinds.get(name, pa.int64()))
        for name in LABEL_KEY
    }


def _write_dead_letters(
    con: duckdb.DuckDBPyConnection, partitions: pa.Table, letters: Sequence[DeadLetter]
) -> None:
    con.register("chunk", partitions)
    con.register(
        "letters",
        pa.table(
            {
                **_key_columns([letter.key for letter in letters]),
                "error": pa.array([letter.error for letter in letters], pa.string()),
                "attempts": pa.array([letter.attempts for letter in letters], pa.int64()),
            }
        ),
    )
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE dead AS
        SELECT n.*, o.first_failed_at, coalesce(o.attempts, 0) AS earlier
        FROM letters n LEFT JOIN dead_letters o
            ON ({qualified("n", LABEL_KEY)})
            = ({qualified("o", LABEL_KEY)}) AND o.stage = $1
        """,
        [ASSET],
    )
    con.execute(
        f"""
        DELETE FROM dead_letters WHERE stage = $1
            AND ({LABEL_COLUMNS}) IN (
                SELECT ({qualified("l", LABEL_KEY)})
                FROM labels l
                JOIN chunk c ON l.label = c.label_type AND l.merchant_key = c.merchant_key)
        """,
        [ASSET],
    )
    con.execute(
        f"""
        INSERT INTO dead_letters BY NAME
        SELECT {LABEL_COLUMNS}, $1 AS stage, error,
            earlier + attempts AS attempts, coalesce(first_failed_at, now()) AS first_failed_at,
            now() AS last_failed_at
        FROM dead
        """,
        [ASSET],
    )
    con.execute("DROP TABLE dead")
