"""Whatever is killed while a home is served, it ends like an undisturbed one."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import psutil
import pytest
from dagster import AssetKey, DagsterRunStatus, RunsFilter
from dagster._core.execution.backfill import BulkActionStatus

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.reports import ASSETS
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.dagster_compat.run_health import started_pid
from harmonizer_assets.defs.partitions import add_merchants, from_dagster
from harmonizer_tests.support.receipts import OFFLINE, harmonize, shop_receipts, table
from harmonizer_tests.support.served import Served, wait_for

TYPES = ("DATE", "GRAND_TOTAL", "PRODUCT_NAME")
SHOPS = [f"Shop {letter}" for letter in "ABCDEFGH"]
VICTIMS = {
    "daemon": ("dagster._daemon",),
    "run worker": ("multiprocessing.spawn",),
    "web server": ("harmonizer_assets.cli.served", "web-server"),
    "code server": ("dagster", "api", "grpc"),
}
ENDS_THE_OTHERS = ("daemon", "web server")
"""Processes without which `dagster dev` stops the others."""


def prepared(home: Home, folder) -> Pipeline:
    pipeline = Pipeline(home)
    shop_receipts(SHOPS, 3).submit(pipeline, folder)
    pipeline.ingest()
    pipeline.index()
    return pipeline


def results(pipeline: Pipeline) -> list[object]:
    return [table(pipeline, name) for name in ("similarity_matches", "judgements", "outliers")]


def kill_soon(
    served: Served,
    name: str,
    chance: random.Random,
    earliest: float = 0.5,
    latest: float = 4.0,
    patience: float = 30.0,
) -> bool:
    """Kill a process after a while; whether there was one.

    What has the others end with it is started again. A run that is under way may go on for as many
    seconds of `patience` before.
    """
    time.sleep(chance.uniform(earliest, latest))
    victim = served.find(*VICTIMS[name])
    if victim is not None:
        victim.kill()
        wait_for(lambda: has_ended(victim), 10)
    if name in ENDS_THE_OTHERS:
        served.stop(patience)
        served.start()
    return victim is not None


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more; its parent may take seconds to notice."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def served(home, tmp_path):
    """The home, not yet served."""
    served = Served(home, tmp_path / "ui.log", impatient=True)
    yield served
    served.stop()


def kill_all_at_once(served: Served, chance: random.Random) -> None:
    time.sleep(chance.uniform(0.0, 4.0))
    for process in served.processes():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    served.stop()
    served.start()


@pytest.mark.timeout(900)
def test_a_backfill_survives_kills_of_every_process_at_random_moments(home, tmp_path, served):
    chance = random.Random(1)
    pipeline = prepared(home, tmp_path / "files")
    requested = [key for key in pipeline.partitions.held() if key.label_type in TYPES]
    # From here on: the sensor of a served home would have taken the batch, and all partitions.
    served.start()
    with open_instance(home) as instance:
        add_merchants(instance, {key.merchant_key for key in requested})
        backfill_id = served.launch_backfill(["|".join(key) for key in requested])

        def succeeded() -> bool:
            status = instance.get_backfill(backfill_id).status
            return status == BulkActionStatus.COMPLETED_SUCCESS

        # A run that has said which process it is, then all while another one may not have.
        wait_for(lambda: instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED])))
        assert kill_soon(served, "run worker", chance, earliest=0.0, latest=0.5)
        wait_for(lambda: served.find(*VICTIMS["run worker"]) or succeeded())
        kill_all_at_once(served, chance)
        # The web server dies while there is no code server.
        for name in ("code server", "web server"):
            assert kill_soon(served, name, chance)
        wait_for(succeeded, 400)
        for name in ASSETS:
            shown = {
                from_dagster(key) for key in instance.get_materialized_partitions(AssetKey(name))
            }
            assert shown == {*requested}
    undisturbed = prepared(Home(tmp_path / "undisturbed").ensure(), tmp_path / "again")
    undisturbed.harmonize(OFFLINE, partitions=requested)
    assert results(pipeline) == results(undisturbed)


@pytest.mark.timeout(900)
def test_an_arrival_survives_kills_of_the_daemon_and_of_its_run(home, tmp_path, served):
    chance = random.Random(2)
    pipeline = Pipeline(home)
    served.start()
    shop_receipts(SHOPS, 3).submit(pipeline, tmp_path / "files")
    # A run that the daemon had launched already is not left the time to finish.
    assert kill_soon(served, "daemon", chance, latest=1.5, patience=1.0)
    wait_for(lambda: served.find(*VICTIMS["run worker"]))
    assert kill_soon(served, "run worker", chance)
    wait_for(lambda: pipeline.tables.counts().labels and not pipeline.stale(OFFLINE), 400)
    with open_instance(home) as instance:
        launched = [run for run in instance.get_runs() if "harmonizer/pid" in run.tags]
        found = {run.run_id: str(started_pid(instance, run.run_id)) for run in launched}
    assert found == {run.run_id: run.tags["harmonizer/pid"] for run in launched}
    assert found, "Dagster logs the process of each run that it launches"
    undisturbed = prepared(Home(tmp_path / "undisturbed").ensure(), tmp_path / "again")
    harmonize(undisturbed)
    assert results(pipeline) == results(undisturbed)
    assert pipeline.tables.counts().batches == 1
