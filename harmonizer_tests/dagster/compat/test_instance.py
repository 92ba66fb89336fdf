"""The instance of a home, opened by what `DagsterInstance.local_temp` makes of its folder."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from dagster import DefaultRunLauncher

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.errors import ConfigurationError, StoreBusyError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.locks import Lock
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.dagster_compat.event_log import BatchingSqliteEventLogStorage
from harmonizer_assets.dagster_compat.instance import instance_environment, open_instance
from harmonizer_assets.defs.partitions import add_merchants
from harmonizer_tests.support.receipts import OFFLINE, shop_receipts


@pytest.fixture
def edited(home):
    """Adds to the home's dagster.yaml, or writes it anew."""

    def edit(text: str, *, anew: bool = False) -> None:
        with open_instance(home):
            pass
        config = home.dagster / "dagster.yaml"
        config.write_text(text if anew else config.read_text() + text)

    return edit


def test_opening_an_instance_neither_reads_nor_writes_the_environment(home, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "another"))
    before = dict(os.environ)
    with open_instance(home) as instance:
        add_merchants(instance, ["alpha"])
        assert instance.root_directory == str(home.dagster)
        assert isinstance(instance.event_log_storage, BatchingSqliteEventLogStorage)
    assert dict(os.environ) == before
    assert not (tmp_path / "another").exists()
    assert (home.dagster / "history" / "runs" / "index.db").exists(), "its folder is not temporary"


def test_a_home_uses_the_batching_log_and_can_be_moved(home, tmp_path):
    with open_instance(home) as instance:
        assert isinstance(instance.event_log_storage, BatchingSqliteEventLogStorage)
        add_merchants(instance, ["alpha"])
    moved = type(home)(home.root.rename(tmp_path / "moved"))
    with open_instance(moved) as instance:
        assert instance.get_dynamic_partitions("merchants") == ["alpha"]
    assert not home.root.exists()


def test_two_homes_are_open_at_once_in_one_process(tmp_path):
    homes = [Home(tmp_path / name).ensure() for name in ("first", "second")]
    with open_instance(homes[0]) as first, open_instance(homes[1]) as second:
        add_merchants(first, ["alpha"])
        add_merchants(second, ["beta"])
    for home, merchant in zip(homes, ("alpha", "beta"), strict=True):
        with open_instance(home) as instance:
            assert instance.get_dynamic_partitions("merchants") == [merchant]


def environment() -> dict[str, str]:
    """The variables of this process, without those that importing scikit-learn sets."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KMP_")}


def test_a_run_works_on_the_home_it_was_given_whatever_the_environment_names(
    tmp_path, monkeypatch, home
):
    given = Pipeline(Home(tmp_path / "given").ensure())
    shop_receipts(("Alpha",), 2).submit(given, tmp_path)
    before = environment()
    assert run_pipeline(given.home, OFFLINE).labels_changed
    assert environment() == before, "a run writes nothing to the environment"
    assert Pipeline(home).tables.counts().labels == 0


def test_references_to_the_home_resolve_anywhere_in_the_file_and_others_from_the_environment(
    edited, home, monkeypatch, tmp_path
):
    edited(
        "local_artifact_storage:\n"
        "  module: dagster._core.storage.root\n"
        "  class: LocalArtifactStorage\n"
        "  config:\n"
        "    base_dir:\n"
        "      env: DAGSTER_HOME\n"
        "schedule_storage:\n"
        "  module: dagster._core.storage.schedules\n"
        "  class: SqliteScheduleStorage\n"
        "  config:\n"
        "    base_dir:\n"
        "      env: SCHEDULES\n"
    )
    monkeypatch.setenv("SCHEDULES", str(tmp_path / "schedules"))
    with open_instance(home) as instance:
        assert instance.root_directory == str(home.dagster)
    assert list((tmp_path / "schedules").glob("*.db"))
    monkeypatch.delenv("SCHEDULES")
    with pytest.raises(ConfigurationError, match="SCHEDULES"), open_instance(home):
        pass


def test_a_dagster_yaml_that_dagster_refuses_is_a_clear_error(home):
    (home.dagster / "dagster.yaml").write_text("nonsense: [1\n")
    with (
        pytest.raises(ConfigurationError, match=r"dagster\.yaml: Dagster cannot use it"),
        open_instance(home),
    ):
        pass


def test_a_file_without_settings_is_dagsters_default(edited, home):
    edited("# nothing\n", anew=True)
    with open_instance(home) as instance:
        assert isinstance(instance.run_launcher, DefaultRunLauncher)
        assert not instance.telemetry_enabled


def test_a_home_from_before_the_modules_moved_opens(edited, home):
    edited(
        "event_log_storage:\n"
        "  module: harmonizer_assets.event_log\n"
        "  class: BatchingSqliteEventLogStorage\n"
        "  config:\n"
        "    base_dir:\n"
        "      env: DAGSTER_HOME\n"
        "run_coordinator:\n"
        "  module: harmonizer_assets.run_coordinator\n"
        "  class: RetryingRunCoordinator\n",
        anew=True,
    )
    with open_instance(home) as instance:
        assert isinstance(instance.event_log_storage, BatchingSqliteEventLogStorage)
        assert type(instance.run_coordinator).__name__ == "RetryingRunCoordinator"
        assert type(instance.run_launcher) is DefaultRunLauncher


def test_processes_of_dagster_find_the_same_instance_by_their_environment(home):
    with open_instance(home) as instance:
        add_merchants(instance, ["alpha"])
    code = (
        "from dagster import DagsterInstance\n"
        "with DagsterInstance.get() as instance:\n"
        "    print(type(instance.event_log_storage).__name__,\n"
        "          *instance.get_dynamic_partitions('merchants'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **instance_environment(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["BatchingSqliteEventLogStorage", "alpha"]


def test_an_instance_that_another_process_keeps_opening_is_an_error_that_names_it(home):
    home.settings_file.write_text("[waits]\ndagster_seconds = 0.1\n")
    held = Lock(home.locks / "dagster.lock", "opening Dagster's instance").held()
    busy = pytest.raises(StoreBusyError, match=f"process {os.getpid()} has been opening Dagster's")
    with held, busy, open_instance(home):
        pass
