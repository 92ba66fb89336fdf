"""The `llm_verdicts` stage: a judge decides the labels that similarity leaves open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.judge import DeadLetter, LabelKey, OfflineJudge, Verdict
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.questions import read_questions
from harmonizer_assets.core.stages import Chunk, ChunkRows, Stage, outdate, partition_table
from harmonizer_assets.core.warehouse import Warehouse

ASSET: Final = "llm_verdicts"

_OUTCOMES = """
SELECT label_type, merchant_key,
    CASE WHEN is_outlier THEN 'outlier' WHEN is_outlier IS NULL THEN 'unresolved' ELSE 'valid' END,
    count(*)
FROM judgements SEMI JOIN chunk USING (label_type, merchant_key) GROUP BY ALL
"""


_DEAD_PARTITIONS = """
CREATE OR REPLACE TEMP TABLE dead_partitions AS
SELECT DISTINCT l.label AS label_type, l.merchant_key
FROM dead_letters d JOIN labels l USING (image_id, receipt_id, line_id, word_id, label)
WHERE d.stage = $1
ORDER BY ALL
"""

USAGE_METRICS: Final = """
SELECT label_type, merchant_key, calls, words_asked, cache_hits, prompt_tokens, completion_tokens,
    cost_usd, retries, rate_limited, wall_seconds
FROM llm_usage SEMI JOIN chunk USING (label_type, merchant_key) WHERE run_id = $run_id
"""


def verdict_stage(scoring: Stage, judge_identity: str) -> Stage:
    """The stage: its rows depend on the scores and on who judges."""
    identity = f"{scoring.identity}\n{judge_identity}"
    return Stage(
        ASSET,
        identity,
        _OUTCOMES,
        upstream=("similarity_matches",),
        downstream=("outliers",),
        metrics=USAGE_METRICS,
    )


@dataclass
class PartitionVerdicts:
    """What became of one partition's questions; each has exactly one verdict."""

    partition: PartitionKey
    verdicts: list[Verdict] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)


class OfflineJudging:
    """Puts the ambiguous labels of chunks before the offline judge."""

    def __init__(self, warehouse: Warehouse, judge: OfflineJudge) -> None:
        self._warehouse = warehouse
        self._judge = judge

    def judge(self, chunk: Chunk) -> ChunkRows:
        """Judge the chunk's ambiguous labels."""
        asked = self._warehouse.read(lambda con: read_questions(con, chunk))
        judged = [
            PartitionVerdicts(
                partition,
                [*self._judge.decide(questions), *without_word(asked.without_word[partition])],
            )
            for partition, questions in asked.questions.items()
        ]

        def write(con: duckdb.DuckDBPyConnection) -> None:
            write_verdicts(con, self._warehouse, judged)

        return ChunkRows(asked.fingerprints, write)


def without_word(keys: Iterable[LabelKey]) -> list[Verdict]:
    """The verdicts on labels whose word is not there."""
    return [
        Verdict(
            key, None, "unresolved", reasoning="the labelled word has not arrived with any batch"
        )
        for key in keys
    ]


def write_verdicts(
    con: duckdb.DuckDBPyConnection, warehouse: Warehouse, judged: Sequence[PartitionVerdicts]
) -> None:
    """Replace the judgements and dead letters of exactly these partitions."""
    rows = _judgement_rows(judged)
    partitions = partition_table(one.partition for one in judged)
    warehouse.replace_partitions(con, "judgements", partitions, rows)
    letters = [letter for one in judged for letter in one.dead_letters]
    _write_dead_letters(con, partitions, letters)


def requeue_dead_letters(con: duckdb.DuckDBPyConnection) -> list[PartitionKey]:
    """Take the partitions that hold dead letters as not up to date, so that they are asked again.

    The dead letters themselves stay until their words are answered.
    """
    con.execute(_DEAD_PARTITIONS, [ASSET])
    found = [PartitionKey(*row) for row in con.execute("FROM dead_partitions").fetchall()]
    outdate(con, [ASSET, "outliers"], "dead_partitions")
    con.execute("DROP TABLE dead_partitions")
    return found


def _judgement_rows(judged: Sequence[PartitionVerdicts]) -> pa.Table:
    verdicts = [verdict for one in judged for verdict in one.verdicts]
    merchants = [one.partition.merchant_key for one in judged for _ in one.verdicts]

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
        for name in LabelKey._fields
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
        """
        CREATE OR REPLACE TEMP TABLE dead AS
        SELECT n.*, o.first_failed_at, coalesce(o.attempts, 0) AS earlier
        FROM letters n LEFT JOIN dead_letters o
            ON (n.image_id, n.receipt_id, n.line_id, n.word_id, n.label)
            = (o.image_id, o.receipt_id, o.line_id, o.word_id, o.label) AND o.stage = $1
        """,
        [ASSET],
    )
    con.execute(
        """
        DELETE FROM dead_letters WHERE stage = $1
            AND (image_id, receipt_id, line_id, word_id, label) IN (
                SELECT (l.image_id, l.receipt_id, l.line_id, l.word_id, l.label)
                FROM labels l
                JOIN chunk c ON l.label = c.label_type AND l.merchant_key = c.merchant_key)
        """,
        [ASSET],
    )
    con.execute(
        """
        INSERT INTO dead_letters BY NAME
        SELECT image_id, receipt_id, line_id, word_id, label, $1 AS stage, error,
            earlier + attempts AS attempts, coalesce(first_failed_at, now()) AS first_failed_at,
            now() AS last_failed_at
        FROM dead
        """,
        [ASSET],
    )
    con.execute("DROP TABLE dead")
