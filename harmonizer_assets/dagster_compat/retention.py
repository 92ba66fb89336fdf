"""What an instance forgets: old runs, their events and logs, ticks of sensors and schedules.

Dagster deletes single runs (`DagsterInstance.delete_run`), with their materializations, so that the
UI shows partitions as never materialized which an old run has computed last. Here the latest event
of each kind stays for each partition of an asset, and with it the row of its run.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import sqlalchemy
from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.runs.schema import RunTagsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.schedules.schema import JobTickTable
from dagster._core.storage.schedules.sql_schedule_storage import SqlScheduleStorage
from sqlalchemy import Connection, Select, func, select

from harmonizer_assets.core.store.prune import Freed
from harmonizer_assets.dagster_compat.event_log import BatchingSqliteEventLogStorage

_ENDED: Final = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
_KEPT_PER_JOB: Final = 5
"""Latest runs of a job that stay in any case: sensors look at them."""
_AT_ONCE: Final = 200
"""Runs that one transaction forgets."""
_SKIPPED: Final = timedelta(days=1)
"""Age at which ticks go that asked for nothing: a sensor makes 20,000 a day."""
_WORTH_A_VACUUM: Final = 0.2
"""Share of unused pages from which a SQLite file is written anew."""

_FILES: Final = ("index.db", "runs.db", "schedules.db")

_event = SqlEventLogStorageTable.c
_check = AssetCheckExecutionsTable.c
_tick = JobTickTable.c
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Run:
    id: str
    ended: datetime
    bytes: int


def prune_runs(
    instance: DagsterInstance, days: float, megabytes: float, now: datetime, *, dry_run: bool
) -> Freed:
    """Forget runs that ended long ago, and more of them, oldest first, while they take too much.

    What the web UI shows of each partition stays, since the latest event does. Runs that have not
    ended stay; of the latest of each job it stays known how they ended.

    Args:
        instance: whose runs; one that keeps its events elsewhere than in SQL is left alone.
        days: age at which a run goes.
        megabytes: the most that the events of all runs may take.
        now: the present.
        dry_run: whether to say only what would be freed.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return Freed("runs", 0, 0)
    records = instance.get_run_records(RunsFilter(statuses=_ENDED))
    runs = _prunable(records, storage)
    size = sum(run.bytes for run in runs)
    old = []
    for run in runs:
        if run.ended > now - timedelta(days=days) and size <= megabytes * 1e6:
            break
        size -= run.bytes
        old.append(run)
    if not dry_run:
        latest = _latest_of_each_job(records)
        for start in range(0, len(old), _AT_ONCE):
            _forget(instance, storage, [run.id for run in old[start : start + _AT_ONCE]], latest)
    return Freed("runs", len(old), sum(run.bytes for run in old))


def prune_ticks(instance: DagsterInstance, days: float, now: datetime, *, dry_run: bool) -> Freed:
    """Forget ticks of sensors and schedules, but for the latest of each.

    Args:
        instance: whose ticks.
        days: age at which a tick goes that asked for a run or failed; others stay for a day.
        now: the present.
        dry_run: whether to say only what would be freed.
    """
    storage = instance.schedule_storage
    if not isinstance(storage, SqlScheduleStorage):
        return Freed("ticks of sensors and schedules", 0, 0)
    latest = select(func.max(_tick.id)).group_by(_tick.selector_id)
    skipped, others = (_utc(now - age) for age in (_SKIPPED, timedelta(days=days)))
    old = _tick.id.not_in(latest) & (
        ((_tick.status == "SKIPPED") & (_tick.timestamp < skipped)) | (_tick.timestamp < others)
    )
    size = func.coalesce(func.sum(func.length(_tick.tick_body)), 0)
    with storage.connect() as con:
        count, taken = con.execute(select(func.count(), size).where(old)).one()
        if count and not dry_run:
            con.execute(JobTickTable.delete().where(old))
    return Freed("ticks of sensors and schedules", int(count), int(taken))


def compact(instance: DagsterInstance) -> None:
    """Give the unused pages of the instance's SQLite files back to the disk, where it is worth it.

    A file that another process is using is left for the next time.
    """
    folder = Path(instance.root_directory)
    for file in [
        *folder.rglob("index.db"),
        *folder.rglob("runs.db"),
        *folder.rglob("schedules.db"),
    ]:
        try:
            with contextlib.closing(sqlite3.connect(file, timeout=1.0)) as con:
                [[pages]] = con.execute("PRAGMA page_count").fetchall()
                [[unused]] = con.execute("PRAGMA freelist_count").fetchall()
                if unused > _WORTH_A_VACUUM * pages:
                    con.execute("VACUUM")
                    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            _log.info("%s is left as it is: %s", file, error)


