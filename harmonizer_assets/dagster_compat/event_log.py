"""Event logs that write a batch of asset events in two transactions; this one in SQLite."""

from __future__ import annotations

import glob
import os
import sqlite3
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Final, Self, cast

import sqlalchemy
from dagster import DagsterEventType, EventLogEntry
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

_BATCHED: Final = frozenset(
    {
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        DagsterEventType.ASSET_OBSERVATION,
    }
)
_OPEN_DATABASES: Final = 16
_BUSY_SECONDS: Final = 30
"""Seconds for which a connection waits for another process that writes."""
_INDEX_PAGE: Final = 16_384
"""Bytes of a page of the index of all runs. A run's own database stays with SQLite's default: most
hold few events, and each table and index of one takes a page at least."""
_FOLDER: Final = os.path.join("history", "runs")


class BatchingEventLogStorage(SqlEventLogStorage):
    """Base of the batching event logs: groups events and stores each group."""

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events in order; neighbouring asset events of one run together."""
        for (batched, _), group in groupby(
            events, key=lambda event: (_is_batched(event), event.run_id)
        ):
            if batched:
                self._store_asset_events(list(group))
            else:
                for event in group:
                    self.store_event(event)

    @abstractmethod
    def _store_asset_events(self, events: Sequence[EventLogEntry]) -> None:
        """Store asset events of one run."""

    def _insert(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Write the rows of events; return their ids, in the same order."""
        inserted = connection.execute(
            SqlEventLogStorageTable.insert().returning(
                SqlEventLogStorageTable.c.id, sort_by_parameter_order=True
            ),
            rows,
        )
        return list(inserted.scalars())

    def _index(
        self, connection: Connection, events: Sequence[EventLogEntry], ids: Sequence[int]
    ) -> None:
        """Write the rows that are looked up by asset: tags of events, and rows of assets."""
        self._store_asset_event_tags(connection, events, ids)
        # The asset's own row names its latest event of each type, so earlier ones of the batch
        # need not be written to it.
        latest = {
            (event.get_dagster_event().asset_key, event.dagster_event_type): (event, event_id)
            for event, event_id in zip(events, ids, strict=True)
        }
        # Ordered by asset, so that two runs which write to the same rows cannot block each other;
        # then by id, because the last event of any type gives a row its time.
        for event, event_id in sorted(latest.values(), key=_asset_and_id):
            self._store_asset_event(connection, event, event_id)


