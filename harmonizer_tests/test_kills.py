"""Whatever is killed while a home is served, it ends like an undisturbed one."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import psutil
import pytest
from dagster import AssetKey
from dagster._core.execution.backfill import BulkActionStatus

from harmonizer_assets.core.harmonizer import ASSETS, Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.instance import open_instance
from harmonizer_assets.partitions import add_merchants, from_dagster
from harmonizer_tests.receipts import harmonize, shop_receipts, table
from harmonizer_tests.served import Served, wait_for

TYPES = ("DATE", "GRAND_TOTAL", "PRODUCT_NAME")
SHOPS = [f"Shop {letter}" for letter in "ABCDEFGH"]
VICTIMS = {
    "daemon": ("dagster._daemon",),
    "run worker": ("multiprocessing.spawn",),
    "web server": ("dagster_webserver",),
    "code server": ("dagster", "api", "grpc"),
}


def prepared(home: Home, folder) -> Harmonizer:
    harmonizer = Harmonizer(home)
    shop_receipts(SHOPS, 3).submit(harmonizer, folder)
    harmonizer.ingest_pending()
    harmonizer.index_documents()
    return harmonizer


def results(harmonizer: Harmonizer) -> list[object]:
    return [table(harmonizer, name) for name in ("similarity_matches", "judgements", "outliers")]


def kill_soon(served: Served, name: str, chance: random.Random) -> bool:
    """Kill a process after a while and start again what died with it; whether there was one."""
    time.sleep(chance.uniform(0.5, 4.0))
    victim = served.find(*VICTIMS[name])
    if victim is not None:
        victim.kill()
        psutil.wait_procs([victim], timeout=10)
    if name != "run worker":
        served.stop()
        served.start()
    return victim is not None


@pytest.fixture
def served(home, tmp_path):
    """The home, not yet served."""
    served = Served(home, tmp_path / "ui.log")
    yield served
    served.stop()


def kill_one_after_another(served: Served, chance: random.Random) -> None:
    others = sorted({*VICTIMS} - {"run worker"})
    for name in ("run worker", *chance.sample(others, k=len(others))):
        assert kill_soon(served, name, chance)


def kill_all_at_once(served: Served, chance: random.Random) -> None:
    time.sleep(chance.uniform(0.0, 4.0))
    for process in served.processes():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    served.stop()
    served.start()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kill", [kill_one_after_another, kill_all_at_once])
def test_a_backfill_survives_kills_of_every_process_at_random_moments(home, tmp_path, served, kill):
    harmonizer = prepared(home, tmp_path / "files")
    requested = [key for key in harmonizer.partitions() if key.label_type in TYPES]
    # From here on: the sensor of a served home would have taken the batch, and all partitions.
    served.start()
    with open_instance(home) as instance:
        add_merchants(instance, {key.merchant_key for key in requested})
        backfill_id = served.launch_backfill(["|".join(key) for key in requested])
        wait_for(lambda: served.find(*VICTIMS["run worker"]))
        kill(served, random.Random(1))

        def succeeded() -> bool:
            status = instance.get_backfill(backfill_id).status
            return status == BulkActionStatus.COMPLETED_SUCCESS

        wait_for(succeeded, 400)
        for name in ASSETS:
            shown = {
                from_dagster(key) for key in instance.get_materialized_partitions(AssetKey(name))
            }
            assert shown == {*requested}
    undisturbed = prepared(Home(tmp_path / "undisturbed").ensure(), tmp_path / "again")
    list(undisturbed.score_partitions(requested))
    list(undisturbed.judge_partitions(requested, judge="offline"))
    list(undisturbed.publish_outliers(requested, judge="offline"))
    assert results(harmonizer) == results(undisturbed)


@pytest.mark.timeout(600)
def test_an_arrival_survives_kills_of_the_daemon_and_of_its_run(home, tmp_path, served):
    chance = random.Random(2)
    harmonizer = Harmonizer(home)
    served.start()
    shop_receipts(SHOPS, 3).submit(harmonizer, tmp_path / "files")
    assert kill_soon(served, "daemon", chance)
    wait_for(lambda: served.find(*VICTIMS["run worker"]))
    assert kill_soon(served, "run worker", chance)
    wait_for(lambda: harmonizer.counts().labels and not harmonizer.stale_partitions("offline"), 400)
    undisturbed = prepared(Home(tmp_path / "undisturbed").ensure(), tmp_path / "again")
    harmonize(undisturbed)
    assert results(harmonizer) == results(undisturbed)
    assert harmonizer.counts().batches == 1
