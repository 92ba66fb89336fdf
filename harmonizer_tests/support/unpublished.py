"""Pipelines that publish nothing, which is half of a small run: tests of the judge do without."""

from __future__ import annotations

from functools import cached_property

from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.report.publication import Publication


class Unpublished(Pipeline):
    """A pipeline whose runs end before alarms, patterns, queues, report and copy are made."""

    @cached_property
    def publication(self) -> Publication:
        return _Nothing(
            self.warehouse, self.settings, self.taxonomy, self.score, self.missing, self.publishing
        )


class _Nothing(Publication):
    def publish_changes(self, run_id: str) -> None:
        return None
