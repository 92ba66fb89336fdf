from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from harmonizer_assets.core.base import locks
from harmonizer_assets.core.base.errors import StoreBusyError
from harmonizer_assets.core.base.locks import Lock

HOLD = """
import sys, time
from pathlib import Path
from harmonizer_assets.core.base.locks import Lock
for _ in range(int(sys.argv[3])):
    with Lock(Path(sys.argv[1]), "testing", per_holder=True).held():
        print("held", flush=True)
        time.sleep(float(sys.argv[2]))
"""


@contextmanager
def held_by_another_process(path, seconds=60.0, times=1):
    code = [sys.executable, "-c", HOLD, str(path), str(seconds), str(times)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "locks" / "test.lock"


def test_a_free_lock_is_taken_at_once_and_given_back(path):
    waits = []
    for _ in range(2):
        with Lock(path, "testing", timeout=0).held(lambda: waits.append(1)):
            pass
    assert waits == []


def test_a_lock_that_is_not_given_back_is_an_error_that_names_the_task_and_the_remedy(path):
    waits = []
    with held_by_another_process(path) as holder:
        lock = Lock(path, "fitting a model", timeout=0.2)
        with pytest.raises(StoreBusyError) as error, lock.held(lambda: waits.append(1)):
            pass
    assert str(error.value) == (
        f"process {holder.pid} has been fitting a model for over 0.2 s: wait for it or stop it, "
        "then run again"
    )
    assert waits == [1]


def test_without_patience_the_error_comes_at_once(path):
    with held_by_another_process(path):
        lock = Lock(path, "serving the home", timeout=0, remedy="use that one")
        with pytest.raises(StoreBusyError, match="is serving the home: use that one"), lock.held():
            pass


def test_patience_may_start_again_with_each_holder(path):
    with held_by_another_process(path, seconds=0.5, times=3) as process:
        began = time.monotonic()
        # Each holds it for less than the timeout, all together for more.
        with Lock(path, "testing", timeout=0.9, per_holder=True, poll_seconds=0.3).held():
            assert time.monotonic() - began < 60
        process.wait(10)


def test_a_process_that_dies_gives_its_lock_back(path):
    with held_by_another_process(path) as process:
        process.kill()
        with Lock(path, "testing", timeout=10).held():
            pass


def test_who_waits_is_told_within_a_few_seconds_who_holds_the_lock(path, caplog, monkeypatch):
    assert locks._NOTICED_SECONDS <= 5
    monkeypatch.setattr(locks, "_NOTICED_SECONDS", 0.3)
    with (
        held_by_another_process(path, seconds=0.8) as holder,
        Lock(path, "fitting a model").held(),
    ):
        pass
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == f"waiting for process {holder.pid}, which is fitting a model"


def test_waiting_does_not_stop_the_event_loop(path):
    async def wait() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        async with Lock(path, "testing").held_async(lambda: waits.append(1)):
            ticking.cancel()
        return ticks

    waits: list[int] = []
    with held_by_another_process(path, seconds=0.5):
        assert asyncio.run(wait()) > 10
    assert waits == [1]
