"""Arrivals: the inbox, and the buckets and tables that the settings name."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TypeVar

from harmonizer_assets.core.base.errors import SourceError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.base.settings import ArrivalSettings, LimitSettings
from harmonizer_assets.core.ingest.batches import Ingest
from harmonizer_assets.core.ingest.inbox import Inbox
from harmonizer_assets.core.ingest.sources import (
    TABLE_URL_VARIABLE,
    DynamoSource,
    S3Source,
    Source,
    TableSource,
)
from harmonizer_assets.core.records.reports import IngestReport
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.core.store.warehouse import Warehouse

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Arrivals:
    """Ingests what arrives at a home.

    New data of sources is copied into the inbox first; then all batches are treated alike.
    """

    def __init__(
        self,
        home: Home,
        warehouse: Warehouse,
        taxonomy: Taxonomy,
        settings: ArrivalSettings,
        *,
        limits: LimitSettings | None = None,
        table_url: str | None = None,
        on_new_batch: Callable[[], object] = lambda: None,
    ) -> None:
        """Set up the inbox and the sources; nothing is read yet.

        Args:
            home: whose inbox it is.
            warehouse: stores the rows, and which items of sources have been copied.
            taxonomy: the known label types.
            settings: the sources.
            limits: how large a row may be, and how much is read at once; by default the defaults.
            table_url: the URL of the database with the tables; by default that of the
                environment's `HARMONIZER_TABLE_URL`.
            on_new_batch: called before a batch is read that may change rows.
        """
        self._home = home
        self._warehouse = warehouse
        self._taxonomy = taxonomy
        self._settings = settings
        self._limits = limits or LimitSettings()
        self._table_url = table_url
        self._on_new_batch = on_new_batch

    def sources(self) -> list[Source]:
        """List the buckets and tables that the settings name."""
        found: list[Source] = []
        if self._settings.s3 is not None:
            endpoint = self._settings.s3_endpoint_url
            found.append(S3Source(self._settings.s3, endpoint, self._home, self._warehouse))
        if self._settings.tables is not None:
            url = self._table_url or os.environ.get(TABLE_URL_VARIABLE)
            found.append(TableSource(self._settings.tables, url, self._home, self._warehouse))
        if self._settings.dynamodb is not None:
            found.append(DynamoSource(self._settings.dynamodb, self._home, self._warehouse))
        return found

    def pull(self) -> tuple[int, list[SourceError]]:
        """Copy what is new in the sources into the inbox.

        Returns:
            The number of batches, and an error for each source that could not be read.

        Raises:
            StoreError: the inbox cannot be written.
        """
        pulled = 0
        errors = []
        for source in self.sources():
            try:
                count = _asked(source, source.pull)
            except SourceError as error:
                errors.append(error)
                continue
            if count:
                logger.info("%d batches copied into the inbox from %s", count, source.name)
            pulled += count
        return pulled, errors

    def waiting(self) -> tuple[str | None, list[SourceError]]:
        """Identify what waits in the inbox and the sources.

        Returns:
            A hash that changes with every arrival, None when nothing waits; and an error for each
            source that could not be read.
        """
        waiting = [Inbox(self._home).waiting()]
        errors = []
        for source in self.sources():
            try:
                waiting.append(_asked(source, source.waiting))
            except SourceError as error:
                errors.append(error)
        found = [name for name in waiting if name is not None]
        return ("-".join(found) if found else None), errors

    def ingest(self, on_progress: ProgressFn | None = None) -> IngestReport:
        """Ingest all batches that wait in the inbox, oldest first.

        Raises:
            StoreError: the database or the disk is not usable; batches before are ingested.
        """
        ingest = Ingest(
            self._home, self._warehouse, self._taxonomy, self._limits, self._on_new_batch
        )
        return ingest.ingest_pending(on_progress)


def _asked(source: Source, ask: Callable[[], T]) -> T:
    """Ask a source; whatever goes wrong concerns it alone.

    Raises:
        SourceError: it cannot be read.
        StoreError: the home cannot be written.
    """
    with translated(
        lambda error: SourceError(f"{source.name}: cannot be read ({type(error).__name__})")
    ):
        return ask()
