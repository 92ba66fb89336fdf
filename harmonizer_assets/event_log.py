"""Event logs that write a batch of asset events in two transactions; this one in SQLite."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Final, Self

from dagster import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import Connection

_BATCHED: Final = frozenset(
    {
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        DagsterEventType.ASSET_OBSERVATION,
    }
)
_FOLDER: Final = os.path.join("history", "runs")


class BatchingEventLogStorage(SqlEventLogStorage):
    """What the batching event logs share: which events go together, and what is stored of them."""

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
        """Write the rows of events; their ids, in the same order."""
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
        """Write what is found by asset: the tags of events, and the rows of their assets."""
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
        with super()._connect(shard) as connection:
            # The log is in WAL mode: without a sync per commit it stays consistent, and only a
            # power failure can lose its last transactions, which the next run reports again.
            connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
            yield connection


def _is_batched(event: EventLogEntry) -> bool:
    return event.is_dagster_event and event.dagster_event_type in _BATCHED


def _asset_and_id(stored: tuple[EventLogEntry, int]) -> tuple[str, int]:
    event, event_id = stored
    asset = event.get_dagster_event().asset_key
    return asset.to_string() if asset else "", event_id
