from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
import sqlalchemy
from dagster import AssetKey, DagsterEventType
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.event_log.base import EventLogCursor
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from harmonizer_assets.core.errors import ConfigurationError
from harmonizer_assets.instance import open_instance
from harmonizer_assets.partitions import label_type_by_merchant, to_dagster
from harmonizer_assets.runs import run_pipeline
from harmonizer_tests.receipts import shop_receipts
from harmonizer_tests.test_dagster import PARTITIONED, execute, range_run, shown
from harmonizer_tests.test_event_log import ASSET, batch, materialized, planned

postgres = pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")
DEPLOYED = Path(__file__).parents[1] / "deploy" / "dagster.postgres.yaml"


def batching(url: str):
    from harmonizer_assets.event_log_postgres import BatchingPostgresEventLogStorage

    return BatchingPostgresEventLogStorage(url)


@pytest.fixture
def server_home(home, postgres_url, monkeypatch):
    """A home whose instance is the deployed one."""
    shutil.copy(DEPLOYED, home.dagster / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_PG_URL", postgres_url)
    return home


def rows(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table of a log, but for the times at which rows were made."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        return {
            table: [
                tuple(row)
                for row in connection.exec_driver_sql(
                    f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3, 4"
                )
            ]
            for table, columns in {
                "event_logs": "id, run_id, event, dagster_event_type, timestamp, step_key, "
                "asset_key, partition",
                "asset_keys": "asset_key, last_materialization, last_run_id, asset_details, "
                "wipe_timestamp, last_materialization_timestamp, tags, cached_status_data",
                "asset_event_tags": "asset_key, key, value, event_id, event_timestamp",
            }.items()
        }


# The event log


def test_a_batch_leaves_the_rows_that_single_events_leave(postgres_url, second_postgres_url):
    stock = postgres.PostgresEventLogStorage(postgres_url)
    for event in batch():
        stock.store_event(event)
    batching(second_postgres_url).store_event_batch(batch())
    expected = rows(postgres_url)
    assert len(expected["event_logs"]) == len(batch())
    assert len(expected["asset_event_tags"]) == 5 * 3
    assert rows(second_postgres_url) == expected


def test_a_batch_takes_the_same_few_statements_however_large_it_is(postgres_url):
    storage = batching(postgres_url)
    statements: list[str] = []

    @sqlalchemy.event.listens_for(storage._engine, "before_cursor_execute")
    def count(connection, cursor, statement, parameters, context, many) -> None:
        if statement.startswith(("INSERT", "NOTIFY")):
            statements.append(statement.split("(")[0].strip())

    def take(events) -> list[str]:
        statements.clear()
        storage.store_event_batch(events)
        return list(statements)

    few = [planned(ASSET, f"m{i}", i) for i in range(3)]
    many = [planned(ASSET, f"m{i}", i) for i in range(500)]
    assert take(few) == take(many) == ["INSERT INTO event_logs", "INSERT INTO asset_keys"]


def test_a_batch_with_several_assets_shows_each_ones_latest_event(postgres_url):
    storage = batching(postgres_url)
    storage.store_event_batch(
        [materialized("outliers", "a", 1), materialized(ASSET, "a", 2), planned("labels", "a", 3)]
    )
    for name, second in (("outliers", 1), (ASSET, 2)):
        latest = storage.get_latest_materialization_events([AssetKey(name)])[AssetKey(name)]
        assert latest.asset_materialization.metadata["labels"].value == second
    assert storage.has_asset_key(AssetKey("labels"))


def test_the_live_log_of_a_run_gets_the_events_of_a_batch(postgres_url):
    storage = batching(postgres_url)
    storage.store_event(planned(ASSET, "a", 0))
    seen: list[str] = []
    all_seen = threading.Event()

    def callback(event, cursor) -> None:
        seen.append(event.get_dagster_event().partition)
        if len(seen) == 20:
            all_seen.set()

    start = EventLogCursor.from_storage_id(1).to_string()
    storage.watch("run-1", start, callback)
    try:
        keys = [f"m{i}" for i in range(20)]
        storage.store_event_batch([materialized(ASSET, key, i) for i, key in enumerate(keys)])
        assert all_seen.wait(60)
    finally:
        storage.dispose()
    assert seen == [f"DATE|{key}" for key in keys]


def test_two_runs_that_write_to_the_same_assets_do_not_block_each_other(postgres_url):
    storage = batching(postgres_url)
    failures: list[BaseException] = []

    def write(run_id: str, assets: list[str]) -> None:
        try:
            for second in range(20):
                storage.store_event_batch(
                    [planned(name, "a", second)._replace(run_id=run_id) for name in assets]
                )
        except BaseException as error:
            failures.append(error)

    names = [f"asset-{number}" for number in range(10)]
    threads = [
        threading.Thread(target=write, args=("run-1", names)),
        threading.Thread(target=write, args=("run-2", names[::-1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {len(storage.get_records_for_run(run).records) for run in ("run-1", "run-2")} == {200}


# The instance of a server


def test_the_deployed_instance_is_on_postgres_as_a_whole(server_home):
    from harmonizer_assets.event_log_postgres import BatchingPostgresEventLogStorage

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


def test_a_pipeline_on_postgres_materializes_every_partition(server_home, harmonizer, tmp_path):
    shop_receipts().submit(harmonizer, tmp_path)
    outcome = run_pipeline(harmonizer, judge="offline")
    held = set(harmonizer.partitions())
    assert outcome.partitions_computed == dict.fromkeys(PARTITIONED, len(held))
    assert DEPLOYED.read_text() == (server_home.dagster / "dagster.yaml").read_text()
    with open_instance(server_home) as instance:
        for name in PARTITIONED:
            assert shown(instance, name) == held
            status = get_and_update_asset_status_cache_value(
                instance, AssetKey(name), label_type_by_merchant
            )
            subset = status.deserialize_materialized_partition_subsets(label_type_by_merchant)
            assert set(subset.get_partition_keys()) == {str(to_dagster(key)) for key in held}
        assert len(instance.get_runs()) == 3
    assert run_pipeline(harmonizer, judge="offline").unchanged


def test_a_backfill_range_on_postgres_plans_and_materializes_it(server_home, harmonizer, tmp_path):
    shop_receipts().submit(harmonizer, tmp_path)
    with open_instance(server_home) as instance:
        execute(instance, "ingest_and_index")
        merchants = instance.get_dynamic_partitions("merchants")
        result = range_run(instance, f"DATE|{merchants[0]}", f"DATE|{merchants[-1]}")
        expected = {f"DATE|{merchant}" for merchant in merchants}
        for event_type in (
            DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
            DagsterEventType.ASSET_MATERIALIZATION,
        ):
            stored = instance.event_log_storage.get_asset_partitions_for_run(
                result.run_id, event_type
            )
            assert stored == {AssetKey(name): expected for name in PARTITIONED}
