"""Events of a run as Dagster stores them."""

from __future__ import annotations

from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterEvent,
    DagsterEventType,
    EventLogEntry,
    MultiPartitionKey,
)
from dagster._core.definitions.partitions.utils import get_tags_from_multi_partition_key
from dagster._core.events import AssetMaterializationPlannedData, StepMaterializationData

ASSET = "similarity_matches"


def entry(event: DagsterEvent, second: int, run_id: str = "run-1") -> EventLogEntry:
    return EventLogEntry(
        error_info=None,
        level=20,
        user_message="",
        run_id=run_id,
        timestamp=1_700_000_000.0 + second,
        step_key="score",
        job_name="harmonize",
        dagster_event=event,
    )


def materialized(asset: str, merchant: str, second: int, **metadata: str) -> EventLogEntry:
    key = MultiPartitionKey({"label_type": "DATE", "merchant": merchant})
    tags = {**get_tags_from_multi_partition_key(key), "dagster/data_version": f"v{second}"}
    shown = {"labels": second, **metadata}
    content = AssetMaterialization(asset, partition=key, metadata=shown, tags=tags)
    return entry(
        DagsterEvent(
            DagsterEventType.ASSET_MATERIALIZATION.value,
            "harmonize",
            step_key="score",
            event_specific_data=StepMaterializationData(content, []),
        ),
        second,
    )


def planned(asset: str, merchant: str, second: int) -> EventLogEntry:
    key = MultiPartitionKey({"label_type": "DATE", "merchant": merchant})
    return entry(
        DagsterEvent.build_asset_materialization_planned_event(
            "harmonize", "score", AssetMaterializationPlannedData(AssetKey(asset), partition=key)
        ),
        second,
    )


def batch() -> list[EventLogEntry]:
    step = DagsterEvent(DagsterEventType.STEP_START.value, "harmonize", step_key="score")
    return [
        planned(ASSET, "a", 0),
        planned("outliers", "a", 1),
        materialized(ASSET, "a", 2),
        materialized(ASSET, "b", 3),
        entry(step, 4),
        materialized(ASSET, "a", 5),
        materialized("outliers", "b", 6),
        planned(ASSET, "c", 7),
        materialized(ASSET, "c", 8),
    ]
