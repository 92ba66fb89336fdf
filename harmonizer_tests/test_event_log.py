from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy.event
from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    EventLogEntry,
    MultiPartitionKey,
    in_process_executor,
    job,
    op,
)
from dagster._core.definitions.partitions.utils import get_tags_from_multi_partition_key
from dagster._core.events import AssetMaterializationPlannedData, StepMaterializationData
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from sqlalchemy.engine import Engine

from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.results import PartitionResult
from harmonizer_assets.event_log import BatchingSqliteEventLogStorage
from harmonizer_assets.instance import open_instance
from harmonizer_assets.materializations import report_materializations, reported_versions
from harmonizer_assets.partitions import add_merchants, label_type_by_merchant, to_dagster

ASSET = "similarity_matches"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def instance(home):
    with open_instance(home) as instance:
        yield instance


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


def materialized(asset: str, merchant: str, second: int) -> EventLogEntry:
    key = MultiPartitionKey({"label_type": "DATE", "merchant": merchant})
    tags = {**get_tags_from_multi_partition_key(key), "dagster/data_version": f"v{second}"}
    content = AssetMaterialization(asset, partition=key, metadata={"labels": second}, tags=tags)
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


def rows(folder) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table of a log, but for the times at which rows were made."""
    found: dict[str, list[tuple[object, ...]]] = {}
    for file in sorted(folder.rglob("*.db")):
        with sqlite3.connect(file) as con:
            for table, columns in {
                "event_logs": "id, run_id, event, dagster_event_type, timestamp, step_key, "
                "asset_key, partition",
                "asset_keys": "asset_key, last_materialization, last_run_id, "
                "last_materialization_timestamp",
                "asset_event_tags": "asset_key, key, value, event_id, event_timestamp",
            }.items():
                query = f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3, 4"
                found[f"{file.stem}/{table}"] = con.execute(query).fetchall()
    return found


def test_a_batch_leaves_the_rows_that_single_events_leave(tmp_path):
    stock = SqliteEventLogStorage(str(tmp_path / "stock"))
    for event in batch():
        stock.store_event(event)
    batching = BatchingSqliteEventLogStorage(str(tmp_path / "batching"))
    batching.store_event_batch(batch())
    expected = rows(tmp_path / "stock")
    assert len(expected["index/asset_event_tags"]) == 5 * 3
    assert rows(tmp_path / "batching") == expected


def test_events_of_two_runs_in_one_batch_go_to_their_own_logs(tmp_path):
    storage = BatchingSqliteEventLogStorage(str(tmp_path))
    other = planned(ASSET, "a", 1)._replace(run_id="run-2")
    storage.store_event_batch([planned(ASSET, "a", 0), other])
    assert len(storage.get_records_for_run("run-1").records) == 1
    assert len(storage.get_records_for_run("run-2").records) == 1


def test_a_batch_takes_the_same_few_connections_however_large_it_is(tmp_path, monkeypatch):
    storage = BatchingSqliteEventLogStorage(str(tmp_path))
    opened: list[str] = []
    connect = SqliteEventLogStorage._connect
    monkeypatch.setattr(
        SqliteEventLogStorage,
        "_connect",
        lambda self, shard: (opened.append(shard), connect(self, shard))[1],
    )
    storage.store_event_batch([materialized(ASSET, f"m{i}", i) for i in range(300)])
    assert sorted(opened) == ["index", "run-1"]


def test_a_home_uses_the_batching_log_and_can_be_moved(home, tmp_path):
    with open_instance(home) as instance:
        assert isinstance(instance.event_log_storage, BatchingSqliteEventLogStorage)
        add_merchants(instance, ["alpha"])
    moved = type(home)(home.root.rename(tmp_path / "moved"))
    with open_instance(moved) as instance:
        assert instance.get_dynamic_partitions("merchants") == ["alpha"]
    assert not home.root.exists()


def results(merchants: list[str], version: str = "v1") -> list[PartitionResult]:
    return [
        PartitionResult(PartitionKey("DATE", merchant), 3, True, version, {"valid": 3})
        for merchant in merchants
    ]


def report(instance: DagsterInstance, found) -> None:
    @op
    def score(context) -> None:
        report_materializations(context, ASSET, found)

    @job(executor_def=in_process_executor)
    def harmonize() -> None:
        score()

    harmonize.execute_in_process(instance=instance, run_config=QUIET)


def test_reported_partitions_are_green_in_the_ui_and_no_others(instance):
    merchants = [f"m{i:04d}" for i in range(1_100)]
    add_merchants(instance, [*merchants, "not-computed"])
    report(instance, results(merchants))
    green = {str(to_dagster(PartitionKey("DATE", merchant))) for merchant in merchants}
    assert instance.get_materialized_partitions(AssetKey(ASSET)) == green
    status = get_and_update_asset_status_cache_value(
        instance, AssetKey(ASSET), label_type_by_merchant
    )
    subset = status.deserialize_materialized_partition_subsets(label_type_by_merchant)
    assert set(subset.get_partition_keys()) == green


def test_the_latest_report_gives_a_partitions_version(instance):
    report(instance, results(["a", "b"], "v1"))
    report(instance, results(["b"], "v2"))
    assert reported_versions(instance, ASSET) == {
        PartitionKey("DATE", "a"): "v1",
        PartitionKey("DATE", "b"): "v2",
    }


def test_partitions_finished_before_a_failure_are_reported(instance):
    def failing():
        yield from results(["a", "b"])
        raise RuntimeError("the third fails")

    with pytest.raises(RuntimeError, match="the third fails"):
        report(instance, failing())
    assert {key.merchant_key for key in reported_versions(instance, ASSET)} == {"a", "b"}


def test_a_dagster_yaml_that_dagster_refuses_is_a_clear_error(home):
    (home.dagster / "dagster.yaml").write_text("nonsense: [1\n")
    from harmonizer_assets.core.errors import ConfigurationError

    with (
        pytest.raises(ConfigurationError, match=r"dagster\.yaml: Dagster cannot use it"),
        open_instance(home),
    ):
        pass


def test_a_merchant_that_another_run_adds_in_the_same_moment_is_added_once(home):
    added_by_another = ["b"]
    with open_instance(home) as first, open_instance(home) as second:

        def interrupt(_connection, _cursor, statement, *_):
            if statement.startswith("INSERT INTO dynamic_partitions") and added_by_another:
                second.add_dynamic_partitions("merchants", [added_by_another.pop()])

        sqlalchemy.event.listen(Engine, "before_cursor_execute", interrupt)
        try:
            add_merchants(first, ["a", "b", "c"])
        finally:
            sqlalchemy.event.remove(Engine, "before_cursor_execute", interrupt)
        assert not added_by_another
        assert sorted(first.get_dynamic_partitions("merchants")) == ["a", "b", "c"]
