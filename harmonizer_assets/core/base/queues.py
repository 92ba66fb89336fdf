"""Queues of processes that wait for the same thing: who has waited longest goes first."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from harmonizer_assets.core.base.files import make_private_folder


@dataclass(frozen=True)
class WaitingQueue:
    """The processes of a machine that wait, as files in a folder.

    Each holds a lock on its own file, which the system releases when it dies, so that the others
    can remove the file. The names begin with the clock that all processes of a machine share.

    Attributes:
        folder: holds the files; created when somebody waits.
    """

    folder: Path

    def is_empty(self) -> bool:
        """Return whether nobody waits."""
        return not self._names()

    @contextlib.contextmanager
    def joined(self) -> Iterator[Place]:
        """Wait behind those that wait already; the place is given up at the end."""
        make_private_folder(self.folder)
        place = Place(self)
        try:
            yield place
        finally:
            place.leave()

    def first(self) -> str | None:
        """Return the name of the one that has waited longest; forget those that have died."""
        for name in self._names():
            lock = filelock.FileLock(self.folder / name, mode=0o600)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                return name
            _remove(lock)
        return None

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []


class Place:
    """A place in a queue."""

    def __init__(self, queue: WaitingQueue) -> None:
        """Take the last place."""
        self._queue = queue
        self._take()

    def ahead(self) -> str | None:
        """Return the name of the first in the queue; None where it is this one."""
        if not self._file.exists():
            # Another process has found the file before it was locked.
            self.leave()
            self._take()
        first = self._queue.first()
        return None if first == self._file.name else first

    def leave(self) -> None:
        """Give the place up."""
        _remove(self._lock)

    def _take(self) -> None:
        name = f"{time.monotonic_ns():020}-{os.getpid()}-{secrets.token_hex(3)}"
        self._file = self._queue.folder / name
        self._lock = filelock.FileLock(self._file, mode=0o600)
        self._lock.acquire()


def _remove(lock: filelock.BaseFileLock) -> None:
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
