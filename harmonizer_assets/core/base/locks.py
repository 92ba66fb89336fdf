"""Locks between processes: one file per lock, released by the system when its holder dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import filelock

from harmonizer_assets.core.base.errors import StoreBusyError
from harmonizer_assets.core.base.files import make_private_folder

OnWait = Callable[[], None]

_log = logging.getLogger(__name__)

_NOTICED_SECONDS: Final = 3.0
"""Shorter waits are not logged."""


@dataclass(frozen=True)
class Lock:
    """A lock that one process of a machine holds at a time.

    The holder is noted beside the lock file, in `NAME.holder`. A process that has waited for three
    seconds logs a warning, which the command line prints, that names the holder by its id.

    Attributes:
        path: the lock file; its folder is created.
        task: what the holder is doing, as in "another process is {task}".
        timeout: seconds to wait; None waits without limit, 0 does not wait.
        per_holder: whether the timeout starts again whenever another process takes the lock, for
            locks that are held often and briefly.
        remedy: advice for the error when the lock is not released in time.
        poll_seconds: pause between two attempts.
    """

    path: Path
    task: str
    timeout: float | None = None
    per_holder: bool = False
    remedy: str = "wait for it or stop it, then run again"
    poll_seconds: float = 0.05

    @contextlib.contextmanager
    def held(self, on_wait: OnWait | None = None) -> Iterator[None]:
        """Hold the lock.

        Args:
            on_wait: called once when another process holds it.

        Raises:
            StoreBusyError: it was not released in time.
        """
        lock = self._file_lock()
        for seconds in self._pauses(lock, on_wait):
            time.sleep(seconds)
        with self._noted(lock):
            yield

    @contextlib.asynccontextmanager
    async def held_async(self, on_wait: OnWait | None = None) -> AsyncIterator[None]:
        """Hold the lock without blocking the event loop; see `held`."""
        lock = self._file_lock()
        for seconds in self._pauses(lock, on_wait):
            await asyncio.sleep(seconds)
        with self._noted(lock):
            yield

    def _file_lock(self) -> filelock.BaseFileLock:
        make_private_folder(self.path.parent)
        return filelock.FileLock(self.path, mode=0o600)

    def _pauses(self, lock: filelock.BaseFileLock, on_wait: OnWait | None) -> Iterator[float]:
        """Try to take the lock until it is taken; yield the seconds to wait before the next try."""
        began = since = time.monotonic()
        holder, noticed, logged = self._holder(), False, False
        while not _taken(lock):
            now = time.monotonic()
            if (current := self._holder()) != holder:
                holder, since = current, now if self.per_holder else since
            if self.timeout is not None and now - since >= self.timeout:
                raise StoreBusyError(self._complaint(holder))
            if on_wait is not None and not noticed:
                on_wait()
                noticed = True
            if not logged and now - began >= _NOTICED_SECONDS:
                _log.warning("waiting for %s, which is %s", _process(holder), self.task)
                logged = True
            yield self.poll_seconds

    @contextlib.contextmanager
    def _noted(self, lock: filelock.BaseFileLock) -> Iterator[None]:
        """Record this process as the holder of a taken lock; release the lock at the end."""
        try:
            # A reader of half a note would take it for another holder: that does no harm.
            self._holder_file.write_text(f"{os.getpid()} {time.time_ns()}")
            yield
        finally:
            lock.release()

    @property
    def _holder_file(self) -> Path:
        return self.path.with_suffix(".holder")

    def _holder(self) -> str:
        with contextlib.suppress(OSError):
            return self._holder_file.read_text()
        return ""

    def _complaint(self, holder: str) -> str:
        if not self.timeout:
            return f"{_process(holder)} is {self.task}: {self.remedy}"
        return (
            f"{_process(holder)} has been {self.task} for over {_duration(self.timeout)}: "
            f"{self.remedy}"
        )


def _taken(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return False
    return True


def _process(holder: str) -> str:
    pid = holder.partition(" ")[0]
    return f"process {pid}" if pid else "another process"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f} min" if minutes and not rest else f"{seconds:g} s"
