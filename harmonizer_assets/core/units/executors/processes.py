"""Units on all cores of this machine: one process per core, which a crash does not spread from."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Collection
from typing import Final

from harmonizer_assets.core.base.errors import WorkersError
from harmonizer_assets.core.base.threads import ONE_THREAD
from harmonizer_assets.core.units.executors.base import Endings, Executor
from harmonizer_assets.core.units.store import UnitStore
from harmonizer_assets.core.units.work import Outcome

_log = logging.getLogger(__name__)

WAITING_PER_PROCESS: Final = 2
"""One that is worked on, and one that lies ready."""
READY: Final = "ready"
"""What a process says when it has loaded its libraries."""

_MOST_FAILED_STARTS: Final = 3
_CLOSING_SECONDS: Final = 5.0


class ProcessExecutor(Executor):
    """Gives units to processes of its own, each in one thread; see `worker_process`."""

    def __init__(
        self,
        store: UnitStore,
        processes: int,
        attempts: int,
        seconds: float,
        endpoint_url: str | None = None,
    ) -> None:
        """Start the processes; they load their libraries while the first units are cut.

        Args:
            store: holds the units.
            processes: how many.
            attempts: how often a unit may be tried.
            seconds: the longest that an attempt may take.
            endpoint_url: of a server that speaks S3, where it is not Amazon's.
        """
        self.most_waiting = WAITING_PER_PROCESS * processes
        self._store = store
        self._command = [
            *(sys.executable, "-W", "ignore", "-m", "harmonizer_assets.core.units.worker_process"),
            *(store.objects.url, str(attempts), str(seconds), endpoint_url or ""),
        ]
        self._units: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ended = Endings()
        self._closed = threading.Event()
        self._handlers = [_Handler(self) for _ in range(processes)]

    def submit(self, unit: str) -> None:
        """Queue a unit; see `Executor.submit`."""
        self._units.put(unit)

    def finished(self, units: Collection[str], seconds: float) -> list[str]:
        """Wait for a process to be done with a unit; see `Executor.finished`."""
        return self._ended.wait(units, seconds)

    def close(self) -> None:
        """End the processes; what they are working on is given up."""
        self._closed.set()
        for handler in self._handlers:
            self._units.put(None)
            handler.stop()
        for handler in self._handlers:
            handler.thread.join(_CLOSING_SECONDS)

    def pids(self) -> list[int]:
        """List the ids of the processes that run now."""
        return [pid for handler in self._handlers if (pid := handler.pid) is not None]


class _Handler:
    """Starts one process, again whenever it ends, and gives it one unit at a time."""

    def __init__(self, executor: ProcessExecutor) -> None:
        self._executor = executor
        self._process: subprocess.Popen[str] | None = None
        self._is_ready = False
        self._lock = threading.Lock()
        self._ensure()
        self.thread = threading.Thread(target=self._run, name="units", daemon=True)
        self.thread.start()

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def stop(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def _run(self) -> None:
        executor = self._executor
        try:
            while (unit := executor._units.get()) is not None:
                outcome = Outcome.AGAIN
                while outcome is Outcome.AGAIN and not executor._closed.is_set():
                    outcome = self._attempt(unit)
                executor._ended.put(unit)
        except Exception as error:
            executor._ended.put(error)
        finally:
            self._dismiss()

    def _attempt(self, unit: str) -> Outcome:
        """Have the process try; one that ends meanwhile has failed at the unit."""
        process = self._started()
        if answer := _asked(process, unit):
            return _outcome(answer)
        if not self._executor._closed.is_set():
            _log.warning("a process ended (%s) at unit %s", process.wait(), unit[:12])
        return Outcome.AGAIN

    def _started(self) -> subprocess.Popen[str]:
        """Wait until a process is ready.

        Raises:
            WorkersError: none gets so far.
        """
        for _ in range(_MOST_FAILED_STARTS):
            process = self._ensure()
            if self._is_ready or _asked(process, None) == READY:
                self._is_ready = True
                return process
            process.wait()
        raise WorkersError("the processes that work on units end before they begin")

    def _ensure(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._executor._closed.is_set():
                raise WorkersError("the processes that work on units are closed")
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    self._executor._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **ONE_THREAD},
                )
                self._is_ready = False
            return self._process

    def _dismiss(self) -> None:
        self.stop()
        if self._process is not None:
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def _asked(process: subprocess.Popen[str], unit: str | None) -> str:
    """Tell a process a unit, if any, and return its next line; empty when it has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        if unit is not None:
            process.stdin.write(f"{unit}\n")
            process.stdin.flush()
        return process.stdout.readline().strip()
    return ""


def _outcome(answer: str) -> Outcome:
    """Read what a process says.

    Raises:
        WorkersError: it cannot use the store.
    """
    if answer in set(Outcome):
        return Outcome(answer)
    raise WorkersError(f"a process that works on units says: {answer}")