def _prunable(records: Sequence[RunRecord], storage: SqlEventLogStorage) -> list[_Run]:
    """List the runs of which something may be forgotten, those that ended first first."""
    sizes = _sizes(storage)
    runs = []
    for record in records:
        run_id = record.dagster_run.run_id
        size = sizes.get(run_id, 0) + _size_of_shard(storage, run_id)
        if size:
            runs.append(_Run(run_id, _ended(record), size))
    return sorted(runs, key=lambda run: run.ended)


def _latest_of_each_job(records: Sequence[RunRecord]) -> set[str]:
    """Return the ids of the latest runs of each job; `records` are the latest first."""
    ids: dict[str, list[str]] = {}
    for record in records:
        ids.setdefault(record.dagster_run.job_name, []).append(record.dagster_run.run_id)
    return {run_id for of_job in ids.values() for run_id in of_job[:_KEPT_PER_JOB]}


def _ended(record: RunRecord) -> datetime:
    if record.end_time is not None:
        return datetime.fromtimestamp(record.end_time, UTC)
    return record.create_timestamp.astimezone(UTC)


def _utc(moment: datetime) -> datetime:
    # Dagster stores times in UTC without a zone.
    return moment.astimezone(UTC).replace(tzinfo=None)


def _latest_events() -> Select[tuple[int]]:
    """Select the ids of the events that the UI shows: the latest of a kind for each partition."""
    groups = (_event.asset_key, _event.partition, _event.dagster_event_type)
    return select(func.max(_event.id)).where(_event.asset_key.is_not(None)).group_by(*groups)


def _latest_checks() -> Select[tuple[int]]:
    groups = (_check.asset_key, _check.check_name, _check.partition)
    return select(func.max(_check.id)).group_by(*groups)


def _sizes(storage: SqlEventLogStorage) -> dict[str, int]:
    """Return the bytes of the events of each run that are not the latest of their kind."""
    size = func.sum(func.length(_event.event))
    old = _event.id.not_in(_latest_events())
    with storage.index_connection() as con:
        rows = con.execute(select(_event.run_id, size).where(old).group_by(_event.run_id)).all()
    return {run_id: int(taken) for run_id, taken in rows}


def _size_of_shard(storage: SqlEventLogStorage, run_id: str) -> int:
    if not isinstance(storage, BatchingSqliteEventLogStorage):
        return 0
    return sum(file.stat().st_size for file in storage.files_of(run_id))


def _forget(
    instance: DagsterInstance, storage: SqlEventLogStorage, runs: Sequence[str], latest: set[str]
) -> None:
    with storage.index_connection() as con:
        _forget_events(con, runs)
        kept = set(
            con.execute(select(_event.run_id).where(_event.run_id.in_(runs)).distinct()).scalars()
        )
    gone = [run for run in runs if run not in kept and run not in latest]
    for run in gone:
        instance.delete_run(run)
    if isinstance(instance.run_storage, SqlRunStorage):
        # Deleting a run leaves its tags in SQLite.
        with instance.run_storage.connect() as con:
            con.execute(RunTagsTable.delete().where(RunTagsTable.c.run_id.in_(gone)))
    for run in runs:
        if isinstance(storage, BatchingSqliteEventLogStorage):
            storage.remove_files_of(run)
        shutil.rmtree(Path(instance.root_directory) / "storage" / run, ignore_errors=True)


def _forget_events(con: Connection, runs: Sequence[str]) -> None:
    """Delete the events of runs that are not the latest of their kind, and what belongs to them."""
    old = select(_event.id).where(_event.run_id.in_(runs)).where(_event.id.not_in(_latest_events()))
    ids = list(con.execute(old).scalars())
    for part in _parts(ids):
        con.execute(AssetEventTagsTable.delete().where(AssetEventTagsTable.c.event_id.in_(part)))
        con.execute(SqlEventLogStorageTable.delete().where(_event.id.in_(part)))
    if sqlalchemy.inspect(con).has_table(AssetCheckExecutionsTable.name):
        con.execute(
            AssetCheckExecutionsTable.delete()
            .where(_check.run_id.in_(runs))
            .where(_check.id.not_in(_latest_checks()))
        )


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), 500):
        yield ids[start : start + 500]
