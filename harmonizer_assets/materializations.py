"""Materializations of many partitions in one run, each with its own metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    MetadataValue,
    OpExecutionContext,
    TableColumn,
    TableRecord,
    TableSchema,
)
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.partitions.utils import get_tags_from_multi_partition_key
from dagster._core.events import (
    DagsterEventBatchMetadata,
    StepMaterializationData,
    generate_event_batch_id,
)

from harmonizer_assets.core.results import PartitionResult
from harmonizer_assets.partitions import to_dagster

_WORST_SCHEMA = TableSchema(
    [
        TableColumn("word", "string", description="The word as OCR read it"),
        TableColumn("outlier_score", "float", description="0..1, higher is more suspicious"),
        TableColumn("suggested_label", "string", description="The label type that fits better"),
        TableColumn("word_key", "string", description="image / receipt / line / word"),
    ]
)


def partition_metadata(result: PartitionResult) -> dict[str, Any]:
    """What the UI shows of one partition: counts, rates, time, the worst outliers."""
    metadata: dict[str, Any] = {
        "dagster/row_count": result.labels,
        "labels": result.labels,
        **result.counts,
        **result.metrics,
        "fingerprint": result.fingerprint,
        "seconds": round(result.seconds, 4),
        "unchanged": not result.changed,
    }
    if result.labels:
        for outcome, count in result.counts.items():
            metadata[f"{outcome}_rate"] = round(count / result.labels, 4)
    if result.worst:
        metadata["worst_outliers"] = worst_table(result.worst)
    return metadata


def worst_table(rows: Iterable[Mapping[str, Any]]) -> MetadataValue:
    """A small table of suspicious labels."""
    records = [
        TableRecord(
            {
                "word": str(row["word_text"]),
                "outlier_score": float(row["outlier_score"]),
                "suggested_label": row["suggested_label"] or "",
                "word_key": f"{row['image_id']} / {row['receipt_id']} / "
                f"{row['line_id']} / {row['word_id']}",
            }
        )
        for row in rows
    ]
    return MetadataValue.table(records, schema=_WORST_SCHEMA)


def report_materializations(
    context: OpExecutionContext, asset: str, results: Iterable[PartitionResult]
) -> int:
    """Report partitions as materialized by this step; how many there were.

    Dagster's own way for one run to materialize many partitions is a range, the cross product of
    its two ends. The partitions that new labels touch are scattered, so the step reports each
    itself; the events go to the storage in batches.
    """
    batch = generate_event_batch_id()
    pending: DagsterEvent | None = None
    count = 0
    for result in results:
        if pending is not None:
            _store(context, pending, DagsterEventBatchMetadata(batch, is_end=False))
        pending = _event(context, asset, result)
        count += 1
    if pending is not None:
        _store(context, pending, DagsterEventBatchMetadata(batch, is_end=True))
    return count


def materialized_partitions(instance: DagsterInstance, asset: str) -> set[str]:
    """The partition keys that the instance shows as materialized."""
    return instance.get_materialized_partitions(AssetKey(asset))


def _event(context: OpExecutionContext, asset: str, result: PartitionResult) -> DagsterEvent:
    key = to_dagster(result.partition)
    materialization = AssetMaterialization(
        asset,
        partition=key,
        metadata=partition_metadata(result),
        tags={
            **get_tags_from_multi_partition_key(key),
            DATA_VERSION_TAG: result.fingerprint,
        },
    )
    return DagsterEvent(
        event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=context.job_name,
        step_key=str(context.op_handle),
        event_specific_data=StepMaterializationData(materialization, []),
    )


def _store(
    context: OpExecutionContext, event: DagsterEvent, batch: DagsterEventBatchMetadata
) -> None:
    context.instance.report_dagster_event(event, context.run_id, batch_metadata=batch)
