"""Materializations of many partitions in one run, each with its own metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    OpExecutionContext,
)
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    NULL_DATA_VERSION,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.partitions.utils import get_tags_from_multi_partition_key
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEventBatchMetadata,
    StepMaterializationData,
    generate_event_batch_id,
)

from harmonizer_assets.core.errors import PartitionsFailedError
from harmonizer_assets.core.harmonizer import ASSETS, AssetName, Harmonizer
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.results import PartitionResult
from harmonizer_assets.core.settings import JudgeName
from harmonizer_assets.lineage import CODE_VERSIONS, UPSTREAM, column_lineage
from harmonizer_assets.metadata import partition_metadata, picture, usage_metadata
from harmonizer_assets.partitions import from_dagster, to_dagster
from harmonizer_assets.progress import LogProgress

_PICTURED: Final = 12
"""Runs of at most so many partitions get a picture of each."""
_NAMED: Final = 20
"""Partitions that a message names; the events of the run name them all."""


@dataclass
class StageReport:
    """What a stage of a run did.

    Attributes:
        computed: partitions whose rows were written.
        rows: labels in those partitions.
        reported: partitions reported as materialized.
        outcomes: labels by outcome, of all partitions.
        failed: partitions that could not be computed, and why.
    """

    computed: int = 0
    rows: int = 0
    reported: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failed: dict[PartitionKey, str] = field(default_factory=dict)

    def totals(self) -> dict[str, int]:
        """The figures that the run's outcome is made of."""
        return {"computed": self.computed, "rows": self.rows, "failed": len(self.failed)}


def materialize_partitions(
    context: OpExecutionContext,
    harmonizer: Harmonizer,
    asset: AssetName,
    partitions: Sequence[PartitionKey],
    *,
    judge: JudgeName,
    refresh: bool,
    shown: Mapping[PartitionKey, str] | None = None,
) -> StageReport:
    """Compute one asset for partitions, and report each as soon as its rows are committed.

    A partition that fails is reported as failed once the run fails, see `fail_run`; the others go
    on.

    Args:
        context: of the step.
        harmonizer: of the home.
        asset: which asset.
        partitions: in any order; those that hold no labels compute nothing.
        judge: who decides ambiguous labels.
        refresh: compute partitions again although their labels have not changed.
        shown: versions that the instance shows already; a partition that has not changed is not
            reported again. None has all reported.
    """
    report = StageReport()

    def worth_reporting() -> Iterator[PartitionResult]:
        for result in harmonizer.materialize(
            asset,
            sorted(partitions),
            judge=judge,
            run_id=context.run_id,
            refresh=refresh,
            on_progress=LogProgress(context.log),
        ):
            report.outcomes.update(result.counts)
            if result.error is not None:
                report.failed[result.partition] = result.error
                continue
            report.computed += result.changed
            report.rows += result.labels if result.changed else 0
            if result.changed or shown is None or shown.get(result.partition) != result.fingerprint:
                yield result

    pictured = len(partitions) <= _PICTURED and asset == "similarity_matches"
    report.reported = report_materializations(
        context, asset, worth_reporting(), harmonizer.picture_of if pictured else None
    )
    if report.failed:
        _plan(context, asset, report.failed)
        context.log.error(f"{asset}: {_named(report.failed)}")
        for row in harmonizer.failed_partitions(context.run_id)[:1]:
            context.log.error(f"the last of the tracebacks:\n{row['traceback']}")
    if asset == "llm_verdicts":
        _report_usage(context, harmonizer)
    return report


def fail_run(failed: Mapping[PartitionKey, str]) -> None:
    """Fail the run if partitions failed in it, once all others are done.

    Raises:
        PartitionsFailedError: names the partitions and their errors.
    """
    if failed:
        raise PartitionsFailedError(
            f"{_named(failed)}. All others are done; the next run tries these again."
        )


def report_materializations(
    context: OpExecutionContext,
    asset: AssetName,
    results: Iterable[PartitionResult],
    picture_of: Callable[[PartitionKey], bytes] | None = None,
) -> int:
    """Report partitions as materialized by this step; how many there were.

    Dagster's own way for one run to materialize many partitions is a range, the cross product of
    its two ends. The partitions that new labels touch are scattered, so the step reports each
    itself; the events go to the storage in batches of DAGSTER_EVENT_BATCH_SIZE. When `results`
    fails half way, the partitions that it did yield are reported all the same.

    Args:
        context: of the step.
        asset: which asset.
        results: what was computed.
        picture_of: draws a picture of a partition, for a PNG image in its metadata.
    """
    batch = generate_event_batch_id()
    provenance = _provenance(context.instance, asset)
    pending: PartitionResult | None = None
    count = 0

    def store(result: PartitionResult, *, last: bool) -> None:
        metadata = partition_metadata(result)
        if picture_of is not None and result.labels:
            metadata["similarity_distribution"] = picture(picture_of(result.partition))
        if last:
            # The UI reads it from the latest event; on each of thousands it would only take room.
            metadata |= column_lineage(asset)
        event = _event(context, _partition_materialization(asset, result, metadata, provenance))
        _store(context, event, DagsterEventBatchMetadata(batch, is_end=last))

    try:
        for result in results:
            if pending is not None:
                store(pending, last=False)
            pending = result
            count += 1
    finally:
        if pending is not None:
            store(pending, last=True)
    return count


