"""The SQLite event log, by what Dagster's own stores and reads."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
from dagster._core.storage.event_log import SqliteEventLogStorage

from harmonizer_assets.dagster_compat import event_log
from harmonizer_assets.dagster_compat.event_log import BatchingSqliteEventLogStorage
from harmonizer_tests.support.events import ASSET, batch, materialized, planned


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


def schema(file: Path) -> list[object]:
    with closing(sqlite3.connect(file)) as con:
        tables = con.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()
        versions = con.execute("SELECT * FROM alembic_version").fetchall()
        return [*tables, *versions, *con.execute("PRAGMA journal_mode").fetchall()]


def test_databases_of_runs_are_those_that_dagster_makes_the_first_one_and_later_ones(tmp_path):
    stock = SqliteEventLogStorage(str(tmp_path / "stock"))
    stock.store_event(planned(ASSET, "a", 1))
    ours = BatchingSqliteEventLogStorage(str(tmp_path / "ours"))
    for run in ("run-1", "run-2", "run-3"):
        ours.store_event(planned(ASSET, "a", 1)._replace(run_id=run))
    for file in sorted((tmp_path / "ours").glob("*.db")):
        made = "index" if file.stem == "index" else "run-1"
        assert schema(file) == schema(tmp_path / "stock" / f"{made}.db")


def test_two_storages_that_make_the_database_of_a_run_at_once_both_write_to_it(tmp_path):
    BatchingSqliteEventLogStorage(str(tmp_path)).store_event(planned(ASSET, "a", 1))
    both = [BatchingSqliteEventLogStorage(str(tmp_path)) for _ in range(2)]
    events = [planned(ASSET, str(n), 1)._replace(run_id=f"run-{n}") for n in range(2, 12)]
    with ThreadPoolExecutor(2) as pool:
        written = pool.map(lambda one: [one.store_event(event) for event in events], both)
        assert [*map(len, written)] == [len(events)] * 2
    for event in events:
        assert len(both[0].get_records_for_run(event.run_id).records) == 2


def test_a_database_that_another_process_is_making_is_left_to_dagsters_own_ways(tmp_path):
    file, statements = tmp_path / "run-1.db", ["CREATE TABLE made (x)"]
    with closing(sqlite3.connect(file)) as other, closing(sqlite3.connect(file, timeout=0)) as con:
        other.execute("BEGIN EXCLUSIVE")
        assert not event_log._make(con, statements)
        other.rollback()
        assert event_log._make(con, statements)
        assert not event_log._make(con, statements)


def test_tables_whose_revision_has_not_been_written_get_it(tmp_path):
    BatchingSqliteEventLogStorage(str(tmp_path)).store_event(planned(ASSET, "a", 1))
    whole = schema(tmp_path / "run-1.db")
    with closing(sqlite3.connect(tmp_path / "run-1.db")) as con, con:
        con.execute("DELETE FROM alembic_version")
    BatchingSqliteEventLogStorage(str(tmp_path)).store_event(planned(ASSET, "b", 2))
    assert schema(tmp_path / "run-1.db") == whole


def test_events_of_two_runs_in_one_batch_go_to_their_own_logs(tmp_path):
    storage = BatchingSqliteEventLogStorage(str(tmp_path))
    other = planned(ASSET, "a", 1)._replace(run_id="run-2")
    storage.store_event_batch([planned(ASSET, "a", 0), other])
    assert len(storage.get_records_for_run("run-1").records) == 1
    assert len(storage.get_records_for_run("run-2").records) == 1


def test_a_batch_takes_the_same_few_connections_however_large_it_is(tmp_path, monkeypatch):
    storage = BatchingSqliteEventLogStorage(str(tmp_path))
    opened: list[str] = []
    connect = BatchingSqliteEventLogStorage._connect
    monkeypatch.setattr(
        BatchingSqliteEventLogStorage,
        "_connect",
        lambda self, shard: (opened.append(shard), connect(self, shard))[1],
    )
    storage.store_event_batch([materialized(ASSET, f"m{i}", i) for i in range(300)])
    assert sorted(opened) == ["index", "run-1"]


def test_databases_stay_open_and_no_more_than_a_few(tmp_path):
    storage = BatchingSqliteEventLogStorage(str(tmp_path))
    for number in range(40):
        storage.store_event(materialized(ASSET, "m", number)._replace(run_id=f"run-{number}"))
    files = [Path(file.path) for file in psutil.Process().open_files()]
    held = {file.name for file in files if file.parent == tmp_path and file.suffix == ".db"}
    assert "index.db" in held
    assert len(held) <= 16
    storage.dispose()
    left = [file for file in psutil.Process().open_files() if Path(file.path).parent == tmp_path]
    assert left == []


def test_events_do_not_take_a_page_each_in_the_index(tmp_path):
    """An event of a partition takes over two kilobytes, and a usual page has four."""
    storage = BatchingSqliteEventLogStorage(str(tmp_path))
    storage.store_event_batch(
        [materialized(ASSET, str(n), n, summary="x" * 1_000) for n in range(200)]
    )
    storage.dispose()
    with sqlite3.connect(tmp_path / "index.db") as con:
        [(total,)] = con.execute("SELECT sum(length(event)) FROM event_logs").fetchall()
        [(taken,)] = con.execute(
            "SELECT sum(pgsize) FROM dbstat WHERE name = 'event_logs'"
        ).fetchall()
    assert 2_000 < total / 200 < 4_000
    assert taken < 1.3 * total
