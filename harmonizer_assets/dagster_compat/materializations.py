"""Materializations of many partitions in one run, and the versions that the instance shows.

Dagster's own way for one run to materialize many partitions is a range, the cross product of its
two ends. The partitions that new labels touch are scattered, so a step reports each of them itself.
The public `context.log_event` would do, but it stores events singly (9 ms each in the SQLite log)
and only when the step yields or ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    MultiPartitionKey,
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
from dagster._core.events import AssetMaterializationPlannedData, StepMaterializationData


def materialized(
    job_name: str,
    step_key: str,
    asset: str,
    metadata: Mapping[str, Any],
    tags: Mapping[str, str],
    partition: MultiPartitionKey | None = None,
) -> DagsterEvent:
    """Make the event of a step that has materialized an asset, or one partition of it."""
    partition_tags = {} if partition is None else get_tags_from_multi_partition_key(partition)
    content = AssetMaterialization(
        asset, partition=partition, metadata=metadata, tags={**partition_tags, **tags}
    )
    return DagsterEvent(
        event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=job_name,
        step_key=step_key,
        event_specific_data=StepMaterializationData(content, []),
    )


def planned(job_name: str, step_key: str, asset: str, partition: MultiPartitionKey) -> DagsterEvent:
    """Make the event of a partition that is planned to be materialized.

    Partitions of a failed run that were planned and not materialized are red in the web UI.
    """
    return DagsterEvent.build_asset_materialization_planned_event(
        job_name,
        step_key,
        AssetMaterializationPlannedData(AssetKey(asset), partition=str(partition)),
    )


def version_tags(code_version: str, data_version: str) -> dict[str, str]:
    """Make the tags of a materialization's versions."""
    return {CODE_VERSION_TAG: code_version, DATA_VERSION_TAG: data_version}


def provenance_tags(instance: DagsterInstance, upstream: Mapping[str, bool]) -> dict[str, str]:
    """Make the tags of the inputs of an asset, from which the UI derives whether it is stale.

    Args:
        instance: to which the upstream assets are reported.
        upstream: names of the upstream assets, with whether each has partitions.
    """
    latest = str(instance.event_log_storage.get_maximum_record_id() or 0)
    tags = {}
    for name, has_partitions in upstream.items():
        key = AssetKey(name)
        # Of a partition the UI looks for versions that are later than that event; of an asset
        # without partitions it compares the version.
        tags[get_input_event_pointer_tag(key)] = latest
        version = latest if has_partitions else reported_version(instance, name)
        tags[get_input_data_version_tag(key)] = version or NULL_DATA_VERSION.value
    return tags


def reported_versions(instance: DagsterInstance, asset: str) -> dict[str, str]:
    """Look up the data version that the instance shows for each materialized partition."""
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        AssetKey(asset), DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
    )
    return {key: found[DATA_VERSION_TAG] for key, found in tags.items()}


def reported_version(instance: DagsterInstance, asset: str) -> str | None:
    """Look up the data version that the instance shows for an asset without partitions."""
    record = instance.get_latest_data_version_record(AssetKey(asset))
    if record is None:
        return None
    version = extract_data_version_from_entry(record.event_log_entry)
    return None if version is None else version.value
