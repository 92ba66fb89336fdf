"""Publishing what a run has found, and what is made of all labels together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.decide.alarms import update_merchant_alarms, update_receipt_alarms
from harmonizer_assets.core.decide.missing import MissingLabels
from harmonizer_assets.core.decide.patterns import update_patterns
from harmonizer_assets.core.decide.validation_queue import update_validation_queue
from harmonizer_assets.core.publish.publishing import Publishing
from harmonizer_assets.core.records.reports import Published
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.core.report import drift
from harmonizer_assets.core.report.page import publish_report, render_report, write_report
from harmonizer_assets.core.review.policy import ReviewPolicy
from harmonizer_assets.core.review.queue import update_review_queue
from harmonizer_assets.core.score.registry import DUE
from harmonizer_assets.core.score.stage import ScoreStage
from harmonizer_assets.core.store.snapshot import is_published
from harmonizer_assets.core.store.tables import Tables
from harmonizer_assets.core.store.warehouse import Warehouse


class Publication:
    """Publishes the results of one home."""

    def __init__(
        self,
        warehouse: Warehouse,
        settings: Settings,
        taxonomy: Taxonomy,
        score: ScoreStage,
        missing: MissingLabels,
        publishing: Publishing,
    ) -> None:
        self._warehouse = warehouse
        self._settings = settings
        self._taxonomy = taxonomy
        self._score = score
        self._missing = missing
        self._publishing = publishing
        self._tables = Tables(warehouse)

    def publish(self, run_id: str) -> Published:
        """Publish what was found, and what is made of all labels together.

        That is: alarms, patterns, missing labels, the validation queue, history, the report and the
        tables for their readers.

        Args:
            run_id: the run that it is of; names the report.
        """
        alarms = update_merchant_alarms(self._warehouse)
        receipts = update_receipt_alarms(self._warehouse)
        patterns = update_patterns(self._warehouse, self._settings.patterns)
        missing = self._update_missing_labels()
        queued = update_validation_queue(self._warehouse)
        update_review_queue(self._warehouse, ReviewPolicy.of_home(self._warehouse.home))
        drift.record(self._warehouse, run_id)
        report = self.write_report(run_id)
        message = self._tables.counts().in_a_sentence()
        tables, version = self._publishing.publish(run_id, message, self._inputs())
        name = None if version is None else version.name
        return Published(alarms, receipts, patterns, missing, queued, report, tables, name)

    def publish_changes(self, run_id: str) -> Published | None:
        """Publish what was found, unless nothing has changed since the last time."""
        if is_published(self._warehouse, self._inputs()):
            return None
        return self.publish(run_id)

    def write_report(self, run_id: str = "", folder: Path | None = None) -> Path:
        """Write the report of the tables as they are now, as one HTML page.

        Args:
            run_id: the run that it is of; names the file.
            folder: where to; by default the home's `reports`, of which `latest.html` is replaced
                and old pages are removed. In another folder, one file is written and no other
                touched.

        Raises:
            StoreError: the folder cannot be written.
        """
        now, guarantee = utc_now(), self._score.guarantee()
        page = render_report(self._warehouse, guarantee=guarantee, made_at=now, run_id=run_id)
        name = run_id or f"{now:%Y%m%dT%H%M%S}"
        if folder is None:
            return publish_report(self._warehouse.home, page, name)
        return write_report(folder, page, name)

    def _update_missing_labels(self) -> int:
        """Search words without a label with the model in force; publishing fits none."""
        version, model = self._score.in_force()
        if version == DUE:
            return self._tables.counts().missing_labels
        return self._missing.update(version, model)

    def _inputs(self) -> str:
        """Identify what the published results depend on besides the tables."""
        content = [self._settings.model_dump(mode="json"), self._taxonomy.names]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
