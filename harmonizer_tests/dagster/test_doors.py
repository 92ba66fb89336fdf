"""Whichever door a run comes through, it does the same and leaves the same things behind."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pytest
from dagster import AssetKey, DagsterInstance, build_sensor_context

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.defs.partitions import to_dagster
from harmonizer_assets.defs.resources import HomeResource
from harmonizer_assets.defs.schedules import nightly_catch_up
from harmonizer_assets.defs.sensors import new_labels_sensor
from harmonizer_tests.support.dagster_runs import PUBLISHED, execute, materialize, range_run
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import OFFLINE, Receipts, harmonize, table
from harmonizer_tests.support.troubled import MISNAMED, SHIFTED, troubled_receipts

RESULTS = (
    *("words", "labels", "similarity_matches", "judgements", "outliers", "label_decisions"),
    *("merchant_alarms", "receipt_alarms", "label_patterns", "missing_labels", "suspicion_models"),
)


# The doors


def command_line(home: Home) -> None:
    troubled_receipts().submit(Pipeline(home), home.scratch / "files")
    run_pipeline(home, OFFLINE, log_level="CRITICAL")


def sensor(home: Home) -> None:
    troubled_receipts().submit(Pipeline(home), home.scratch / "files")
    with open_instance(home) as instance:
        resources = {"home": HomeResource(home=str(home.root))}
        context = build_sensor_context(instance=instance, resources=resources)
        [request] = new_labels_sensor.evaluate_tick(context).run_requests or []
        assert execute(instance, home, new_labels_sensor.job_name, tags=dict(request.tags)).success


def web_ui(home: Home) -> None:
    """All partitions in two backfills, each of one range."""
    types = copy_indexed(home).taxonomy.names
    with open_instance(home) as instance:
        merchants = instance.get_dynamic_partitions("merchants")
        for part in (types[:9], types[9:]):
            first, last = f"{part[0]}|{merchants[0]}", f"{part[-1]}|{merchants[-1]}"
            assert range_run(instance, home, first, last).success


def schedule(home: Home) -> None:
    copy_indexed(home)
    with open_instance(home) as instance:
        assert execute(instance, home, nightly_catch_up.job_name).success


def copy_indexed(home: Home) -> Pipeline:
    """Fill an empty home with an ingested batch, of which no partition is computed."""
    copy_home(home, "a troubled batch, ingested by a job", ingest_and_index)
    return Pipeline(home)


def ingest_and_index(home: Home) -> None:
    troubled_receipts().submit(Pipeline(home), home.scratch / "files")
    with open_instance(home) as instance:
        execute(instance, home, "ingest_and_index")


def results(pipeline: Pipeline, *leave_out: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of all tables that a run writes, without its times and some more columns."""
    stored = pipeline.warehouse.read(lambda con: all_rows(con, RESULTS))
    return {
        name: [
            {
                column: value
                for column, value in row.items()
                if not (re.search("_at$|_time$|^seconds$", column) or column in leave_out)
            }
            for row in stored[name]
        ]
        for name in RESULTS
    }


