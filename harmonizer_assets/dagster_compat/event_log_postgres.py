"""The batching event log in PostgreSQL; needs the extra `postgres`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from dagster import EventLogEntry
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres import PostgresEventLogStorage
from sqlalchemy import delete, select
from sqlalchemy.exc import DBAPIError

from harmonizer_assets.dagster_compat.event_log import BatchingEventLogStorage
from harmonizer_assets.dagster_compat.postgres import (
    arguments_of,
    connected,
    is_lost,
    outage_of,
    patient,
)


@patient
class BatchingPostgresEventLogStorage(BatchingEventLogStorage, PostgresEventLogStorage):
    """Dagster's PostgreSQL event log, with batches of every asset event.

    The stock storage batches too, but materializations and observations only. The planned events
    of a range of partitions, one per partition and asset, are stored singly at 10 to 15 ms each
    before the run can start; a batch of 500 takes 0.2 ms each. Of a batch with several assets the
    stock storage updates the row of the last one alone, this one those of all. What is stored is
    the same as for single events, row for row.

    A batch sends no NOTIFY, and neither does the stock storage: nothing in this version of Dagster
    listens for it, and the log in the web UI polls.

    A server that is restarted is waited for. What was being stored is stored again then, once: the
    server may have done it before it went.
    """

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Make the storage that dagster.yaml configures, with the stock storage's settings."""
        return cls(inst_data=inst_data, **arguments_of(config_value))

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event, once, whatever becomes of the server meanwhile."""
        self._once([event], lambda: PostgresEventLogStorage.store_event(self, event))

    def _once(self, events: Sequence[EventLogEntry], store: Callable[[], None]) -> None:
        """Store events of one run; remove what is left of an attempt whose connection was lost."""
        lost = False
        while True:
            try:
                if lost:
                    self._forget(events)
                return store()
            except DBAPIError as error:
                if not is_lost(error):
                    raise
                lost = True
                outage_of(self.postgres_url).wait(error)

    def _forget(self, events: Sequence[EventLogEntry]) -> None:
        """Delete events, if they are stored; what refers to them by tags goes with them."""
        table = SqlEventLogStorageTable
        rows = [self._event_to_row(event) for event in events]
        times = [row["timestamp"] for row in rows]
        texts = {row["event"] for row in rows}
        stored = (
            select(table.c.id, table.c.event)
            .where(table.c.run_id == events[0].run_id)
            .where(table.c.timestamp.between(min(times), max(times)))
        )
        with self._connect() as connection:
            ids = [row.id for row in connection.execute(stored) if row.event in texts]
            connection.execute(delete(table).where(table.c.id.in_(ids)))

    def _connect(self) -> Any:
        return connected(self._engine, outage_of(self.postgres_url))

    def _store_asset_events(self, events: Sequence[EventLogEntry]) -> None:
        self._once(events, lambda: self._store_batch(events))

    def _store_batch(self, events: Sequence[EventLogEntry]) -> None:
        # Two transactions, as in the stock storage: ids become visible with the statement that
        # takes them. Were they held back until the tags are written, a reader that remembers the
        # highest id it has seen, such as the UI's cache of partitions, would never see these.
        with self.run_connection(events[0].run_id) as connection:
            ids = self._insert(connection, [self._event_to_row(event) for event in events])
        with self.index_transaction() as connection:
            self._index(connection, events, ids)
