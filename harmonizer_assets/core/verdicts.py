"""The `llm_verdicts` stage: a judge decides the labels that similarity leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.judge import (
    DeadLetter,
    Judge,
    LabelKey,
    OfflineJudge,
    Question,
    Usage,
    Verdict,
)
from harmonizer_assets.core.openai_judge import OpenAIJudge
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.settings import JudgeName, JudgeSettings
from harmonizer_assets.core.stages import Chunk, ChunkRows, Stage, merchant_fingerprints
from harmonizer_assets.core.taxonomy import Taxonomy
from harmonizer_assets.core.warehouse import Warehouse

ASSET: Final = "llm_verdicts"

_OUTCOMES = """
SELECT label_type, merchant_key,
    CASE WHEN is_outlier THEN 'outlier' WHEN is_outlier IS NULL THEN 'unresolved' ELSE 'valid' END,
    count(*)
FROM judgements SEMI JOIN chunk USING (label_type, merchant_key) GROUP BY ALL
"""

_QUESTIONS = """
SELECT s.image_id, s.receipt_id, s.line_id, s.word_id, s.label, s.merchant_key,
    l.merchant_name, w.text AS word_text, s.outlier_score, s.label_probability, s.competing_label,
    s.competing_probability,
    s.merchant_for + s.merchant_against + s.corpus_for + s.corpus_against AS support