@pytest.fixture(scope="module", autouse=True)
def _without_pictures():
    """As in the tests' own runs, in those that they share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        yield


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """A home whose batch a Python caller has taken."""
    folder = tmp_path_factory.mktemp("python")
    pipeline = Pipeline(Home(folder / "home").ensure())
    troubled_receipts().submit(pipeline, folder / "files")
    harmonize(pipeline)
    return pipeline


@pytest.fixture(scope="module", params=[command_line, sensor, web_ui, schedule])
def door(request):
    return request.param


@pytest.fixture(scope="module")
def entered(door, tmp_path_factory):
    """A home whose batch has been taken through a door."""
    home = Home(tmp_path_factory.mktemp(door.__name__) / "home").ensure()
    door(home)
    return Pipeline(home)


def test_every_door_leads_to_the_same_tables(door, entered, expected):
    # The examples in an explanation are taken from labels that have been scored by then.
    leave_out = ["examples"] if door is web_ui else []
    found, wanted = results(entered, *leave_out), results(expected, *leave_out)
    for name in RESULTS:
        assert found[name] == wanted[name]
    assert [row["image_id"] for row in found["merchant_alarms"]] == [MISNAMED]
    assert [row["image_id"] for row in found["receipt_alarms"]] == [SHIFTED]
    assert len(found["label_patterns"]) == 1
    assert entered.stale(OFFLINE) == []


def test_a_python_caller_leaves_everything_published(expected):
    assert_published(expected)


def test_every_door_leaves_everything_published(entered):
    assert_published(entered)


# What a run publishes


@dataclass(frozen=True)
class Copy:
    """The read-only copy of the tables, as a reader's shell sees it."""

    home: Home

    def rows(self, name: str) -> list[dict[str, Any]]:
        return self.tables([name])[name]

    def tables(self, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        with duckdb.connect(self.home.snapshot, read_only=True) as reader:
            return all_rows(reader, names)


def all_rows(con: duckdb.DuckDBPyConnection, names: Sequence[str]) -> dict[str, list[Any]]:
    """The rows of tables, all of one moment: opening the file for each takes longer than they."""
    return {
        name: con.sql(f"SELECT * FROM {name} ORDER BY ALL").to_arrow_table().to_pylist()
        for name in names
    }


def assert_published(pipeline: Pipeline) -> None:
    """The read-only copy, the report, alarms and patterns are those of the tables as they are."""
    names = pipeline.warehouse.query(
        "SELECT table_name FROM information_schema.tables ORDER BY ALL"
    )["table_name"].to_pylist()
    assert {*RESULTS} <= {*names}
    stored = pipeline.warehouse.read(lambda con: all_rows(con, names))
    for name, rows in Copy(pipeline.home).tables(names).items():
        assert rows == stored[name]
    latest = (pipeline.home.reports / "latest.html").read_text()
    history = table(pipeline, "run_history")
    newest = max(row["recorded_at"] for row in history)
    [run_id] = {row["run_id"] for row in history if row["recorded_at"] == newest}
    assert (pipeline.home.reports / f"{run_id}.html").read_text() == latest
    for outlier in pipeline.tables.worst_outliers(3):
        assert outlier["image_id"] in latest
    again = Pipeline(pipeline.home)
    before = {name: table(again, name) for name in PUBLISHED[:3]}
    again.publish("again")
    assert {name: table(again, name) for name in PUBLISHED[:3]} == before


def materializing_run(instance: DagsterInstance, asset: str) -> str:
    event = instance.get_latest_materialization_event(AssetKey(asset))
    assert event is not None
    return event.run_id


def test_a_range_of_partitions_that_the_ui_materializes_is_published(home, expected):
    pipeline = copy_indexed(home)
    assert not home.snapshot.exists()
    with open_instance(home) as instance:
        types, merchants = pipeline.taxonomy.names, instance.get_dynamic_partitions("merchants")
        first, last = f"{types[0]}|{merchants[0]}", f"{types[-1]}|{merchants[-1]}"
        result = range_run(instance, home, first, last)
        for asset in PUBLISHED:
            assert materializing_run(instance, asset) == result.run_id
    assert results(pipeline) == results(expected)
    assert_published(pipeline)
    assert [row["image_id"] for row in Copy(home).rows("merchant_alarms")] == [MISNAMED]
    assert [row["image_id"] for row in Copy(home).rows("receipt_alarms")] == [SHIFTED]
    assert len(Copy(home).rows("label_patterns")) == 1


def test_a_single_partition_that_the_ui_materializes_is_published(home, shop, tmp_path):
    more = Receipts()
    more.add_receipt("another", "Alpha Mart", wrong_total="DATE")
    more.submit(shop, tmp_path / "more")
    with open_instance(home) as instance:
        execute(instance, home, "ingest_and_index")
        partition = PartitionKey("DATE", merchant_key("Alpha Mart"))
        key = str(to_dagster(partition))
        result = materialize(instance, home, partition_key=key)
        for asset in PUBLISHED:
            assert materializing_run(instance, asset) == result.run_id
    assert_published(shop)
    [published] = [row for row in Copy(home).rows("outliers") if row["image_id"] == "another"]
    assert published["is_outlier"]
    assert partition not in shop.stale(OFFLINE)
    assert (home.reports / f"{result.run_id}.html").exists()
