"""The batching event log in PostgreSQL; needs the extra `postgres`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from dagster import EventLogEntry
from dagster._serdes import ConfigurableClassData
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config

from harmonizer_assets.dagster_compat.event_log import BatchingEventLogStorage


class BatchingPostgresEventLogStorage(BatchingEventLogStorage, PostgresEventLogStorage):
    """Dagster's PostgreSQL event log, with batches of every asset event.

    The stock storage batches too, but materializations and observations only. The planned events
    of a range of partitions, one per partition and asset, are stored singly at 10 to 15 ms each
    before the run can start; a batch of 500 takes 0.2 ms each. Of a batch with several assets the
    stock storage updates the row of the last one alone, this one those of all. What is stored is
    the same as for single events, row for row.

    A batch sends no NOTIFY, and neither does the stock storage: nothing in this version of Dagster
    listens for it, and the log in the web UI polls.
    """

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Make the storage that dagster.yaml configures, with the stock storage's settings."""
        return cls(
            inst_data=inst_data,
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            token_provider=get_token_provider_from_config(config_value),
        )

    def _store_asset_events(self, events: Sequence[EventLogEntry]) -> None:
        # Two transactions, as in the stock storage: ids become visible with the statement that
        # takes them. Were they held back until the tags are written, a reader that remembers the
        # highest id it has seen, such as the UI's cache of partitions, would never see these.
        with self.run_connection(events[0].run_id) as connection:
            ids = self._insert(connection, [self._event_to_row(event) for event in events])
        with self.index_transaction() as connection:
            self._index(connection, events, ids)