class BatchingSqliteEventLogStorage(BatchingEventLogStorage, SqliteEventLogStorage):
    """Dagster's SQLite event log, with batches.

    The stock storage takes two transactions, each synced to disk, for every event of a partition.
    Runs here have thousands of them, so a batch (Dagster makes batches when
    DAGSTER_EVENT_BATCH_SIZE is set) takes two transactions in all: one in the run's own database
    and one in the index of all runs. What is stored is the same, row for row.
    """

    _made: ClassVar[Sequence[str]] = ()
    """Statements that make a run's database, once this process has had one made."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: dict[str, Engine] = {}
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Make the storage that dagster.yaml configures; `base_dir` is the instance's folder."""
        folder = os.path.join(config_value["base_dir"], _FOLDER)
        return cls(inst_data=inst_data, base_dir=folder)

    def _store_asset_events(self, events: Sequence[EventLogEntry]) -> None:
        rows = [self._event_to_row(event) for event in events]
        with self.run_connection(events[0].run_id) as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
        with self.index_transaction() as connection:
            self._index(connection, events, self._insert(connection, rows))

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock, self._engine(shard).begin() as connection:
            yield connection

    def _engine(self, shard: str) -> Engine:
        """Return the engine of a shard; keep those that were used last open.

        The stock storage makes an engine and opens the file for every statement, which costs
        milliseconds, and closing the last connection merges the whole log into the database.
        """
        engine = self._engines.pop(shard, None)
        if engine is None:
            engine = sqlalchemy.create_engine(
                self.conn_string_for_shard(shard),
                poolclass=QueuePool,
                pool_size=1,
                connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
            )
            sqlalchemy.event.listen(engine, "connect", _without_sync_per_commit)
            self._initdb(engine, for_index_shard=shard == INDEX_SHARD_NAME)
        self._engines[shard] = engine
        while len(self._engines) > _OPEN_DATABASES:
            self._engines.pop(next(iter(self._engines))).dispose()
        return engine

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:
        """Make the tables of a database that has none.

        The stock storage reads all of its migrations for that, each time, and for a database that
        has its tables. Here the first database of a run in a process shows what to make of others.
        """
        if for_index_shard:
            sqlalchemy.event.listen(engine, "connect", _with_large_pages)
        with closing(engine.raw_connection()) as connection:
            con = cast("sqlite3.Connection", connection.dbapi_connection)
            if _revision(con) or (self._made and not for_index_shard and _make(con, self._made)):
                return
        super()._initdb(engine, for_index_shard)
        if not for_index_shard:
            with closing(engine.raw_connection()) as connection:
                con = cast("sqlite3.Connection", connection.dbapi_connection)
                BatchingSqliteEventLogStorage._made = _statements(con)

    def files_of(self, run_id: str) -> list[Path]:
        """List the files of a run's own database."""
        path = Path(self.path_for_shard(run_id))
        return sorted(path.parent.glob(f"{glob.escape(path.name)}*"))

    def remove_files_of(self, run_id: str) -> None:
        """Remove a run's own database; its events in the index of all runs stay."""
        with self._db_lock:
            engine = self._engines.pop(run_id, None)
            if engine is not None:
                engine.dispose()
            for file in self.files_of(run_id):
                file.unlink(missing_ok=True)

    def delete_events(self, run_id: str) -> None:
        """Delete the events of a run, and its database with them.

        The stock storage leaves the emptied database, which takes 200 KB.
        """
        with self.index_connection() as connection:
            self.delete_events_for_run(connection, run_id)
        self.free_concurrency_slots_for_run(run_id)
        self.remove_files_of(run_id)

    def dispose(self) -> None:
        """Close the databases."""
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()
        super().dispose()


def _revision(con: sqlite3.Connection) -> str | None:
    """Return the revision of the tables in a database; none where they have not been made."""
    try:
        row = con.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:
        return None
    return str(row[0]) if row else None


def _statements(con: sqlite3.Connection) -> Sequence[str]:
    """Return what makes such a database; nothing where another process has written to it by now."""
    _begin, *statements, _commit = con.iterdump()
    rows = [statement for statement in statements if statement.startswith("INSERT")]
    return statements if len(rows) == 1 and "alembic_version" in rows[0] else ()


def _make(con: sqlite3.Connection, statements: Sequence[str]) -> bool:
    """Make the tables; return whether it was done, which it is not while others do the same."""
    try:
        con.execute("PRAGMA journal_mode=WAL")
        with con:
            con.execute("BEGIN IMMEDIATE")
            if con.execute("SELECT 1 FROM sqlite_master").fetchone():
                return False
            for statement in statements:
                con.execute(statement)
    except sqlite3.OperationalError:
        return False
    return True


def _without_sync_per_commit(connection: sqlite3.Connection, _record: object) -> None:
    # The log is in WAL mode: without a sync per commit it stays consistent, and only a power
    # failure can lose its last transactions, which the next run reports again.
    connection.execute("PRAGMA synchronous=NORMAL")


def _with_large_pages(connection: sqlite3.Connection, _record: object) -> None:
    # An event takes a little more than half of SQLite's usual page of 4 KB, so that each would have
    # one for itself. It counts for new databases alone.
    connection.execute(f"PRAGMA page_size={_INDEX_PAGE}")


def _is_batched(event: EventLogEntry) -> bool:
    return event.is_dagster_event and event.dagster_event_type in _BATCHED


def _asset_and_id(stored: tuple[EventLogEntry, int]) -> tuple[str, int]:
    event, event_id = stored
    asset = event.get_dagster_event().asset_key
    return asset.to_string() if asset else "", event_id
