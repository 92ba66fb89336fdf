"""Units while things break: workers that are killed, a broker that is paused, a killed committer.

Part of `benchmarks.units`. Units are computed by a worker of a queue with two processes, and each
sleeps as well, so that what happens meets units in work.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.reports import PartitionResult
from harmonizer_assets.core.store.warehouse import Connection, Warehouse
from harmonizer_assets.core.units.executors.brokers import Broker
from harmonizer_tests.support.brokers import (
    UnreachableError,
    WorkerProcess,
    paused_at_will,
    queue_on,
    worker,
)
from harmonizer_tests.support.units import Poison, poisoned_by

BROKERS = ("rabbitmq", "redis")
LABELS_PER_UNIT = 300
PAUSE = 30.0
KILLED_SHARE = 0.3
ATTEMPTS = 20
PAD = 0.5

COMMITTER = """
import json, sys
from pathlib import Path
from benchmarks.unit_kills import opened, score
from harmonizer_assets.core.base.home import Home
score(opened(Home(Path(sys.argv[1])), **json.loads(sys.argv[2])))
"""


@dataclass
class Scene:
    """What one measurement works with.

    Attributes:
        home: whose labels are scored.
        broker: of the queue, by a relay where it is to be paused.
        worker: the worker.
        units: settings of units.
        results: of the partitions that were committed.
        happened: what was done to it, for the figures.
    """

    home: Home
    broker: Broker
    worker: WorkerProcess
    units: dict[str, Any]
    results: list[PartitionResult] = field(default_factory=list)
    happened: dict[str, Any] = field(default_factory=dict)

    def attempts(self) -> int:
        """Count the attempts at units whose results are not committed yet."""
        return len(list((self.home.units / "attempts").glob("*.json")))

    def score(self) -> None:
        """Score all that is stale, as the committer."""
        self.results += score(opened(self.home, **self.units))


def opened(home: Home, *, exact: bool = True, **units: Any) -> Pipeline:
    """Open a home for scoring.

    Args:
        home: to open.
        exact: search for similar words exactly, however many documents there are.
        units: settings of units; without any, the run scores by itself.
    """
    content: dict[str, Any] = {"units": {"executor": "inline", **units}}
    if exact:
        content["similarity"] = {"exact_search_limit": 1_000_000}
    return Pipeline(home, Settings.model_validate(content))


def score(pipeline: Pipeline) -> list[PartitionResult]:
    options = RunOptions(run_id="benchmark")
    results = pipeline.score.run(pipeline.partitions.held(), options)
    return [result for result in results if result.changed or result.error]


def table(home: Home) -> list[dict[str, Any]]:
    rows = opened(home).warehouse.query("FROM similarity_matches ORDER BY ALL")
    return rows.to_pylist()


def nothing(scene: Scene) -> None:
    """Disturb nothing."""
    scene.score()


def kill_workers(scene: Scene) -> None:
    """Kill one of the worker's processes, at random, at three of ten attempts."""
    draw, killed, over = random.Random(7), 0, threading.Event()

    def kill() -> None:
        nonlocal killed
        seen: set[Path] = set()
        while not over.wait(0.02):
            new = {*(scene.home.units / "attempts").glob("*.json")} - seen
            seen |= new
            for _ in new:
                children = psutil.Process(scene.worker.process.pid).children()
                if children and draw.random() < KILLED_SHARE:
                    os.kill(draw.choice(children).pid, signal.SIGKILL)
                    killed += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        scene.score()
    finally:
        over.set()
        killer.join()
    scene.happened["processes killed"] = killed


def kill_committer(scene: Scene) -> None:
    """Kill the run when some results are committed, and have another one go on."""
    command = [sys.executable, "-c", COMMITTER, str(scene.home.root), json.dumps(scene.units)]
    run = subprocess.Popen(command)
    pipeline = opened(scene.home)
    committed = 0
    while committed < 30:
        time.sleep(0.05)
        assert run.poll() is None, "it ended before it was killed"
        committed = pipeline.warehouse.query(
            "SELECT count(*) AS n FROM partition_state WHERE asset = 'similarity_matches'"
        )["n"][0].as_py()
    run.kill()
    run.wait()
    before = pipeline.warehouse.query(
        "SELECT label_type, merchant_key FROM partition_state WHERE asset = 'similarity_matches'"
    ).num_rows
    scene.score()
    scene.happened["partitions committed before"] = before


def pause_broker(scene: Scene) -> None:
    """Let nothing through to the broker and back for half a minute."""
    with ExitStack() as stack:
        broker, relay = stack.enter_context(paused_at_will(scene.broker))
        scene.worker.kill()
        scene.worker = stack.enter_context(started(broker, scene.home))
        os.environ["HARMONIZER_BROKER_URL"] = broker.url

        def pause() -> None:
            while not scene.attempts():
                time.sleep(0.05)
            relay.pause()
            time.sleep(PAUSE)
            relay.resume()

        pausing = threading.Thread(target=pause)
        pausing.start()
        scene.score()
        pausing.join()
    scene.happened["paused for"] = PAUSE


def started(broker: Broker, home: Home) -> Any:
    return worker(broker, home, **poisoned_by(Poison("sleep", seconds=PAD)))


def measure_kills(home: Home, folder: Path) -> Iterator[dict[str, Any]]:
    """Score the same labels while each of these happens, and compare the tables.

    Args:
        home: with labels that are indexed, and a fitted model.
        folder: for copies of it.
    """
    undisturbed = copied(home, folder / "undisturbed")
    partitions = len(score(opened(undisturbed)))
    expected = table(undisturbed)
    for kind in BROKERS:
        for disturb in (nothing, kill_workers, pause_broker, kill_committer):
            there = copied(home, folder / f"{kind} {disturb.__name__}")
            try:
                measured = disturbed(there, kind, disturb)
            except UnreachableError as error:
                yield {"broker": kind, "skipped": str(error)}
                break
            yield {
                "broker": kind,
                "what": disturb.__name__,
                "partitions": partitions,
                **measured,
                "identical": table(there) == expected,
            }


def disturbed(home: Home, kind: str, disturb: Callable[[Scene], None]) -> dict[str, Any]:
    with queue_on(kind, ATTEMPTS) as broker, started(broker, home) as process:
        os.environ["HARMONIZER_BROKER_URL"] = broker.url
        units = {
            "executor": "celery",
            "queue": broker.queue,
            "attempts": broker.attempts,
            "seconds": broker.seconds,
            "labels_per_unit": LABELS_PER_UNIT,
        }
        scene = Scene(home, broker, process, units)
        began = time.perf_counter()
        disturb(scene)
        took = time.perf_counter() - began
        done = [result.partition for result in scene.results]
        return {
            "seconds": took,
            **scene.happened,
            "applied": len(done),
            "applied twice": len(done) - len({*done}),
            "failed": sum(result.error is not None for result in scene.results),
            "left in the store": len(list(home.units.rglob("*.parquet"))),
        }


def copied(home: Home, folder: Path) -> Home:
    """Copy a home as if nothing had been scored in it."""
    shutil.copytree(home.root, folder)
    there = Home(folder)

    def forget(con: Connection) -> None:
        for name in ("similarity_matches", "partition_state"):
            con.execute(f"DELETE FROM {name}")

    Warehouse(there).write(forget)
    return there
