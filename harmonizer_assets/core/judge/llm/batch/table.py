"""Batch jobs in the tables: `llm_batches`, and in `llm_batch_items` the words that they hold."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Self

import duckdb
import pyarrow as pa

from harmonizer_assets.core.base.sql import text_list, texts_in
from harmonizer_assets.core.judge.llm.money.ledger import forget
from harmonizer_assets.core.judge.llm.wire.prompt import Ask
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.stages.stage import partition_table
from harmonizer_assets.core.store.warehouse import Warehouse

SUBMITTING: Final = "submitting"
GIVEN_UP: Final = "given up"
"""The endpoint does not know the job; what it may have cost is kept."""
OPEN: Final = (SUBMITTING, "validating", "in_progress", "finalizing", "cancelling")
WITH_RESULTS: Final = ("completed", "expired", "cancelled")

_INSERT_ITEMS: Final = "INSERT INTO llm_batch_items BY NAME SELECT * FROM items"
_ITEMS: Final = """
SELECT submission_id, custom_id, item_id, verdict_key, label_type, merchant_key, word_text, chance
FROM llm_batch_items WHERE submission_id = $1 ORDER BY custom_id, item_id
"""
_FORGET_ITEMS: Final = "DELETE FROM llm_batch_items WHERE submission_id = $1"
_COLLECTED: Final = """
INSERT INTO llm_collected
SELECT DISTINCT submission_id, label_type, merchant_key FROM llm_batch_items
WHERE submission_id = $1
"""
_WAITING: Final = """
SELECT DISTINCT label_type, merchant_key FROM llm_collected ORDER BY ALL
"""
_JOBS: Final = """
SELECT batch_id, submission_id, model, status, words, run_id, error, submitted_at, updated_at
FROM llm_batches ORDER BY submitted_at DESC
"""
_WITH_FILES: Final = f"""
SELECT batch_id FROM llm_batches
WHERE batch_id IS NOT NULL AND NOT coalesce(files_deleted, false)
    AND status NOT IN {(*OPEN, *WITH_RESULTS)} AND submitted_at > now() - INTERVAL 30 DAY
ORDER BY submitted_at
"""
"""The API deletes older files by itself."""
_WITHOUT_JOB: Final = """
SELECT submission_id, submitted_at < now() - INTERVAL 1 HOUR AS is_settled FROM llm_batches
WHERE batch_id IS NULL AND status = 'failed' AND NOT coalesce(files_deleted, false)
    AND submitted_at > now() - INTERVAL 30 DAY
