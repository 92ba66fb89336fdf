"""The DuckDB file: opened for one transaction at a time, by one process at a time."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import duckdb

from harmonizer_assets.core.base.errors import StoreBusyError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.queues import WaitingQueue
from harmonizer_assets.core.base.scratch import scratch_folder
from harmonizer_assets.core.base.sql import literal, quoted
from harmonizer_assets.core.store.errors import store_error

Connection = duckdb.DuckDBPyConnection

MAX_PAUSE_SECONDS: Final = 0.25
SESSION_SECONDS: Final = 0.25
"""How long a session keeps the file open after it was last read."""
_LOOK_SECONDS: Final = 0.05
"""How often a session looks whether another process waits for the file."""
_LOGGED_WAIT_SECONDS: Final = 3.0
STORAGE_VERSION: Final = "v1.2.0"
"""Format of the file: DuckDB 1.2 and later read it.

What DuckDB writes by default is for 1.0 as well, and takes about three times as long to open.
"""
SMALL_BYTES: Final = 16 * 2**20
"""Size of files up to which one thread is faster than several, which have to be woken."""
_FIRST_PAUSE: Final = 0.02
"""The longest pause, in seconds, between two attempts of the first in the queue."""
_LATER_PAUSE: Final = 0.1
"""The same for those behind it."""
_OTHERS: Final = "processes that came before"
_HOLDER: Final = re.compile(r"PID (\d+)")
_NAME: Final = "harmonizer"

logger = logging.getLogger(__name__)


class DatabaseFile:
    """The DuckDB file of one home, as this process opens it.

    One process at a time can open a DuckDB file for writing, and no other can open it meanwhile,
    so it is open only while a transaction runs. An empty DuckDB stays in memory and the file is
    attached to it: that takes half the time of starting DuckDB again.

    Attributes:
        lock: held by the thread that has the file open; threads take turns.
    """

    def __init__(self, home: Home) -> None:
        self.lock = threading.RLock()
        self._path = home.database
        self._snapshot = home.snapshot
        self._home = home
        self._temporary = ExitStack()
        weakref.finalize(self, self._temporary.close)
        self._queue = WaitingQueue(home.locks / "database.queue")
        self._engine: Connection | None = None
        self._attached: dict[str, int] = {}  # sizes in bytes, by the name of the database
        self._all_threads = 0
        self._threads = 0
        self._read_only = True
        self.connections = 0
        self._sessions = 0
        self._read_at = 0.0
        self._session_ends = threading.Event()

    @contextmanager
    def used(self) -> Iterator[int]:
        """Keep other threads from the file; yields how many connections this one has already."""
        is_nested = self.lock._is_owned()  # type: ignore[attr-defined]
        with self.lock:
            if self.connections and not is_nested:
                # An interrupt has come between two lines of what closes a connection.
                self.connections = 0
                self._give_up()
            yield self.connections

    def open(
        self,
        *,
        read_only: bool,
        busy_timeout: float,
        others: Mapping[str, Path] | None = None,
    ) -> Connection:
        """Open the file; the caller holds the lock and calls `close`.

        Args:
            read_only: whether other processes may read at the same time.
            busy_timeout: seconds to wait for a process that holds the file.
            others: further files to attach read-only, by the name of the database.

        Raises:
            StoreBusyError: another process has held the file for `busy_timeout` seconds, and none
                of those that wait has had it meanwhile.
            StoreError: the file is not usable.
        """
        try:
            if not self.connections and not (self._attached and read_only):
                self._let_go()
                self._attach_patiently(read_only, busy_timeout)
            for name, path in (others or {}).items():
                self._attach(name, path, read_only=True)
            self._set_threads()
            con = self._started().cursor()
            con.execute(f"USE {_NAME}")
        except BaseException as error:  # an interrupt, too, must not leave the file open
            if not self.connections:
                self._give_up()
            if isinstance(error, duckdb.Error):
                raise store_error(error, self._path) from error
            raise
        self.connections += 1
        return con

    def close(self, con: Connection | None, around: int, *, failed: bool = False) -> None:
        """Close the file, unless a connection around this one still uses it.

        Args:
            con: what `open` has returned; what it has not committed is rolled back. None where it
                has returned nothing.
            around: how many connections there were before.
            failed: whether the transaction failed, which can leave DuckDB itself unusable.

        Raises:
            StoreError: the write-ahead log cannot be merged into the file. What was committed is
                in that log and counts when the file is opened again.
        """
        self.connections = around
        try:
            if failed and con is not None:
                # After an interrupt DuckDB's threads go on with the query, and closing would wait
                # for its end.
                con.interrupt()
            if con is not None:
                con.close()
            if not self.connections:
                if failed:
                    self._give_up()
                elif self._sessions and self._read_only and self._queue.is_empty():
                    self._read_at = time.monotonic()
                else:
                    self._let_go()
        except BaseException as error:
            if not around:
                self._give_up()
            if isinstance(error, duckdb.Error):
                raise store_error(error, self._path, committed=not failed) from error
            raise

    def begin_session(self) -> None:
        """Keep the file open for reading between transactions that follow each other."""
        with self.lock:
            self._sessions += 1
            if self._sessions == 1:
                self._session_ends = threading.Event()
                self._watcher = threading.Thread(
                    target=self._watch_session, args=(self._session_ends,), daemon=True
                )
                self._watcher.start()

    def end_session(self) -> None:
        """End what `begin_session` began; the last one closes the file and leaves no thread."""
        with self.lock:
            self._sessions -= 1
            if self._sessions:
                return
            self._session_ends.set()
            watcher = self._watcher
            self._close_unused()
        watcher.join()

    def _watch_session(self, ends: threading.Event) -> None:
        """Close the file when another process waits, or when it was not read for a moment."""
        while not ends.wait(_LOOK_SECONDS):
            # Who ends the session waits for this thread, maybe with the lock.
            if not self.lock.acquire(timeout=_LOOK_SECONDS):
                continue
            try:
                is_idle = time.monotonic() - self._read_at > SESSION_SECONDS
                if self._attached and (is_idle or not self._queue.is_empty()):
                    # A file that cannot be closed in good order is closed all the same.
                    with suppress(duckdb.Error):
                        self._close_unused()
            finally:
                self.lock.release()

    def _close_unused(self) -> None:
        if not self.connections:
            self._let_go()

    def _started(self) -> Connection:
        if self._engine is None:
            self._engine = duckdb.connect(
                ":memory:",
                config={
                    "temp_directory": self._temporary_folder(),
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    # Rows go into the file as they are committed. A write-ahead log would be
                    # merged into it at once, since it is closed, and they were written twice.
                    "checkpoint_threshold": "0 bytes",
                },
            )
            found = self._engine.execute("SELECT current_setting('threads')").fetchall()
            self._all_threads = self._threads = int(found[0][0])
        return self._engine

    def _set_threads(self) -> None:
        """Let queries on small files run in one thread."""
        wanted = 1 if sum(self._attached.values()) <= SMALL_BYTES else self._all_threads
        if wanted != self._threads:
            self._started().execute(f"SET threads = {wanted}")
            self._threads = wanted

    def _temporary_folder(self) -> str:
        """Make the folder for what does not fit into memory; "" keeps DuckDB from writing any.

        Each DuckDB has one of its own: two would give their files the same names.
        """
        try:
            folder = self._temporary.enter_context(scratch_folder(self._home))
        except (OSError, StoreError):
            return ""
        return str(folder)

    def _give_up(self) -> None:
        """Close DuckDB, and the file with it; the next transaction starts it again."""
        engine, self._engine, self._attached = self._engine, None, {}
        if engine is not None:
            engine.close()
        self._temporary.close()

    def _attach(self, name: str, path: Path, *, read_only: bool) -> None:
        options = "READ_ONLY" if read_only else f"STORAGE_VERSION {literal(STORAGE_VERSION)}"
        self._started().execute(f"ATTACH {literal(str(path))} AS {quoted(name)} ({options})")
        self._attached[name] = path.stat().st_size

    def _let_go(self) -> None:
        """Close the files that are open."""
        try:
            for name in reversed([*self._attached]):
                self._started().execute(f"DETACH {quoted(name)}")
                del self._attached[name]
        except BaseException:  # after an interrupt nobody knows which files are open
            self._give_up()
            raise

    def _attach_patiently(self, read_only: bool, busy_timeout: float) -> None:
        # Who comes later must not be faster than those that wait.
        if self._queue.is_empty() and self._held(read_only) is None:
            return
        wait = _Wait(self._path, self._snapshot, busy_timeout)
        with self._queue.joined() as place:
            while True:
                ahead = place.ahead()
                holder = self._held(read_only) if ahead is None or wait.is_over(ahead) else ""
                if holder is None:
                    return
                wait.pause(ahead, holder)

    def _held(self, read_only: bool) -> str | None:
        """Open the file; return the process that holds it, where one does."""
        try:
            self._attach(_NAME, self._path, read_only=read_only)
        except duckdb.IOException as error:
            if "set lock" not in str(error):
                raise
            found = _HOLDER.search(str(error))
            return f"process {found[1]}" if found else "another process"
        self._read_only = read_only
        return None


class _Wait:
    """A wait for the process that holds a file; the time-out counts from the last progress."""

    def __init__(self, path: Path, snapshot: Path, timeout: float) -> None:
        self._path = path
        self._snapshot = snapshot
        self._timeout = timeout
        self._began = self._since = time.monotonic()
        self._ahead: str | None = None
        self._logged = False

    def is_over(self, ahead: str | None) -> bool:
        """Return whether nothing has moved for too long.

        Args:
            ahead: the first in the queue, None for this process; another one than before means
                that the queue moves.
        """
        now = time.monotonic()
        if ahead != self._ahead:
            self._ahead, self._since = ahead, now
        return now - self._since > self._timeout

    def pause(self, ahead: str | None, holder: str) -> None:
        """Sleep a little.

        Args:
            ahead: see `is_over`.
            holder: the process that holds the file, empty where it was not asked for.

        Raises:
            StoreBusyError: the timeout is over.
        """
        if self.is_over(ahead) and holder:
            raise StoreBusyError(
                f"{self._path} has been held by {holder} for over {self._timeout:.0f} s: close "
                f"that process (people's own shells should open {self._snapshot} instead), "
                "then run again"
            )
        waited = time.monotonic() - self._began
        if waited > _LOGGED_WAIT_SECONDS and not self._logged:
            self._logged = True
            logger.warning("waiting for %s, which holds %s", holder or _OTHERS, self._path)
        time.sleep(random.uniform(0.2, 1.0) * (_FIRST_PAUSE if ahead is None else _LATER_PAUSE))


_files: weakref.WeakValueDictionary[Path, DatabaseFile] = weakref.WeakValueDictionary()
_files_guard = threading.Lock()


def database_file(home: Home) -> DatabaseFile:
    """Return the one `DatabaseFile` of this process for a home; it lives while it is used."""
    with _files_guard:
        path = home.database.resolve()
        file = _files.get(path)
        if file is None:
            file = _files[path] = DatabaseFile(home)
        return file
