"""Temporary folders in a home, of which none outlives its process by more than one run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from filelock import FileLock, Timeout

from harmonizer_assets.core.base.errors import StoreBusyError
from harmonizer_assets.core.base.files import remove
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.locks import Lock

_LOCK: Final = ".lock"
_SECONDS_TO_WAIT: Final = 30.0
_SECONDS_OF_GRACE: Final = 24 * 3600.0
"""Age from which what has no lock is removed: earlier versions left such files."""


@contextmanager
def scratch_folder(home: Home) -> Iterator[Path]:
    """Make a private folder in `Home.scratch` that is removed when the block ends.

    What processes that were killed have left there is removed first. A folder is in use while the
    lock file beside it is locked; the system unlocks it when the process dies.

    Raises:
        OSError: the folder cannot be made.
        StoreBusyError: another process has been making one for half a minute.
    """
    home.ensure()
    folder = home.scratch / token_hex(8)
    lock = FileLock(folder.with_suffix(_LOCK), mode=0o600)
    with _sole(home):
        _remove_abandoned(home.scratch)
        lock.acquire(timeout=0)
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(folder)
        if home.scratch.is_dir():  # else the home has been removed, and is not to be made again
            with suppress(OSError, StoreBusyError), _sole(home):
                lock.release()
                Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def _sole(home: Home) -> Iterator[None]:
    """Keep other processes from making and removing folders, which takes milliseconds."""
    guard = Lock(home.locks / "scratch.lock", "making a temporary folder", _SECONDS_TO_WAIT)
    with guard.held():
        yield


def _remove_abandoned(scratch: Path) -> None:
    locks = {path.stem: path for path in scratch.glob(f"*{_LOCK}")}
    for name, path in locks.items():
        lock = FileLock(path, mode=0o600)
        with suppress(Timeout, OSError):
            lock.acquire(timeout=0)
            _remove(scratch / name)
            lock.release()
            path.unlink(missing_ok=True)
    for path in scratch.iterdir():
        if path.stem not in locks and _age(path) > _SECONDS_OF_GRACE:
            _remove(path)


def _age(path: Path) -> float:
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime
    return 0.0


def _remove(path: Path) -> None:
    with suppress(OSError):
        remove(path)
