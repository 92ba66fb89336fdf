"""Partitions that a step reports, as Dagster shows them."""

import pytest
from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetSelection,
    AssetSpec,
    DagsterInstance,
    Definitions,
    define_asset_job,
    in_process_executor,
    multi_asset,
)
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import PartitionResult
from harmonizer_assets.dagster_compat.materializations import reported_versions
from harmonizer_assets.defs.partitions import add_merchants, label_type_by_merchant, to_dagster
from harmonizer_assets.defs.reporting import DagsterReporter
from harmonizer_tests.support.dagster_runs import QUIET
from harmonizer_tests.support.events import ASSET

PARTITIONS = label_type_by_merchant(["DATE"])


def results(merchants: list[str], version: str = "v1") -> list[PartitionResult]:
    return [
        PartitionResult(PartitionKey("DATE", merchant), 3, True, version, {"valid": 3})
        for merchant in merchants
    ]


def report(instance: DagsterInstance, pipeline: Pipeline, found) -> None:
    @multi_asset(
        name="harmonize",
        specs=[AssetSpec(ASSET, partitions_def=PARTITIONS, skippable=True)],
    )
    def harmonize(context: AssetExecutionContext):
        DagsterReporter(context, pipeline).consume(ASSET, [], iter(found))
        yield from ()

    job = define_asset_job(
        "harmonize_job", AssetSelection.assets(ASSET), executor_def=in_process_executor
    )
    Definitions(assets=[harmonize], jobs=[job]).resolve_job_def(job.name).execute_in_process(
        instance=instance, run_config=QUIET
    )


def test_reported_partitions_are_green_in_the_ui_and_no_others(instance, pipeline):
    merchants = [f"m{i:04d}" for i in range(1_100)]
    add_merchants(instance, [*merchants, "not-computed"])
    report(instance, pipeline, results(merchants))
    green = {str(to_dagster(PartitionKey("DATE", merchant))) for merchant in merchants}
    assert instance.get_materialized_partitions(AssetKey(ASSET)) == green
    status = get_and_update_asset_status_cache_value(instance, AssetKey(ASSET), PARTITIONS)
    subset = status.deserialize_materialized_partition_subsets(PARTITIONS)
    assert set(subset.get_partition_keys()) == green


def test_the_latest_report_gives_a_partitions_version(instance, pipeline):
    report(instance, pipeline, results(["a", "b"], "v1"))
    report(instance, pipeline, results(["b"], "v2"))
    assert reported_versions(instance, ASSET) == {
        to_dagster(PartitionKey("DATE", "a")): "v1",
        to_dagster(PartitionKey("DATE", "b")): "v2",
    }


def test_partitions_finished_before_a_failure_are_reported(instance, pipeline):
    def failing():
        yield from results(["a", "b"])
        raise RuntimeError("the third fails")

    with pytest.raises(RuntimeError, match="the third fails"):
        report(instance, pipeline, failing())
    assert {*reported_versions(instance, ASSET)} == {
        to_dagster(PartitionKey("DATE", merchant)) for merchant in ("a", "b")
    }
