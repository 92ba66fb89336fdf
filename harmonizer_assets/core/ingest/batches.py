"""Ingest inbox batches: read and check each one separately, merge it in one transaction."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.base.settings import LimitSettings
from harmonizer_assets.core.ingest.inbox import Inbox, InboxBatch
from harmonizer_assets.core.ingest.left_out import FILE, stage_left_out
from harmonizer_assets.core.ingest.merge import merge_batch, quarantine_batch, resent_batch
from harmonizer_assets.core.ingest.order import Arrival, place_of
from harmonizer_assets.core.ingest.positions import clip_positions
from harmonizer_assets.core.ingest.preflight import summary_of
from harmonizer_assets.core.ingest.readers import readable
from harmonizer_assets.core.ingest.staging import stage_batch, staging_database
from harmonizer_assets.core.ingest.validate import check_rows
from harmonizer_assets.core.records.reports import BatchReport, IngestReport
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.core.store.warehouse import Warehouse

_HASHED_BYTES: Final = 1 << 20

logger = logging.getLogger(__name__)


class Ingest:
    """Ingests the batches of a home's inbox.

    A batch is identified by its content: the same files twice in a row change nothing, and after
    another batch they hold again. Where batches disagree about a row, the later one wins, in
    whatever order they are ingested; see `order`.
    """

    def __init__(
        self,
        home: Home,
        warehouse: Warehouse,
        taxonomy: Taxonomy,
        limits: LimitSettings,
        on_new_batch: Callable[[], object] = lambda: None,
    ) -> None:
        """Set up; nothing is read yet.

        Args:
            home: whose inbox it is.
            warehouse: stores the rows.
            taxonomy: the known label types.
            limits: how large a row may be, and how much is read at once.
            on_new_batch: called before a batch is read that may change rows.
        """
        self._home = home
        self._warehouse = warehouse
        self._taxonomy = taxonomy
        self._limits = limits
        self._on_new_batch = on_new_batch
        self._inbox = Inbox(home)

    def ingest_pending(self, on_progress: ProgressFn | None = None) -> IngestReport:
        """Ingest all pending batches; one that cannot be read moves to `.failed`.

        Raises:
            StoreError: the database or the disk is not usable; batches before are ingested.
        """
        report = IngestReport()
        for batch in self._inbox.pending():
            try:
                report.batches.append(self.ingest(batch, on_progress))
            except FileNotFoundError:
                continue  # another run has ingested it meanwhile
            except InputError as error:
                if not all(path.exists() for _, path in batch.files):
                    continue  # likewise, between two of its files
                problem = batch.named(str(error))
                report.failed.append((batch.source, problem))
                self._quarantine(batch, problem)
            else:
                self._remove(batch)
        return report

    def ingest(self, batch: InboxBatch, on_progress: ProgressFn | None = None) -> BatchReport:
        """Ingest one batch in one transaction; its folder stays where it is.

        Raises:
            InputError: a file cannot be read; nothing was ingested.
            StoreError: the database or the disk is not usable; nothing was ingested.
        """
        if batch.problem is not None:
            raise InputError(batch.problem)
        # Whatever a batch makes libraries raise, the batches behind it must go on.
        with readable(batch.source):
            arrival = Arrival.of(batch, _batch_id(batch, self._taxonomy))
            report = self._resent(arrival) or self._read_and_merge(batch, arrival, on_progress)
        _log(batch, report)
        return report

    def _resent(self, arrival: Arrival) -> BatchReport | None:
        """Report a batch that changes nothing, without reading its files."""
        if not self._warehouse.read(lambda con: place_of(con, arrival).changes_nothing):
            return None
        # Another process may have ingested something since.
        return self._warehouse.write(lambda con: resent_batch(con, arrival, place_of(con, arrival)))

    def _read_and_merge(
        self, batch: InboxBatch, arrival: Arrival, on_progress: ProgressFn | None
    ) -> BatchReport:
        self._on_new_batch()
        with staging_database(self._home) as (con, file):
            read = stage_batch(con, batch, self._limits, on_progress)
            check_rows(con, self._taxonomy.names, batch.origins)
            stage_left_out(con, batch.problems)
            summary = summary_of(con)
            clip_positions(con)
            con.close()
            report = self._warehouse.write(
                lambda main: merge_batch(main, arrival, read), attached={"staged": file}
            )
            return report if report.unchanged else replace(report, summary=summary)

    def _quarantine(self, batch: InboxBatch, error: str) -> None:
        self._warehouse.write(lambda con: quarantine_batch(con, batch, error))
        try:
            self._inbox.move_to_failed(batch, error)
        except OSError as problem:
            _log_unmoved(batch, problem)
        else:
            # The error may quote the file, so it stays out of the log.
            logger.info("batch %s cannot be read: moved to .failed", batch.folder.name)

    def _remove(self, batch: InboxBatch) -> None:
        try:
            self._inbox.remove(batch)
        except OSError as problem:
            _log_unmoved(batch, problem)


def _batch_id(batch: InboxBatch, taxonomy: Taxonomy) -> str:
    """Hash the files, and the label types, since those decide what is quarantined."""
    digest = hashlib.sha256(json.dumps(sorted(taxonomy.names)).encode())
    files = [(f"{layout.name}{path.suffix.lower()}", path) for layout, path in batch.files]
    for name, path in [*files, *([(FILE, batch.problems)] if batch.problems else [])]:
        digest.update(f"\n{name}\n".encode())
        with readable(path), path.open("rb") as file:
            while block := file.read(_HASHED_BYTES):
                digest.update(block)
    return digest.hexdigest()[:32]


def _log_unmoved(batch: InboxBatch, problem: OSError) -> None:
    logger.warning(
        "batch %s cannot be moved out of the inbox (%s): remove it by hand",
        batch.folder.name,
        problem.strerror,
    )


def _log(batch: InboxBatch, report: BatchReport) -> None:
    name = batch.folder.name
    if report.unchanged:
        logger.info("batch %s was ingested before: nothing to do", name)
    else:
        _log_counts(name, report)
    for remark in report.remarks():
        logger.info("batch %s: %s", name, remark)


def _log_counts(name: str, report: BatchReport) -> None:
    logger.info(
        "batch %s ingested: words %d read, %d new, %d changed; labels %d read, %d new, %d changed",
        name,
        report.words_read,
        report.words_inserted,
        report.words_updated,
        report.labels_read,
        report.labels_inserted,
        report.labels_updated,
    )
    if report.quarantined:
        logger.info("batch %s: %d rows quarantined", name, report.quarantined)
