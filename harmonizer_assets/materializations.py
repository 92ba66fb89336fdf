"""Materializations of many partitions in one run, each with its own metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dagster import (
    AssetExecutionContext,
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
from dagster._core.execution.context.metadata_logging import (
    AssetMetadataHandle,
    OutputMetadataAccumulator,
    OutputMetadataHandle,
)

from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.llm.plan import Plan
from harmonizer_assets.core.models import NO_MODEL
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.quality import Quality
from harmonizer_assets.core.results import PartitionResult
from harmonizer_assets.partitions import from_dagster, to_dagster

_WORD_KEY = TableColumn("word_key", "string", description="image / receipt / line / word")
_SCORE = TableColumn("outlier_score", "float", description="0..1, higher is more suspicious")
_SCORED_SCHEMA = TableSchema(
    [
        TableColumn("word", "string", description="The word as OCR read it"),
        _SCORE,
        TableColumn("suggested_label", "string", description="The label type that fits better"),
        _WORD_KEY,
    ]
)
_EXPLAINED_SCHEMA = TableSchema(
    [
        TableColumn("line", "string", description="Its row on the receipt, the word marked"),
        TableColumn("reasoning", "string", description="Why it is doubted"),
        _SCORE,
        _WORD_KEY,
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
    """A small table of suspicious labels, with the explanations of those that have one."""
    records = []
    schema = _SCORED_SCHEMA
    for row in rows:
        key = " / ".join(
            str(row[name]) for name in ("image_id", "receipt_id", "line_id", "word_id")
        )
        shown: dict[str, str | float] = {
            "outlier_score": float(row["outlier_score"]),
            "word_key": key,
        }
        if row.get("reasoning"):
            schema = _EXPLAINED_SCHEMA
            shown |= {"line": row["line"] or "", "reasoning": row["reasoning"]}
        else:
            shown |= {
                "word": str(row["word_text"]),
                "suggested_label": row["suggested_label"] or "",
            }
        records.append(
            TableRecord({column.name: shown.get(column.name, "") for column in schema.columns})
        )
    return MetadataValue.table(records, schema=schema)


def model_metadata(harmonizer: Harmonizer, version: str) -> dict[str, Any]:
    """What the UI shows of the model in force; without one, why there is none."""
    row = harmonizer.models.latest()
    if version == NO_MODEL or row is None:
        return {
            "model_version": NO_MODEL,
            "reason": "too few labels, or another scorer is set: similar words alone judge",
        }
    shown = {name: value for name, value in row.items() if value is not None}
    shown["model_version"] = shown.pop("version")
    shown["fitted_at"] = MetadataValue.timestamp(shown["fitted_at"])
    return {**shown, "guarantee": harmonizer.guarantee()}


def quality_table(groups: Mapping[str, Quality]) -> MetadataValue:
    """The main figures of each group of labels."""
    names = ("labels", "errors", "precision", "recall", "f1", "auprc", "suggestion_accuracy")
    counts = ("labels", "errors")
    schema = TableSchema(
        [
            TableColumn("group", "string"),
            *(TableColumn(name, "int" if name in counts else "float") for name in names),
        ]
    )
    records = [
        TableRecord({"group": group, **{name: _known(getattr(quality, name)) for name in names}})
        for group, quality in groups.items()
    ]
    return MetadataValue.table(records, schema=schema)


def _known(value: float | int | str | None) -> float | int | str:
    if value is None:
        return ""
    return round(value, 4) if isinstance(value, float) else value


def pattern_metadata(harmonizer: Harmonizer) -> dict[str, Any]:
    """What the UI shows of the patterns: how many, the most frequent, the findings."""
    tables = {
        "patterns": "SELECT pattern_id, sentence, support, against FROM label_patterns "
        "ORDER BY support DESC, pattern_id LIMIT 20",
        "findings": "SELECT sentence, n_labels, n_merchants, line FROM findings "
        "ORDER BY n_labels DESC, sentence LIMIT 20",
    }
    shown = {
        name: MetadataValue.table(
            [
                TableRecord({column: _known(value) for column, value in row.items()})
                for row in harmonizer.warehouse.query(sql).to_pylist()
            ]
        )
        for name, sql in tables.items()
        if harmonizer.warehouse.query(sql).num_rows
    }
    return {"dagster/row_count": harmonizer.counts().patterns, **shown}


def report_metadata(file: Path) -> dict[str, Any]:
    """Where the report lies, as a path and as an address that a browser opens."""
    return {
        "report": MetadataValue.path(str(file)),
        "open": MetadataValue.url(file.as_uri()),
        "bytes": file.stat().st_size,
    }


def plan_metadata(plan: Plan) -> dict[str, Any]:
    """What the UI shows of a plan."""
    shown = {name: value for name, value in plan.to_dict().items() if name != "prompt"}
    if plan.usd is None:
        shown["usd"] = "unknown: no price for this model"
    return {**shown, "prompt": MetadataValue.json(plan.prompt or [])}


def report_usage(context: OpExecutionContext, harmonizer: Harmonizer) -> None:
    """Report what a run has used as an event of the asset `llm_usage`, if it asked a model."""
    by_type = harmonizer.usage(context.run_id)
    if not by_type:
        return
    totals = asdict(harmonizer.llm_totals)
    cost = totals["cost_usd"]
    totals["cost_usd"] = "unknown: no price for this model" if cost is None else round(cost, 6)
    columns = [TableColumn("label_type", "string")] + [
        TableColumn(name, "float" if name == "cost_usd" else "int")
        for name in by_type[0]
        if name != "label_type"
    ]
    records = [
        TableRecord({name: "" if value is None else value for name, value in row.items()})
        for row in by_type
    ]
    table = MetadataValue.table(records, schema=TableSchema(columns))
    context.log_event(
        AssetMaterialization("llm_usage", metadata={**totals, "by_label_type": table})
    )


def report_materializations(
    context: OpExecutionContext, asset: str, results: Iterable[PartitionResult]
) -> int:
    """Report partitions as materialized by this step; how many there were.

    Dagster's own way for one run to materialize many partitions is a range, the cross product of
    its two ends. The partitions that new labels touch are scattered, so the step reports each
    itself; the events go to the storage in batches of DAGSTER_EVENT_BATCH_SIZE. When `results`
    fails half way, the partitions that it did yield are reported all the same.
    """
    batch = generate_event_batch_id()
    pending: DagsterEvent | None = None
    count = 0
    try:
        for result in results:
            if pending is not None:
                _store(context, pending, DagsterEventBatchMetadata(batch, is_end=False))
            pending = _event(context, asset, result)
            count += 1
    finally:
        if pending is not None:
            _store(context, pending, DagsterEventBatchMetadata(batch, is_end=True))
    return count


def add_partition_metadata(
    context: AssetExecutionContext, metadata: Mapping[PartitionKey, Mapping[str, Any]]
) -> None:
    """Give each partition of a range its own metadata, for the events that Dagster makes of it.

    `AssetExecutionContext.add_asset_metadata` looks through the whole range, and copies what was
    added before, at every call: minutes for a range of some thousands.
    """
    step = context.get_step_execution_context()
    added: dict[OutputMetadataHandle | AssetMetadataHandle, Mapping[str, Any]] = {
        AssetMetadataHandle(
            asset_key=context.asset_key, partition_key=to_dagster(partition)
        ): content
        for partition, content in metadata.items()
    }
    step._metadata_accumulator = OutputMetadataAccumulator(
        per_output_metadata={**step._metadata_accumulator.per_output_metadata, **added}
    )


def reported_versions(instance: DagsterInstance, asset: str) -> dict[PartitionKey, str]:
    """The data version that the instance shows for each materialized partition of an asset."""
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        AssetKey(asset), DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
    )
    return {from_dagster(key): found[DATA_VERSION_TAG] for key, found in tags.items()}


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
