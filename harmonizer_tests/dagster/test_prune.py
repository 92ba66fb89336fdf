"""A home's size is bounded by its retention settings, and what people look at stays."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from dagster import AssetKey, DagsterRunStatus, RunsFilter

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.files import staged
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import RetentionSettings, Settings
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.reports import ASSETS
from harmonizer_assets.core.store.prune import Freed, prune_files
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.defs.pruning import prune, prune_if_due
from harmonizer_tests.support.bare_runs import bare_run
from harmonizer_tests.support.cli import cli
from harmonizer_tests.support.dagster_runs import execute, shown_versions, stale_causes
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import OFFLINE, shop_receipts, table
from harmonizer_tests.support.shops import copy_shop

NOTHING_KEPT = Settings(
    retention=RetentionSettings(run_days=0, report_days=0, batch_days=0, batch_mb=0)
)
CHECKS = 7
ALL_RUNS = CHECKS + 1
"""The shop has been harmonized and checked once."""
NOW = dt.datetime.now(dt.UTC)


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def by_kind(freed: list[Freed]) -> dict[str, int]:
    return {one.what: one.count for one in freed}


@pytest.fixture
def checked(home: Home) -> Pipeline:
    """A shop that has been checked many times; a test asks for the instance after it."""
    copy_home(home, "a shop that has been checked many times", check_many_times)
    return Pipeline(home)


def check_many_times(home: Home) -> None:
    copy_shop(home)
    with open_instance(home) as instance:
        for _ in range(CHECKS - 1):
            execute(instance, home, "check_labels")


def test_old_runs_go_and_what_the_ui_shows_of_assets_and_checks_stays(checked, home, instance):
    versions = {asset: shown_versions(instance, asset) for asset in ASSETS}
    latest = {asset: instance.get_latest_materialization_event(AssetKey(asset)) for asset in ASSETS}
    before = bytes_of(home.dagster)
    freed = prune(home, instance, NOTHING_KEPT)
    assert by_kind(freed)["runs"] == ALL_RUNS
    assert bytes_of(home.dagster) < before - CHECKS * 200_000
    assert {asset: shown_versions(instance, asset) for asset in ASSETS} == versions
    for asset in ASSETS:
        assert instance.get_latest_materialization_event(AssetKey(asset)) == latest[asset]
    [partition, *_] = checked.partitions.held()
    assert stale_causes(instance, home, "outliers", partition) == []
    outcome = run_pipeline(home, OFFLINE, log_level="CRITICAL")
    assert outcome.unchanged
    assert outcome.failed_checks == []


def test_a_run_stays_without_its_log_while_it_is_the_last_that_computed_a_partition(
    shop, home, instance
):
    [computed] = instance.get_runs(RunsFilter(job_name="harmonize_arrivals"))
    for _ in range(5):
        execute(instance, home, "harmonize_arrivals")
    prune(home, instance, NOTHING_KEPT)
    assert instance.get_run_by_id(computed.run_id) is not None
    assert instance.event_log_storage.files_of(computed.run_id) == []
    assert by_kind(prune(home, instance, NOTHING_KEPT))["runs"] == 0


def test_of_the_latest_runs_of_a_job_it_stays_known_how_they_ended(checked, home, instance):
    runs = instance.get_runs(RunsFilter(job_name="check_labels"))
    prune(home, instance, NOTHING_KEPT)
    left = instance.get_runs(RunsFilter(job_name="check_labels"))
    assert [run.run_id for run in left] == [run.run_id for run in runs[:5]]


def test_more_runs_go_while_they_take_too_much_the_oldest_first(checked, home, instance):
    runs = [run.run_id for run in instance.get_runs()]
    assert by_kind(prune(home, instance, Settings()))["runs"] == 0
    little = Settings(retention=RetentionSettings(run_mb=1))
    assert 0 < by_kind(prune(home, instance, little))["runs"] < ALL_RUNS
    logged = [bool(instance.event_log_storage.files_of(run)) for run in runs]
    assert logged == sorted(logged, reverse=True)
    assert by_kind(prune(home, instance, little))["runs"] == 0


def test_without_yes_the_command_says_what_it_would_free_and_removes_nothing(
    checked, home, instance
):
    home.settings_file.write_text("[retention]\nrun_days = 0\n")
    before = {file for file in home.dagster.rglob("*.db") if file.name != "schedules.db"}
    said = cli("prune", home=home.root)
    assert said.returncode == 0, said.stderr
    assert "would be removed; `harmonizer prune --yes` does it" in said.stdout
    assert {file for file in home.dagster.rglob("*.db") if file.name != "schedules.db"} == before
    done = cli("prune", "--yes", home=home.root)
    assert done.returncode == 0, done.stderr
    assert "MB removed." in done.stdout
    [runs] = [line.split() for line in said.stdout.splitlines() if line.startswith("runs")]
    assert runs in [line.split() for line in done.stdout.splitlines()]
    assert len({*home.dagster.rglob("*.db")}) == len(before) + 1 - ALL_RUNS


def test_tables_that_have_grown_are_compacted_once_and_are_the_same(shop, home, instance):
    pipeline = Pipeline(home)
    pipeline.publish("run")
    labels = table(pipeline, "labels")
    before = home.database.stat().st_size
    prune(home, instance, Settings())
    compacted = home.database.stat()
    assert compacted.st_size < before
    assert home.snapshot.stat().st_size == compacted.st_size
    assert table(pipeline, "labels") == labels
    assert run_pipeline(home, OFFLINE, log_level="CRITICAL").unchanged
    unchanged = home.database.stat()
    prune(home, instance, Settings())
    assert home.database.stat().st_mtime_ns == unchanged.st_mtime_ns
    assert pipeline.publication.publish_changes("again") is None


def test_tables_that_are_in_use_are_compacted_another_time(shop, home, instance):
    impatient = Settings.model_validate({"waits": {"database_seconds": 0}})
    busy = [sys.executable, "-c", _HOLDS, str(home.database)]
    with subprocess.Popen(busy, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = home.database.stat().st_mtime_ns
        prune(home, instance, impatient)
        assert home.database.stat().st_mtime_ns == before
        assert (home.root / ".pruned").read_text() == "0"
        process.communicate()


_HOLDS = """
import duckdb, sys
con = duckdb.connect(sys.argv[1], read_only=True)
print("open", flush=True)
sys.stdin.read()
"""


def test_a_run_of_the_command_line_prunes_once_a_day(checked, home, instance):
    assert prune_if_due(home, instance, NOTHING_KEPT) == []
    yesterday = NOW.timestamp() - 86_401
    os.utime(home.root / ".pruned", (yesterday, yesterday))
    assert by_kind(prune_if_due(home, instance, NOTHING_KEPT))["runs"] == ALL_RUNS
    assert prune_if_due(home, instance, NOTHING_KEPT) == []


def test_a_clock_that_was_ahead_does_not_keep_it_from_pruning(home, instance):
    assert prune_if_due(home, instance, NOTHING_KEPT) == []
    os.utime(home.root / ".pruned", (4e9, 4e9))
    assert prune_if_due(home, instance, NOTHING_KEPT) != []
    assert prune_if_due(home, instance, NOTHING_KEPT) == []


def test_the_nightly_job_prunes(checked, home, instance):
    home.settings_file.write_text("[retention]\nrun_days = 0\n")
    made = execute(instance, home, "prune_home").asset_materializations_for_node("home_retention")
    assert made[0].metadata["runs_removed"].value == ALL_RUNS
    assert len(instance.get_runs(RunsFilter(job_name="check_labels"))) == 5


def test_runs_that_have_not_ended_stay(home, instance):
    for _ in range(8):
        bare_run(instance, DagsterRunStatus.STARTED, {})
    assert by_kind(prune(home, instance, NOTHING_KEPT))["runs"] == 0
    assert len(instance.get_runs()) == 8


# Files


def aged(path: Path, days: float, size: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"<title>Harmonization report" if path.suffix == ".html" else b""
    path.write_bytes(content.ljust(size))
    time = NOW.timestamp() - days * 86_400
    os.utime(path, (time, time))
    os.utime(path.parent, (time, time))
    return path


def test_old_reports_and_ingested_batches_go_and_what_is_in_no_table_stays(home):
    latest = aged(home.reports / "latest.html", 100)
    young, old = (aged(home.reports / f"{UUID(int=n)}.html", n) for n in (6, 8))
    mine = aged(home.reports / "my notes.html", 500)
    waiting = aged(home.inbox / "waits" / "words.csv", 500)
    done, failed = (aged(home.inbox / n / "x" / "words.csv", 500) for n in (".done", ".failed"))
    found = prune_files(home, RetentionSettings(), NOW, dry_run=False)
    assert by_kind(found) == {"reports": 1, "batches": 1, "unfinished copies": 0}
    assert [file.exists() for file in (latest, young, waiting, failed, mine)] == [True] * 5
    assert [file.exists() for file in (old, done)] == [False] * 2


def test_files_that_take_too_much_go_the_oldest_first_and_a_dry_run_removes_none(home):
    pages = [aged(home.reports / f"{UUID(int=n)}.html", n, 600_000) for n in (1, 2, 3)]
    settings = RetentionSettings(report_mb=1)
    said = prune_files(home, settings, NOW, dry_run=True)
    assert said[0] == Freed("reports", 2, 1_200_000)
    assert all(page.exists() for page in pages)
    assert prune_files(home, settings, NOW, dry_run=False) == said
    assert [page.exists() for page in pages] == [True, False, False]


def test_a_batch_whose_copying_was_killed_goes_after_a_day_and_what_people_copy_stays(
    home, tmp_path, monkeypatch
):
    def killed(*_):
        raise SystemExit

    words, _ = shop_receipts().write(tmp_path / "files")
    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(SystemExit):
        submit_batch(home, words, None)
    [unfinished] = home.inbox.iterdir()
    theirs = aged(home.inbox / ".copying" / "words.csv", 500)
    for age, left in ((0.5, True), (1.5, False)):
        aged(unfinished / "words.csv", age)
        prune_files(home, RetentionSettings(), NOW, dry_run=False)
        assert unfinished.exists() == left
    assert theirs.exists()


def test_what_a_killed_process_was_writing_goes_after_a_day(home):
    written = (home.database, home.snapshot, home.reports / "r.html", home.model_file("m"))
    writers = [staged(path) for path in written]
    left = [aged(writer.__enter__(), 0.5) for writer in writers]
    theirs = [aged(home.reports / name, 500) for name in (".notes.1", "notes.html.1.2")]
    prune_files(home, RetentionSettings(), NOW, dry_run=False)
    assert all(path.exists() for path in left)
    found = prune_files(home, RetentionSettings(), NOW + dt.timedelta(days=1), dry_run=False)
    assert by_kind(found)["unfinished copies"] == len(left)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in theirs)


def test_a_link_in_the_inbox_is_removed_and_not_what_it_points_to(home, tmp_path):
    outside = aged(tmp_path / "outside" / "words.csv", 1_000)
    (home.inbox / ".done").mkdir()
    (home.inbox / ".done" / "link").symlink_to(outside.parent)
    kept_for_no_time = RetentionSettings(batch_days=0)
    later = NOW + dt.timedelta(days=1)
    assert by_kind(prune_files(home, kept_for_no_time, later, dry_run=False))["batches"] == 1
    assert outside.exists()


def test_published_versions_that_are_old_go_with_the_rest(shop, tmp_path):
    home = shop.home
    home.settings_file.write_text(
        f'[publish]\ntarget = "parquet"\nurl = "{(tmp_path / "out").as_uri()}"\n'
        "[retention]\nversion_days = 0\n"
    )
    pipeline = Pipeline(home)
    for run in ("first", "second"):
        pipeline.publishing.publish(run, f"what {run} found", "")
    listed = cli("published", home=home.root).stdout
    assert "what first found" in listed
    assert "what second found" in listed
    assert "read_parquet" in cli("published", "--sql", home=home.root).stdout
    pruned = cli("prune", "--yes", home=home.root).stdout
    assert "published versions" in pruned
    listed = cli("published", home=home.root).stdout
    assert "what first found" not in listed
    assert "what second found" in listed
