"""What an instance forgets, in rows of Dagster's own tables."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

from dagster import DagsterRunStatus
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickData, TickStatus

from harmonizer_assets.dagster_compat.retention import compact, prune_runs, prune_ticks
from harmonizer_tests.support.bare_runs import bare_run
from harmonizer_tests.support.events import ASSET, materialized

NOW = datetime.now(UTC)


def ended_runs(instance, count: int, times: int = 1) -> list[str]:
    """Runs that have ended, the earliest first; each has materialized one partition some times."""
    runs = [bare_run(instance, DagsterRunStatus.SUCCESS, {"kind": "test"}) for _ in range(count)]
    for number, run in enumerate(runs):
        event = materialized(ASSET, "partition", number)._replace(run_id=run.run_id)
        instance.event_log_storage.store_event_batch([event] * times)
    return [run.run_id for run in runs]


def rows(home, table: str) -> int:
    found = 0
    for file in (home.dagster / "history").rglob("*.db"):
        with sqlite3.connect(file) as con:
            if con.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchall():
                found += con.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return found


def test_runs_go_with_their_tags_and_events_but_the_latest_event_of_a_partition(home, instance):
    runs = ended_runs(instance, 8)
    later = NOW + timedelta(days=2)
    said = prune_runs(instance, 1, 100, later, dry_run=True)
    assert (said.count, rows(home, "run_tags")) == (8, 24)
    assert prune_runs(instance, 1, 100, later, dry_run=False) == said
    assert [run.run_id for run in instance.get_runs()] == runs[:2:-1]
    assert rows(home, "run_tags") == 15
    assert rows(home, "event_logs") == 1
    assert prune_runs(instance, 1, 100, later, dry_run=False).count == 0


def test_young_runs_stay(home, instance):
    ended_runs(instance, 8)
    assert prune_runs(instance, 1, 100, NOW, dry_run=False).count == 0
    assert len(instance.get_runs()) == 8


def tick(instance, sensor: str, status: TickStatus, age: timedelta) -> None:
    instance.create_tick(
        TickData(
            sensor,
            sensor,
            InstigatorType.SENSOR,
            status,
            (NOW - age).timestamp(),
            run_ids=[],
            selector_id=sensor,
        )
    )


def test_ticks_go_that_asked_for_nothing_and_old_ones_but_the_latest_of_each_sensor(instance):
    tick(instance, "a", TickStatus.SKIPPED, timedelta(days=2))
    tick(instance, "a", TickStatus.SUCCESS, timedelta(days=8))
    tick(instance, "a", TickStatus.SUCCESS, timedelta(days=6))
    tick(instance, "a", TickStatus.SKIPPED, timedelta(hours=1))
    tick(instance, "b", TickStatus.SKIPPED, timedelta(days=30))
    said = prune_ticks(instance, 7, NOW, dry_run=True)
    assert said.count == 2
    assert prune_ticks(instance, 7, NOW, dry_run=False) == said
    assert len(instance.get_ticks("a", "a")) == 2
    assert len(instance.get_ticks("b", "b")) == 1


def test_unused_pages_are_given_back(home, instance):
    ended_runs(instance, 3, times=100)
    prune_runs(instance, 0, 0, NOW + timedelta(days=1), dry_run=False)
    file = home.dagster / "history" / "runs" / "index.db"
    instance.event_log_storage.dispose()
    before = file.stat().st_size
    compact(instance)
    assert file.stat().st_size < before
    assert rows(home, "event_logs") == 1