def report_materialization(
    context: OpExecutionContext,
    asset: str,
    metadata: Mapping[str, Any],
    data_version: str | None = None,
) -> None:
    """Report an asset without partitions as materialized by this step.

    Args:
        context: of the step.
        asset: which asset.
        metadata: what the UI shows of it.
        data_version: equal for equal content; by default each materialization is another version.
    """
    tags = _provenance(context.instance, asset)
    tags[DATA_VERSION_TAG] = data_version or context.run_id
    materialization = AssetMaterialization(asset, metadata=metadata, tags=tags)
    # Not `log_event`, which waits for the step's end: what is reported next names this version.
    _store(context, _event(context, materialization))


def reported_versions(instance: DagsterInstance, asset: str) -> dict[PartitionKey, str]:
    """The data version that the instance shows for each materialized partition of an asset."""
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        AssetKey(asset), DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
    )
    return {from_dagster(key): found[DATA_VERSION_TAG] for key, found in tags.items()}


def reported_version(instance: DagsterInstance, asset: str) -> str | None:
    """The data version that the instance shows for an asset without partitions."""
    record = instance.get_latest_data_version_record(AssetKey(asset))
    if record is None:
        return None
    version = extract_data_version_from_entry(record.event_log_entry)
    return None if version is None else version.value


def _provenance(instance: DagsterInstance, asset: str) -> dict[str, str]:
    """Tags that say what an asset was made of, by which the UI knows when it is out of date."""
    tags = {CODE_VERSION_TAG: CODE_VERSIONS[asset]}
    latest = str(instance.event_log_storage.get_maximum_record_id() or 0)
    for upstream in UPSTREAM[asset]:
        key = AssetKey(upstream)
        # Of a partition the UI looks for versions that are later than that event; of an asset
        # without partitions it compares the version.
        tags[get_input_event_pointer_tag(key)] = latest
        version = latest if upstream in ASSETS else reported_version(instance, upstream)
        tags[get_input_data_version_tag(key)] = version or NULL_DATA_VERSION.value
    return tags


def _partition_materialization(
    asset: AssetName,
    result: PartitionResult,
    metadata: Mapping[str, Any],
    provenance: Mapping[str, str],
) -> AssetMaterialization:
    key = to_dagster(result.partition)
    tags = {
        **get_tags_from_multi_partition_key(key),
        DATA_VERSION_TAG: result.fingerprint,
        **provenance,
    }
    return AssetMaterialization(asset, partition=key, metadata=metadata, tags=tags)


def _event(context: OpExecutionContext, materialization: AssetMaterialization) -> DagsterEvent:
    return DagsterEvent(
        event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=context.job_name,
        step_key=str(context.op_handle),
        event_specific_data=StepMaterializationData(materialization, []),
    )


def _plan(context: OpExecutionContext, asset: AssetName, failed: Iterable[PartitionKey]) -> None:
    """Say that partitions were to be materialized: those of a failed run that were not are red."""
    batch = generate_event_batch_id()
    keys = sorted(failed)
    for partition in keys:
        event = DagsterEvent.build_asset_materialization_planned_event(
            context.job_name,
            str(context.op_handle),
            AssetMaterializationPlannedData(AssetKey(asset), partition=str(to_dagster(partition))),
        )
        is_end = partition == keys[-1]
        _store(context, event, DagsterEventBatchMetadata(batch, is_end=is_end))


def _store(
    context: OpExecutionContext,
    event: DagsterEvent,
    batch: DagsterEventBatchMetadata | None = None,
) -> None:
    context.instance.report_dagster_event(event, context.run_id, batch_metadata=batch)


def _report_usage(context: OpExecutionContext, harmonizer: Harmonizer) -> None:
    """Report what a run has used as an event of the asset `llm_usage`, if it asked a model."""
    metadata = usage_metadata(harmonizer, context.run_id)
    if metadata is not None:
        report_materialization(context, "llm_usage", metadata)


def _named(failed: Mapping[PartitionKey, str]) -> str:
    """How many partitions failed, and the first of them with their errors."""
    shown = [f"{'|'.join(key)} ({error})" for key, error in sorted(failed.items())[:_NAMED]]
    more = " ..." if len(failed) > _NAMED else ""
    return f"{len(failed)} partitions failed: {'; '.join(shown)}{more}"