"""
"""A file that a process was uploading when it was killed may appear a little later."""


@dataclass(frozen=True)
class BatchJob:
    """One batch job as it was last seen; `batch_id` is null until the endpoint has accepted it."""

    batch_id: str | None
    submission_id: str
    model: str
    status: str
    words: int
    run_id: str
    error: str | None
    submitted_at: dt.datetime
    updated_at: dt.datetime

    @property
    def is_open(self) -> bool:
        """Return whether its answers are still to come."""
        return self.status in OPEN


@dataclass(frozen=True)
class JobItem:
    """One word of a batch job: the place of its answer, and what is needed to store it."""

    submission_id: str
    custom_id: str
    item_id: str
    verdict_key: str
    label_type: str
    merchant_key: str
    word_text: str
    chance: float

    @classmethod
    def of(cls, submission: str, custom_id: str, item_id: str, ask: Ask) -> Self:
        """Make the item of a question in one call of a submission."""
        return cls(
            submission,
            custom_id,
            item_id,
            ask.verdict_key,
            ask.head.label_type,
            ask.merchant_key,
            ask.word_text,
            ask.chance,
        )


def batch_jobs(warehouse: Warehouse) -> list[BatchJob]:
    """Return all batch jobs, the latest first."""
    return [BatchJob(**row) for row in warehouse.query(_JOBS).to_pylist()]


def write_down(
    con: duckdb.DuckDBPyConnection,
    submission: str,
    model: str,
    run_id: str,
    items: Sequence[JobItem],
) -> None:
    """Record a submission before it is sent."""
    con.execute(
        "INSERT INTO llm_batches (submission_id, model, status, words, run_id, submitted_at, "
        "updated_at) VALUES ($1, $2, $3, $4, $5, now(), now())",
        [submission, model, SUBMITTING, len(items), run_id],
    )
    con.register("items", pa.Table.from_pylist([asdict(item) for item in items]))
    con.execute(_INSERT_ITEMS)
    con.unregister("items")


def note_status(
    con: duckdb.DuckDBPyConnection,
    submission: str,
    batch_id: str | None,
    status: str,
    error: str | None,
) -> None:
    """Store the status of a job; release the words of one that will not return answers."""
    con.execute(
        "UPDATE llm_batches SET batch_id = coalesce($2, batch_id), status = $3, "
        "error = $4, updated_at = now() WHERE submission_id = $1",
        [submission, batch_id, status, error],
    )
    if status not in (*OPEN, *WITH_RESULTS):
        con.execute(_FORGET_ITEMS, [submission])
        if status != GIVEN_UP:
            forget(con, submission)


def note_collected(con: duckdb.DuckDBPyConnection, submission: str) -> None:
    """Record that the answers of a job are stored, and which partitions wait for a run."""
    con.execute(_COLLECTED, [submission])
    con.execute(_FORGET_ITEMS, [submission])
    con.execute(
        "UPDATE llm_batches SET status = 'collected', updated_at = now() WHERE submission_id = $1",
        [submission],
    )


def collected_partitions(con: duckdb.DuckDBPyConnection) -> list[PartitionKey]:
    """List the partitions of collected jobs that no run has brought up to date since."""
    return [PartitionKey(*row) for row in con.execute(_WAITING).fetchall()]


def forget_collected(con: duckdb.DuckDBPyConnection, partitions: Sequence[PartitionKey]) -> None:
    """Record that a run has brought partitions of collected jobs up to date."""
    con.register("done", partition_table(partitions))
    con.execute("DELETE FROM llm_collected WHERE (label_type, merchant_key) IN (FROM done)")
    con.unregister("done")


def items_of(
    con: duckdb.DuckDBPyConnection, submission: str
) -> defaultdict[str, dict[str, JobItem]]:
    """Return the words of a job, by the ids of their calls and by their own."""
    items: defaultdict[str, dict[str, JobItem]] = defaultdict(dict)
    for row in con.execute(_ITEMS, [submission]).to_arrow_table().to_pylist():
        items[row["custom_id"]][row["item_id"]] = JobItem(**row)
    return items


def note_error(con: duckdb.DuckDBPyConnection, submission: str, error: str) -> None:
    """Record what is to be said about a job."""
    con.execute("UPDATE llm_batches SET error = $2 WHERE submission_id = $1", [submission, error])


def with_files(warehouse: Warehouse) -> list[str]:
    """Return the ids of the jobs that have ended and whose files may be at the endpoint still."""
    return [row["batch_id"] for row in warehouse.query(_WITH_FILES).to_pylist()]


def without_job(warehouse: Warehouse) -> dict[str, bool]:
    """Return the submissions that became no job and whose file may be at the endpoint.

    Returns:
        By submission, whether it is so old that a file that is not there will not appear.
    """
    rows = warehouse.query(_WITHOUT_JOB).to_pylist()
    return {row["submission_id"]: row["is_settled"] for row in rows}


def note_uploads_deleted(con: duckdb.DuckDBPyConnection, submissions: Sequence[str]) -> None:
    """Record that no file of submissions without a job is at the endpoint."""
    con.execute(
        "UPDATE llm_batches SET files_deleted = true "
        f"WHERE submission_id IN (SELECT value FROM {texts_in('$1')})",
        [text_list(submissions)],
    )


def note_files_deleted(con: duckdb.DuckDBPyConnection, batch_id: str) -> None:
    """Record that the files of a job are deleted at the endpoint."""
    con.execute("UPDATE llm_batches SET files_deleted = true WHERE batch_id = $1", [batch_id])
