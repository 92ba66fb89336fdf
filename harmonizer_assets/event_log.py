"""A SQLite event log that writes a batch of materializations in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from dagster import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from sqlalchemy import CursorResult


class BatchingSqliteEventLogStorage(SqliteEventLogStorage):
    """Dagster's SQLite event log, with batches.

    The stock storage takes two transactions, each with a sync to disk, for every partition that is
    materialized. Runs here materialize thousands, so a batch of materializations (Dagster makes
    them when DAGSTER_EVENT_BATCH_SIZE is set) takes two transactions in all.
    """

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Make the storage that dagster.yaml configures."""
        return cls(inst_data=inst_data, **config_value)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events; materializations of one run together, anything else one by one."""
        if not all(_is_materialization(event) for event in events) or (
            len({event.run_id for event in events}) != 1
        ):
            for event in events:
                self.store_event(event)
            return
        rows = [self._event_to_row(event) for event in events]
        insert = SqlEventLogStorageTable.insert()
        with self.run_connection(events[0].run_id) as connection:
            connection.execute(insert, rows)
        with self.index_transaction() as connection:
            ids = [_inserted_id(connection.execute(insert.values(**row))) for row in rows]
            self._store_asset_event_tags(connection, events, ids)
            latest = {
                event.get_dagster_event().asset_key: (event, event_id)
                for event, event_id in zip(events, ids, strict=True)
            }
            for event, event_id in latest.values():
                self._store_asset_event(connection, event, event_id)


def _inserted_id(result: CursorResult) -> int:
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def _is_materialization(event: EventLogEntry) -> bool:
    return (
        event.is_dagster_event
        and event.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION
    )