FROM similarity_matches s SEMI JOIN chunk USING (label_type, merchant_key)
JOIN labels l USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
LEFT JOIN words w USING (image_id, receipt_id, line_id, word_id)
WHERE s.triage = 'ambiguous'
ORDER BY s.merchant_key, s.label, s.image_id, s.receipt_id, s.line_id, s.word_id
"""

_LINES = """
SELECT w.image_id, w.receipt_id, w.line_id, string_agg(w.text, ' ' ORDER BY w.x, w.word_id)
FROM words w
SEMI JOIN (
    SELECT image_id, receipt_id, line_id
    FROM similarity_matches SEMI JOIN chunk USING (label_type, merchant_key)
    WHERE triage = 'ambiguous'
) USING (image_id, receipt_id, line_id)
GROUP BY ALL
"""

_EXAMPLES_PER_TYPE: Final = 5
_EXAMPLES = f"""
WITH texts AS (
    SELECT l.merchant_key, l.label, w.text, count(*) AS uses
    FROM labels l JOIN words w USING (image_id, receipt_id, line_id, word_id)
    WHERE l.validation_status = 'VALID' AND l.merchant_key IN (SELECT merchant_key FROM chunk)
    GROUP BY ALL
)
SELECT merchant_key, label, list(text ORDER BY uses DESC, text)[:{_EXAMPLES_PER_TYPE}]
FROM texts GROUP BY merchant_key, label
"""

_SKIPPED = """
SELECT label_type, merchant_key, count(*) FILTER (WHERE triage <> 'ambiguous')
FROM similarity_matches SEMI JOIN chunk USING (label_type, merchant_key) GROUP BY ALL
"""


def make_judge(
    name: JudgeName, settings: JudgeSettings, taxonomy: Taxonomy, warehouse: Warehouse
) -> Judge:
    """Make the judge of that name.

    Raises:
        ConfigurationError: it needs a key that the environment does not hold.
    """
    if name == "openai":
        return OpenAIJudge(settings, taxonomy, warehouse)
    return OfflineJudge()


def verdict_stage(scoring: Stage, judge: Judge) -> Stage:
    """The stage: its rows depend on the scores and on who judges."""
    return Stage(ASSET, f"{scoring.identity}\n{judge.identity}", _OUTCOMES)


class QuestionJudging:
    """Puts the ambiguous labels of chunks before a judge and keeps what it decides."""

    def __init__(self, warehouse: Warehouse, judge: Judge, run_id: str) -> None:
        self._warehouse = warehouse
        self._judge = judge
        self._run_id = run_id
        self._asks_model = not isinstance(judge, OfflineJudge)

    def judge(self, chunk: Chunk) -> ChunkRows:
        """Judge the chunk's ambiguous labels.

        Raises:
            JudgeError: the judge can answer no question at all; what it answered before is kept.
        """
        unread, questions, skipped, fingerprints = self._warehouse.read(
            lambda con: self._read(con, chunk)
        )
        judged = self._judge.decide(questions)
        verdicts = [*judged.verdicts, *(_without_word(key) for key, _ in unread)]
        merchants = {question.key: question.merchant_key for question in questions}
        merchants.update(unread)
        rows = _judgement_rows(verdicts, merchants)
        usage = [
            (partition, judged.usage.get(partition, Usage()), skipped.get(partition, 0))
            for partition in chunk.partitions
            if self._asks_model
        ]

        def write(con: duckdb.DuckDBPyConnection) -> None:
            self._warehouse.replace_partitions(con, "judgements", chunk.table(), rows)
            _write_dead_letters(con, chunk, judged.dead_letters)
            _write_usage(con, self._run_id, usage)

        # A dead letter is asked again by the next run, so its partition is not finished.
        incomplete = frozenset(
            PartitionKey(letter.key.label, merchants[letter.key]) for letter in judged.dead_letters
        )
        return ChunkRows(fingerprints, write, incomplete)

    def _read(
        self, con: duckdb.DuckDBPyConnection, chunk: Chunk
    ) -> tuple[
        list[tuple[LabelKey, str]],
        list[Question],
        dict[tuple[str, str], int],
        dict[str, str],
    ]:
        con.register("chunk", chunk.table())
        lines: dict[tuple[str, int, int], str] = {}
        examples: dict[tuple[str, str], tuple[str, ...]] = {}
        if self._asks_model:
            lines = {(i, r, n): text for i, r, n, text in con.execute(_LINES).fetchall()}
            examples = {(m, t): tuple(texts) for m, t, texts in con.execute(_EXAMPLES).fetchall()}
        unread, questions = [], []
        for row in con.execute(_QUESTIONS).to_arrow_table().to_pylist():
            key = LabelKey(*(row.pop(name) for name in LabelKey._fields))
            if row["word_text"] is None or row["competing_label"] is None:
                unread.append((key, row["merchant_key"]))
                continue
            merchant, competing = row["merchant_key"], row["competing_label"]
            questions.append(
                Question(
                    key,
                    **row,
                    line=lines.get(key[:3], ""),
                    examples=examples.get((merchant, key.label), ()),
                    competing_examples=examples.get((merchant, competing), ()),
                )
            )
        skipped = {(t, m): n for t, m, n in con.execute(_SKIPPED).fetchall()}
        return unread, questions, skipped, merchant_fingerprints(con, chunk.merchants)


def _without_word(key: LabelKey) -> Verdict:
    return Verdict(
        key, None, "unresolved", reasoning="the labelled word has not arrived with any batch"
    )


def _judgement_rows(verdicts: Sequence[Verdict], merchants: dict[LabelKey, str]) -> pa.Table:
    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([getattr(verdict, name) for verdict in verdicts], kind)

    keys = [verdict.key for verdict in verdicts]
    return pa.table(
        {
            **_key_columns(keys),
            "label_type": pa.array([key.label for key in keys], pa.string()),
            "merchant_key": pa.array([merchants[key] for key in keys], pa.string()),
            "is_outlier": column("is_outlier", pa.bool_()),
            "decided_by": column("decided_by", pa.string()),
            "suggested_label": column("suggested_label", pa.string()),
            "confidence": column("confidence", pa.float64()),
            "reasoning": column("reasoning", pa.string()),
            "verdict_key": column("verdict_key", pa.string()),
        }
    )


def _key_columns(keys: Sequence[LabelKey]) -> dict[str, pa.Array]:
    kinds = {"image_id": pa.string(), "label": pa.string()}
    return {
        name: pa.array([getattr(key, name) for key in keys], kinds.get(name, pa.int64()))
        for name in LabelKey._fields
    }


def _write_dead_letters(
    con: duckdb.DuckDBPyConnection, chunk: Chunk, letters: Sequence[DeadLetter]
) -> None:
    con.register("chunk", chunk.table())
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


def _write_usage(
    con: duckdb.DuckDBPyConnection,
    run_id: str,
    usage: Sequence[tuple[PartitionKey, Usage, int]],
) -> None:
    if not usage:
        return
    rows: list[dict[str, Any]] = [
        {
            "run_id": run_id,
            **partition._asdict(),
            "skipped_by_similarity": skipped,
            **vars(used),
        }
        for partition, used, skipped in usage
    ]
    con.register("used", pa.Table.from_pylist(rows))
    con.execute("INSERT INTO llm_usage BY NAME SELECT * FROM used")
