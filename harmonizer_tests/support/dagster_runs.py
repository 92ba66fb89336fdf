"""Runs of jobs and of ranges of partitions, and what the instance shows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dagster import AssetKey, AssetMaterialization, DagsterInstance, ExecuteInProcessResult
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import ASSETS
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.dagster_compat.materializations import reported_versions
from harmonizer_assets.definitions import build_definitions
from harmonizer_assets.defs.partitions import from_dagster, label_type_by_merchant, to_dagster

PARTITIONED: Final = ASSETS
PUBLISHED: Final = (
    *("merchant_alarms", "receipt_alarms", "label_patterns", "missing_labels"),
    *("validation_queue", "harmonization_report"),
)
"""Assets without partitions that the step of the partitioned ones publishes at its end."""
QUIET: Final[Mapping[str, Any]] = {
    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
}


def execute(
    instance: DagsterInstance,
    home: Home,
    job: str,
    config: Mapping[str, Any] | None = None,
    **options: Any,
) -> ExecuteInProcessResult:
    """Execute a job of the home in this process, as a sensor or a schedule has it executed."""
    return (
        build_definitions(home)
        .resolve_job_def(job)
        .execute_in_process(instance=instance, run_config={**QUIET, **(config or {})}, **options)
    )


def materialize(
    instance: DagsterInstance,
    home: Home,
    assets: Sequence[str] = PARTITIONED,
    config: Mapping[str, Any] | None = None,
    **options: Any,
) -> ExecuteInProcessResult:
    """Materialize assets as the UI's button does; of partitioned ones it says which partition."""
    return (
        build_definitions(home)
        .resolve_implicit_global_asset_job_def()
        .execute_in_process(
            instance=instance,
            run_config={**QUIET, **(config or {})},
            asset_selection=[AssetKey(asset) for asset in assets],
            **options,
        )
    )


def range_run(
    instance: DagsterInstance,
    home: Home,
    first: str,
    last: str,
    config: Mapping[str, Any] | None = None,
) -> ExecuteInProcessResult:
    """What the UI's backfill launches: one run of a range of partitions."""
    tags = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
    return materialize(instance, home, config=config, tags=tags)


def shown(instance: DagsterInstance, asset: str) -> set[PartitionKey]:
    """The partitions of which the instance has a materialization."""
    return {from_dagster(key) for key in instance.get_materialized_partitions(AssetKey(asset))}


def shown_versions(instance: DagsterInstance, asset: str) -> dict[PartitionKey, str]:
    """The data version that the instance shows for each materialized partition."""
    return {from_dagster(key): found for key, found in reported_versions(instance, asset).items()}


def last_materializations(
    instance: DagsterInstance, asset: str
) -> dict[PartitionKey, AssetMaterialization]:
    """The latest materialization of each partition."""
    records = instance.fetch_materializations(AssetKey(asset), limit=1_000).records
    return {
        from_dagster(str(record.partition_key)): record.asset_materialization
        for record in reversed(records)
        if record.asset_materialization is not None
    }


def statuses(
    instance: DagsterInstance, home: Home, asset: str
) -> tuple[set[PartitionKey], set[PartitionKey]]:
    """What the UI shows as materialized, and what as failed."""
    partitions = label_type_by_merchant(Taxonomy.of_home(home).names)
    cached = get_and_update_asset_status_cache_value(instance, AssetKey(asset), partitions)
    assert cached is not None
    green = cached.deserialize_materialized_partition_subsets(partitions)
    red = cached.deserialize_failed_partition_subsets(partitions)
    return (
        {from_dagster(key) for key in green.get_partition_keys()},
        {from_dagster(key) for key in red.get_partition_keys()},
    )


def stale_causes(
    instance: DagsterInstance, home: Home, asset: str, *partitions: PartitionKey
) -> list[str]:
    """Why the UI would call an asset, or partitions of it, out of date."""
    graph = build_definitions(home).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    keys: list[str | None] = [str(to_dagster(partition)) for partition in partitions]
    causes = [resolver.get_stale_causes(AssetKey(asset), key) for key in keys or [None]]
    return [cause.reason for found in causes for cause in found]
