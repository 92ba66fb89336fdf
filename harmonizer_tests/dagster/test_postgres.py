from __future__ import annotations

import shutil

import pytest
from dagster import AssetKey, DagsterEventType
from dagster._core.run_coordinator import QueuedRunCoordinator

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.support.dagster_runs import (
    PARTITIONED,
    PUBLISHED,
    execute,
    range_run,
    shown,
    statuses,
)
from harmonizer_tests.support.postgres import DEPLOYED, keep_in_postgres
from harmonizer_tests.support.receipts import OFFLINE, shop_receipts

postgres = pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")


@pytest.fixture
def server_home(home, postgres_url, monkeypatch):
    """A home whose instance is the deployed one."""
    keep_in_postgres(home, postgres_url, monkeypatch)
    return home


def test_the_deployed_instance_is_on_postgres_as_a_whole(server_home):
    from harmonizer_assets.dagster_compat.event_log_postgres import BatchingPostgresEventLogStorage

    with open_instance(server_home) as instance:
        assert isinstance(instance.event_log_storage, BatchingPostgresEventLogStorage)
        assert isinstance(instance.run_storage, postgres.PostgresRunStorage)
        assert isinstance(instance.schedule_storage, postgres.PostgresScheduleStorage)
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        limits = instance.get_concurrency_config().run_queue_config
        assert limits.max_concurrent_runs == 2
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled
    assert not list(server_home.dagster.rglob("*.db"))


def test_the_deployed_file_holds_no_address_and_no_secret():
    text = DEPLOYED.read_text()
    assert "env: DAGSTER_PG_URL" in text
    settings = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    assert "://" not in "\n".join(settings)


def test_a_run_without_the_address_says_which_variable_is_missing(home, monkeypatch):
    shutil.copy(DEPLOYED, home.dagster / "dagster.yaml")
    monkeypatch.delenv("DAGSTER_PG_URL", raising=False)
    with pytest.raises(ConfigurationError, match="DAGSTER_PG_URL"), open_instance(home):
        pass


def test_a_pipeline_on_postgres_materializes_every_partition(server_home, pipeline, tmp_path):
    shop_receipts().submit(pipeline, tmp_path)
    outcome = run_pipeline(pipeline.home, OFFLINE)
    held = set(pipeline.partitions.held())
    assert outcome.partitions_computed == dict.fromkeys(PARTITIONED, len(held))
    assert DEPLOYED.read_text() == (server_home.dagster / "dagster.yaml").read_text()
    with open_instance(server_home) as instance:
        for name in PARTITIONED:
            assert shown(instance, name) == held
            assert statuses(instance, server_home, name) == (held, set())
        assert len(instance.get_runs()) == 2
    assert run_pipeline(pipeline.home, OFFLINE).unchanged


def test_a_backfill_range_on_postgres_plans_and_materializes_it(server_home, pipeline, tmp_path):
    shop_receipts().submit(pipeline, tmp_path)
    with open_instance(server_home) as instance:
        execute(instance, server_home, "ingest_and_index")
        merchants = instance.get_dynamic_partitions("merchants")
        result = range_run(instance, server_home, f"DATE|{merchants[0]}", f"DATE|{merchants[-1]}")
        expected = {f"DATE|{merchant}" for merchant in merchants}
        planned, materialized = (
            instance.event_log_storage.get_asset_partitions_for_run(result.run_id, event_type)
            for event_type in (
                DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
                DagsterEventType.ASSET_MATERIALIZATION,
            )
        )
        partitions = {AssetKey(name): expected for name in PARTITIONED}
        # The step fits the model and publishes what was found, too.
        whole = {AssetKey(name): {None} for name in ("suspicion_model", *PUBLISHED)}
        assert planned == partitions
        assert materialized == partitions | whole
