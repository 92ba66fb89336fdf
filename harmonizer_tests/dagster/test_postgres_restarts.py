"""A PostgreSQL with Dagster's instance that goes away in the middle of runs.

The server is one of the test's own, whose messages are German: no text may matter.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from dagster import DagsterRunStatus

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.support.cli import cli
from harmonizer_tests.support.environment import use_endpoint
from harmonizer_tests.support.postgres import DEPLOYED
from harmonizer_tests.support.receipts import OFFLINE, harmonize, shop_receipts, table
from harmonizer_tests.support.served import Served, wait_for
from harmonizer_tests.support.simulated_endpoint import simulated_endpoint

pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")
SHOPS = [f"Shop {letter}" for letter in "ABCDEFGH"]


IMPATIENT = """
from harmonizer_assets.cli import main
from harmonizer_assets.dagster_compat import postgres
postgres.PATIENCE = 1.0
main()
"""

LAUNCH = """
mutation {
    launchRun(executionParams: {selector: {
        repositoryName: "__repository__", repositoryLocationName: "harmonizer_assets.definitions",
        jobName: "harmonize_partitions"
    }}) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
HEALTH = """
query {
    instance { daemonHealth { allDaemonStatuses { daemonType healthy required } } }
    runsOrError { ... on Runs { results { runId status } } }
}
"""


@pytest.fixture
def server_home(home, german_url):
    """A home whose instance is in a database of its own on the server."""
    shutil.copy(DEPLOYED, home.dagster / "dagster.yaml")
    return home


def run_statuses(home: Home) -> set[DagsterRunStatus]:
    with open_instance(home) as instance:
        return {run.status for run in instance.get_runs()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Pipeline:
    """A home whose run had its server all the time."""
    folder = tmp_path_factory.mktemp("undisturbed")
    pipeline = Pipeline(Home(folder / "home").ensure())
    shop_receipts(SHOPS, 3).submit(pipeline, folder / "files")
    harmonize(pipeline)
    return pipeline


@pytest.mark.parametrize(("mode", "seconds"), [("fast", 1.0), ("immediate", 12.0)])
def test_a_run_outlives_a_restart_in_its_middle(
    german, server_home, tmp_path, undisturbed, mode, seconds
):
    files = shop_receipts(SHOPS, 3).write(tmp_path)
    pipeline, is_over = Pipeline(server_home), threading.Event()

    def restart_in_its_middle() -> None:
        wait_for(lambda: server_home.database.exists() and pipeline.partitions.held(), 60)
        german.restart(mode, seconds)
        assert not is_over.is_set(), "it ended before the server was there again"

    with ThreadPoolExecutor() as beside:
        restarted = beside.submit(restart_in_its_middle)
        run = cli("run", "--words", files[0], "--labels", files[1], home=server_home.root)
        is_over.set()
        restarted.result()
    assert run.returncode == 0, run.stderr
    assert run_statuses(server_home) == {DagsterRunStatus.SUCCESS}
    for name in ("similarity_matches", "outliers"):
        assert table(pipeline, name) == table(undisturbed, name)


def test_a_run_without_its_server_ends_and_the_next_goes_on_and_buys_nothing_twice(
    german, server_home, tmp_path, monkeypatch
):
    shop_receipts(SHOPS, 3).submit(Pipeline(server_home), tmp_path)
    server_home.settings_file.write_text("[judge]\nskip_high_confidence = false\n")
    with simulated_endpoint() as endpoint:
        use_endpoint(monkeypatch, endpoint.url)
        endpoint.configure(first_token_seconds=0.3)
        command = [sys.executable, "-c", IMPATIENT, "--home", str(server_home.root), "run"]
        run = subprocess.Popen(
            [*command, "--judge", "openai"],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: endpoint.stats()["answered"] > 0, 60)
        german.stop("immediate")
        try:
            _, said = run.communicate(timeout=60)
        finally:
            german.start()
        assert run.returncode == 1
        assert "has not answered for 1 s: start it and run again" in said.strip().splitlines()[-1]
        assert "Traceback" not in said
        assert run_statuses(server_home) == {DagsterRunStatus.STARTED}
        again = cli("run", "--judge", "openai", home=server_home.root)
        assert again.returncode == 0, again.stderr
        bought = endpoint.stats()["words_asked"]
        undisturbed = Home(tmp_path / "undisturbed").ensure()
        undisturbed.settings_file.write_text(server_home.settings_file.read_text())
        shop_receipts(SHOPS, 3).submit(Pipeline(undisturbed), tmp_path / "undisturbed files")
        Pipeline(undisturbed).run(RunOptions(judge="openai"))
        assert bought == endpoint.stats()["words_asked"] - bought > 100
    assert run_statuses(server_home) == {DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS}


@pytest.mark.timeout(600)
def test_runs_daemon_and_web_server_of_a_served_home_outlive_restarts(
    german, server_home, tmp_path
):
    """The daemon launches the first run, for what has arrived, and a person the second one."""
    pipeline, undisturbed = Pipeline(server_home), Pipeline(Home(tmp_path / "undisturbed").ensure())
    for half in (SHOPS[:2], SHOPS[2:4]):
        shop_receipts(half, 3).submit(undisturbed, tmp_path / "undisturbed" / half[0])
        harmonize(undisturbed)
    served = Served(server_home, tmp_path / "ui.log", impatient=True)
    served.start()
    try:
        shop_receipts(SHOPS[:2], 3).submit(pipeline, tmp_path / "first")
        wait_for(lambda: DagsterRunStatus.STARTED in run_statuses(server_home), 120)
        german.restart("fast", 3.0)
        wait_for(lambda: run_statuses(server_home) == {DagsterRunStatus.SUCCESS}, 120)
        shop_receipts(SHOPS[2:4], 3).submit(pipeline, tmp_path / "second")
        pipeline.ingest()
        pipeline.index()
        answer = served.ask(LAUNCH)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        wait_for(lambda: DagsterRunStatus.STARTED in run_statuses(server_home), 120)
        german.restart("immediate", 12.0)
        wait_for(lambda: run_statuses(server_home) == {DagsterRunStatus.SUCCESS}, 120)
        wait_for(lambda: not unhealthy(served), 60)
        runs = served.ask(HEALTH)["runsOrError"]["results"]
        assert answer["run"]["runId"] in {run["runId"] for run in runs}
    finally:
        served.stop()
    assert not pipeline.stale(OFFLINE)
    for name in ("similarity_matches", "outliers"):
        assert table(pipeline, name) == table(undisturbed, name)


def unhealthy(served: Served) -> list[object]:
    daemons = served.ask(HEALTH)["instance"]["daemonHealth"]["allDaemonStatuses"]
    return [daemon for daemon in daemons if daemon["required"] and not daemon["healthy"]]
