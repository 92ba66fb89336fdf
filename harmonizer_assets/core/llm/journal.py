"""The journal: answers on disk within milliseconds, in the database a little later.

A DuckDB transaction costs tens of milliseconds of CPU time and must wait while another process has
the file. So answers are appended to a file of the run first, which makes them durable; they are
folded into the tables together with the verdicts of finished partitions. Each fold notes in its own
transaction how far it got, so nothing is lost or counted twice wherever a process dies.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import duckdb
from filelock import FileLock, Timeout

from harmonizer_assets.core.errors import StoreError
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.judge import Usage
from harmonizer_assets.core.llm.cache import UsageByPartition, add_usage, store_answers
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.warehouse import Warehouse

_SUFFIX: Final = ".ndjson"
_LOCK_POLL_SECONDS: Final = 0.2

_FOLDED: Final = "SELECT folded FROM llm_journals WHERE name = $1"
_NOTE: Final = "INSERT INTO llm_journals VALUES ($1, $2)"
_FORGET: Final = "DELETE FROM llm_journals WHERE name = $1"


class Journal:
    """The journal of one run. A home has one run at a time that asks, see `judging_lock`."""

    def __init__(self, folder: Path, run_id: str) -> None:
        """Start an empty journal.

        Raises:
            StoreError: the file cannot be made.
        """
        self._path = folder / f"{time.time_ns()}{_SUFFIX}"
        self._run_id = run_id
        self._unfolded: list[tuple[int, dict[str, Any]]] = []
        self._written = 0
        # Answers are appended by one thread while another folds them.
        self._guard = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be written ({error.strerror})") from error

    def append(self, answers: Sequence[dict[str, Any]], usage: UsageByPartition) -> None:
        """Make answers durable, rows of `llm_verdicts`, and what was used for them.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        used = [[*key, vars(value)] for key, value in usage.items()]
        record = {"run_id": self._run_id, "answers": list(answers), "usage": used}
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(
                f"{self._path}: answers cannot be stored ({error.strerror}): make room and run "
                "again, what was answered before is kept"
            ) from error
        with self._guard:
            self._written += len(line)
            self._unfolded.append((self._written, record))

    def fold(self, con: duckdb.DuckDBPyConnection) -> None:
        """Write to the tables, inside a transaction, what no earlier one has written."""
        done = _folded(con, self._path.name)
        with self._guard:
            # What an earlier transaction has committed need not be kept any longer.
            self._unfolded = [entry for entry in self._unfolded if entry[0] > done]
            entries = list(self._unfolded)
        _write(con, self._path.name, entries)

    def close(self, warehouse: Warehouse) -> None:
        """Fold what is left and remove the file; if that fails, a later run does it."""
        self._file.close()
        warehouse.write(self.fold)
        with self._guard:
            self._unfolded = []
        _remove(warehouse, self._path)


def recover(folder: Path, warehouse: Warehouse) -> int:
    """Fold the journals that killed runs have left; how many there were.

    To be called by whoever holds the `judging_lock`, before there is a journal of its own.
    """
    left = sorted(folder.glob(f"*{_SUFFIX}"))
    for path in left:
        warehouse.write(partial(_fold_file, path=path))
        _remove(warehouse, path)
    return len(left)


@asynccontextmanager
async def judging_lock(
    home: Home, on_wait: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Wait until no other run of this home asks a model; `on_wait` is called if there is one.

    One run keeps the endpoint as busy as its limits allow; a second one would only compete for
    them, and ask what the first is about to know.
    """
    lock = FileLock(home.locks / "judging.lock")
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if on_wait is not None:
                on_wait()
                on_wait = None
            await asyncio.sleep(_LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _fold_file(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    done = _folded(con, path.name)
    _write(con, path.name, [entry for entry in _records(path) if entry[0] > done])


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole records of a journal, each with the offset of its end."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                # The process died while it wrote this; its answers were never used.
                return
            offset += len(line)
            yield offset, json.loads(line)


def _folded(con: duckdb.DuckDBPyConnection, name: str) -> int:
    row = con.execute(_FOLDED, [name]).fetchone()
    return int(row[0]) if row else 0


def _write(
    con: duckdb.DuckDBPyConnection, name: str, entries: Sequence[tuple[int, dict[str, Any]]]
) -> None:
    if not entries:
        return
    store_answers(con, [answer for _, record in entries for answer in record["answers"]])
    for run_id in {record["run_id"] for _, record in entries}:
        total: UsageByPartition = {}
        for _, record in entries:
            if record["run_id"] == run_id:
                for label_type, merchant, values in record["usage"]:
                    key = PartitionKey(label_type, merchant)
                    total.setdefault(key, Usage()).add(Usage(**values))
        add_usage(con, run_id, total)
    con.execute(_FORGET, [name])
    con.execute(_NOTE, [name, entries[-1][0]])


def _remove(warehouse: Warehouse, path: Path) -> None:
    def forget(con: duckdb.DuckDBPyConnection) -> None:
        con.execute(_FORGET, [path.name])

    # File first: an offset without a file is harmless, a file without its offset counts twice.
    path.unlink(missing_ok=True)
    warehouse.write(forget)
