"""The PostgreSQL event log, by what Dagster's own stores and reads."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy
from dagster import AssetKey
from dagster._core.storage.event_log.base import EventLogCursor

from harmonizer_tests.support.events import ASSET, batch, materialized, planned

postgres = pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")


def batching(url: str):
    from harmonizer_assets.dagster_compat.event_log_postgres import BatchingPostgresEventLogStorage

    return BatchingPostgresEventLogStorage(url)


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
