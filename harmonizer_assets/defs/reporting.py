"""Reporting of a run in the web UI: materializations, failures, usage, the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from dagster import AssetExecutionContext, DagsterEvent

from harmonizer_assets.core.base.errors import PartitionsFailedError
from harmonizer_assets.core.base.figure import can_draw
from harmonizer_assets.core.pipeline import Pipeline, Reporter
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import (
    ASSETS,
    AssetName,
    PartitionResult,
    Published,
    StageReport,
)
from harmonizer_assets.core.report.pictures import similarity_distribution
from harmonizer_assets.dagster_compat.events import report_events
from harmonizer_assets.dagster_compat.materializations import (
    materialized,
    planned,
    provenance_tags,
    reported_version,
    reported_versions,
    version_tags,
)
from harmonizer_assets.defs.partitions import from_dagster, to_dagster
from harmonizer_assets.web.lineage import CODE_VERSIONS, UPSTREAM, column_lineage
from harmonizer_assets.web.metadata import (
    model_metadata,
    partition_metadata,
    picture,
    published_metadata,
    usage_metadata,
)

BUDGET_TAG: Final = "harmonizer/stopped_at_budget"
"""Tag of a run that stopped at the budget."""

_PICTURED: Final = 12
"""Runs of at most so many partitions get a picture of each."""
_NAMED: Final = 20
"""Partitions that a message names; the events of the run name them all."""


class DagsterReporter(Reporter):
    """Reports the work of a step as events of its run.

    The step is one for all partitions, so it reports each partition itself as soon as its rows are
    committed; assets that follow from the run as a whole are reported by the same step.
    """

    def __init__(
        self,
        context: AssetExecutionContext,
        pipeline: Pipeline,
        requested: Sequence[PartitionKey] | None = None,
    ) -> None:
        """Report the step of `context`.

        Args:
            context: of the step.
            pipeline: that runs.
            requested: partitions that the run was launched for, all of which are reported, whether
                they hold labels or not; None reports what has changed or was never shown.
        """
        self._context = context
        self._pipeline = pipeline
        self._requested = requested
        self._shown: dict[PartitionKey, str] = {}

    def fitted(self, pipeline: Pipeline, version: str) -> None:
        """Report `suspicion_model` when the model in force is not the one that the UI shows."""
        if version != reported_version(self._context.instance, "suspicion_model"):
            self._report("suspicion_model", model_metadata(pipeline, version), version)

    def unreported(self, asset: AssetName, stored: Mapping[PartitionKey, str]) -> set[PartitionKey]:
        """Return the partitions of which the UI shows another version than the tables hold.

        The two differ after a run that was killed between the commit of its rows and its report.
        """
        versions = reported_versions(self._context.instance, asset)
        self._shown = {from_dagster(key): version for key, version in versions.items()}
        return {key for key, version in stored.items() if self._shown.get(key) != version}

    def warned(self, warning: str) -> None:
        """Log what was found damaged."""
        self._context.log.warning(warning)

    def started(self, asset: AssetName, why: str) -> None:
        """Log which partitions are to be computed, and why."""
        self._context.log.info(f"{asset}: {why}")

    def consume(
        self,
        asset: AssetName,
        partitions: Sequence[PartitionKey],
        results: Iterator[PartitionResult],
    ) -> None:
        """Report partitions as they are committed; those that were requested and are empty, too."""
        empty = set(self._requested or ()).difference(partitions)
        worth = (result for result in results if self._is_worth_reporting(result))
        nothing = (PartitionResult.empty(partition) for partition in sorted(empty))
        pictured = asset == "similarity_matches" and len(partitions) <= _PICTURED and can_draw()
        self._store(self._materializations(asset, chain(worth, nothing), pictured=pictured))

    def finished(self, pipeline: Pipeline, report: StageReport) -> None:
        """Log what a stage did; report the usage of a model, and mark failed partitions."""
        counts = ", ".join(
            f"{count} {outcome}" for outcome, count in sorted(report.outcomes.items())
        )
        self._context.log.info(
            f"{report.asset}: {report.computed} partitions computed, {len(report.failed)} failed"
            + (f": {counts}" if counts else "")
        )
        if report.failed:
            self._store(
                planned(self._context.job_name, self._step, report.asset, to_dagster(partition))
                for partition in sorted(report.failed)
            )
            self._context.log.error(f"{report.asset}: {_named(report.failed)}")
            for failure in pipeline.tables.failures(self._context.run_id)[:1]:
                self._context.log.error(f"the last of the tracebacks:\n{failure.traceback}")
        if report.usage is not None:
            self._report_usage(report)

    def published(self, pipeline: Pipeline, published: Published) -> None:
        """Report the assets that follow from the run as a whole."""
        for asset, metadata in published_metadata(self._context, pipeline, published).items():
            self._report(asset, metadata)

    @property
    def _step(self) -> str:
        return str(self._context.op_execution_context.op_handle)

    def _is_worth_reporting(self, result: PartitionResult) -> bool:
        if result.error is not None:
            return False
        shown = self._shown.get(result.partition)
        return result.changed or self._requested is not None or shown != result.fingerprint

    def _materializations(
        self, asset: AssetName, results: Iterable[PartitionResult], *, pictured: bool
    ) -> Iterator[DagsterEvent]:
        provenance = self._provenance(asset)

        def event(result: PartitionResult, *, last: bool) -> DagsterEvent:
            metadata = partition_metadata(result, asked=asset == "llm_verdicts")
            if pictured and result.labels:
                image = similarity_distribution(self._pipeline.warehouse, result.partition)
                metadata["similarity_distribution"] = picture(image)
            if last:
                # The UI reads it from the latest event; on each of thousands it would take room.
                metadata |= column_lineage(asset)
            tags = {**provenance, **version_tags(CODE_VERSIONS[asset], result.fingerprint)}
            return materialized(
                self._context.job_name,
                self._step,
                asset,
                metadata,
                tags,
                to_dagster(result.partition),
            )

        pending: PartitionResult | None = None
        failure: BaseException | None = None
        try:
            for result in results:
                if pending is not None:
                    yield event(pending, last=False)
                pending = result
        except GeneratorExit:
            raise
        except BaseException as error:
            # What was committed before a failure is reported all the same.
            failure = error
        if pending is not None:
            yield event(pending, last=True)
        if failure is not None:
            raise failure

    def _report(
        self, asset: str, metadata: Mapping[str, Any], data_version: str | None = None
    ) -> None:
        version = data_version or self._context.run_id
        tags = {**self._provenance(asset), **version_tags(CODE_VERSIONS[asset], version)}
        self._store([materialized(self._context.job_name, self._step, asset, metadata, tags)])

    def _report_usage(self, report: StageReport) -> None:
        usage = self._pipeline.tables.usage(self._context.run_id)
        if usage and report.usage is not None:
            self._report("llm_usage", usage_metadata(usage, report.usage))
        if report.usage is not None and report.usage.stopped_at_budget:
            self._context.log.warning(
                "stopped at the budget: run again to go on where this run stopped"
            )
            self._context.instance.add_run_tags(self._context.run_id, {BUDGET_TAG: "true"})

    def _provenance(self, asset: str) -> dict[str, str]:
        upstream = {name: name in ASSETS for name in UPSTREAM[asset]}
        return provenance_tags(self._context.instance, upstream)

    def _store(self, events: Iterable[DagsterEvent]) -> None:
        context = self._context
        report_events(context.instance, context.run_id, context.job_name, self._step, events)


def fail_run(failed: Mapping[PartitionKey, str]) -> None:
    """Fail the run if partitions failed in it, once all others are done.

    Raises:
        PartitionsFailedError: names the partitions and their errors.
    """
    if failed:
        raise PartitionsFailedError(
            f"{_named(failed)}. All others are done; the next run tries these again."
        )


def _named(failed: Mapping[PartitionKey, str]) -> str:
    """Return how many partitions failed, and the first of them with their errors."""
    shown = [f"{'|'.join(key)} ({error})" for key, error in sorted(failed.items())[:_NAMED]]
    more = " ..." if len(failed) > _NAMED else ""
    return f"{len(failed)} partitions failed: {'; '.join(shown)}{more}"
