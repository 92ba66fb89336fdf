"""The same labels scored by every executor: whether the tables differ, in whatever digit.

Part of `benchmarks.units`. RabbitMQ and Redis have to run; SQS and Lambda are those of moto's
server, and the function is answered by processes of Amazon's runtime client. Beside the time of
each stands the memory that the run's process and the largest process below it have had.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from benchmarks.unit_kills import copied, opened, score
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.units.lambda_handler import STORES_VARIABLE
from harmonizer_tests.support.brokers import UnreachableError, queue_on, worker
from harmonizer_tests.support.environment import AWS
from harmonizer_tests.support.lambda_functions import NAME, function_on_aws

ATTEMPTS, SECONDS = 3, 3_000.0

Start = Callable[[Home, ExitStack], dict[str, Any]]
"""Starts what an executor needs until the stack is closed; returns the settings of units."""


def inline(_home: Home, _stack: ExitStack) -> dict[str, Any]:
    return {"executor": "inline"}


def processes(_home: Home, _stack: ExitStack) -> dict[str, Any]:
    return {"executor": "processes", "processes": 2, "seconds": SECONDS}


def celery_on(kind: str) -> Start:
    def start(home: Home, stack: ExitStack) -> dict[str, Any]:
        broker = stack.enter_context(queue_on(kind, ATTEMPTS, SECONDS))
        os.environ["HARMONIZER_BROKER_URL"] = broker.url
        stack.enter_context(worker(broker, home))
        limits = {"attempts": broker.attempts, "seconds": broker.seconds}
        return {"executor": "celery", "queue": broker.queue, **limits}

    return start


def on_lambda(home: Home, stack: ExitStack) -> dict[str, Any]:
    function = stack.enter_context(function_on_aws(**{STORES_VARIABLE: home.units.as_uri()}))
    function.seconds = SECONDS
    os.environ["AWS_ENDPOINT_URL_LAMBDA"] = function.url
    return {"executor": "lambda", "function": NAME, "seconds": SECONDS, "most_waiting": 2}


EXECUTORS: dict[str, Start] = {
    "inline": inline,
    "processes": processes,
    "celery on RabbitMQ": celery_on("rabbitmq"),
    "celery on Redis": celery_on("redis"),
    "celery on SQS": celery_on("sqs"),
    "lambda": on_lambda,
}


class Memory:
    """The most memory that this process and each one below it have had, looked at again and again.

    Attributes:
        most: resident bytes, by process id.
    """

    def __init__(self) -> None:
        self.most: dict[int, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        own = psutil.Process()
        while not self._over.wait(0.1):
            for process in (own, *own.children(recursive=True)):
                try:
                    used = process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
                self.most[process.pid] = max(used, self.most.get(process.pid, 0))

    @property
    def below(self) -> int:
        """The memory of the largest process below this one."""
        return max((used for pid, used in self.most.items() if pid != os.getpid()), default=0)


def table(home: Home) -> pa.Table:
    return opened(home).warehouse.query("FROM similarity_matches ORDER BY ALL")


def measure_tables(home: Home, folder: Path) -> Iterator[dict[str, Any]]:
    """Score the same labels with each executor, and compare the tables with the first one's.

    Args:
        home: with labels that are indexed, and a fitted model.
        folder: for copies of it.
    """
    os.environ.update(AWS)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    expected: pa.Table | None = None
    for name, start in EXECUTORS.items():
        there = copied(home, folder / "copy")
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, there.root)
            try:
                units = start(there, stack)
            except UnreachableError as error:
                yield {"executor": name, "skipped": str(error)}
                continue
            pipeline = opened(there, **units)
            began = time.perf_counter()
            with Memory() as memory:
                results = score(pipeline)
            took = time.perf_counter() - began
            found = table(there)
        expected = found if expected is None else expected
        yield {
            "executor": name,
            "labels": found.num_rows,
            "seconds": took,
            "failed": sum(result.error is not None for result in results),
            "GB of the run": memory.most[os.getpid()] / 1e9,
            "GB of the largest process below": memory.below / 1e9,
            "identical": found.equals(expected),
        }
