"""The journal: answers on disk within milliseconds, in the database a little later.

A DuckDB transaction costs tens of milliseconds of CPU time and must wait while another process has
the file. So answers are appended to a file of the run first, which makes them durable; they are
folded into the tables together with the verdicts of finished partitions. Each fold records its
position in the same transaction, so nothing is lost or counted twice wherever a process dies.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import duckdb

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.files import make_private_folder, restrict_to_folder, sync_to_disk
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.judge.llm.lease import asking_if_idle
from harmonizer_assets.core.judge.llm.memory.cache import add_usage, store_answers
from harmonizer_assets.core.judge.llm.memory.records import (
    Record,
    Records,
    read_records,
    set_aside,
)
from harmonizer_assets.core.judge.llm.money.ledger import Spent, add_spent, forget, today
from harmonizer_assets.core.judge.llm.money.shares import UsageByPartition
from harmonizer_assets.core.records.account import Account
from harmonizer_assets.core.records.label import Usage
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.store.warehouse import Warehouse

_log = logging.getLogger(__name__)

_SUFFIX: Final = ".ndjson"

NOTHING_SPENT: Final = Spent()

_FOLDED: Final = "SELECT folded FROM llm_journals WHERE name = $1"
_NOTE: Final = "INSERT INTO llm_journals VALUES ($1, $2)"
_FORGET: Final = "DELETE FROM llm_journals WHERE name = $1"


class Journal:
    """The journal of one run. A home has one run at a time that asks, see `lease`."""

    def __init__(self, folder: Path, account: Account) -> None:
        """Start an empty journal.

        Raises:
            StoreError: the file cannot be made.
        """
        self._path = folder / f"{time.time_ns()}{_SUFFIX}"
        self._account = account
        self._in_flight: dict[int, Spent] = {}
        self._unfolded: list[tuple[int, Record]] = []
        self._written = 0
        # Answers are appended by one thread while another folds them.
        self._guard = threading.Lock()
        try:
            make_private_folder(folder)
            # Unbuffered: what is written has left the process, whatever becomes of it.
            self._file = self._path.open("ab", buffering=0)
            restrict_to_folder(self._path)
            # The journal's lines are durable only if its name is.
            sync_to_disk(folder)
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be written ({error.strerror})") from error

    def sends(self, number: int, most: Spent) -> None:
        """Note that a call is about to be sent, and what it may cost at most.

        It is not synced: the note outlives the process, and that is when it is needed.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        self._write({"sent": [number, vars(most)]})
        self._in_flight[number] = most

    def append(
        self,
        answers: Sequence[dict[str, Any]],
        usage: UsageByPartition,
        spent: Spent = NOTHING_SPENT,
        ended: Sequence[int] = (),
    ) -> None:
        """Make answers, rows of `llm_verdicts`, and their usage durable.

        Args:
            answers: rows of `llm_verdicts`.
            usage: per partition.
            spent: for them.
            ended: numbers of the calls that are paid for with it.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        used = [[*key, vars(value)] for key, value in usage.items()]
        content = {"answers": list(answers), "usage": used, "spent": vars(spent)}
        self._write({**content, "ended": list(ended)}, sync=True)
        for number in ended:
            self._in_flight.pop(number, None)

    def _write(self, content: Record, *, sync: bool = False) -> None:
        record = {**vars(self._account), "day": today().isoformat(), **content}
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        try:
            with self._guard:
                self._file.write(line)
                self._written += len(line)
                end = self._written
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(
                f"{self._path}: answers cannot be stored ({error.strerror}): make room and run "
                "again, what was answered before is kept"
            ) from error
        if sync:
            with self._guard:
                self._unfolded.append((end, record))

    def fold(self, con: duckdb.DuckDBPyConnection) -> None:
        """Write to the tables, inside a transaction, what earlier ones have not written."""
        done = _folded(con, self._path.name)
        with self._guard:
            # What an earlier transaction has committed need not be kept any longer.
            self._unfolded = [entry for entry in self._unfolded if entry[0] > done]
            entries = list(self._unfolded)
        _write(con, self._path.name, entries)

    def close(self, warehouse: Warehouse) -> None:
        """Fold what is left and remove the file; if that fails, a later run does it."""
        self._file.close()
        left = sum(self._in_flight.values(), Spent())

        def write(con: duckdb.DuckDBPyConnection) -> None:
            self.fold(con)
            if self._in_flight:
                add_spent(con, self._path.name, self._account, left)

        warehouse.write(write)
        with self._guard:
            self._unfolded = []
        _remove(warehouse, self._path)


def recover(folder: Path, warehouse: Warehouse) -> list[str]:
    """Fold the journals that killed runs have left.

    Damaged parts of them are set aside, in the folder `damaged`; all that can be read is kept. Call
    it while holding the lease, before there is a journal of this run.

    Returns:
        A sentence about each damaged journal.

    Raises:
        StoreError: a journal cannot be read, or its damaged part not be set aside.
    """
    warnings = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        records = read_records(path)
        if records.damaged:
            warnings.append(set_aside(path, records))
            _log.warning("%s", warnings[-1])
        warehouse.write(partial(_fold_file, records=records, name=path.name))
        _remove(warehouse, path)
    return warnings


def recover_if_idle(home: Home, warehouse: Warehouse) -> list[str]:
    """Fold what killed runs have left, unless a run is asking now; see `recover`."""
    if not any(home.journals.glob(f"*{_SUFFIX}")):
        return []
    with asking_if_idle(home) as is_idle:
        return recover(home.journals, warehouse) if is_idle else []


def _fold_file(con: duckdb.DuckDBPyConnection, records: Records, name: str) -> None:
    done = _folded(con, name)
    entries = [entry for entry in records.whole if entry[0] > done and "sent" not in entry[1]]
    _write(con, name, entries)
    # Written as a whole, since the file may be read again before it is removed.
    forget(con, name)
    for record in records.in_flight():
        spent, day = Spent(**record["sent"][1]), dt.date.fromisoformat(record["day"])
        add_spent(con, name, _account(record), spent, day=day)


def _account(record: Record) -> Account:
    run_id = record["run_id"]
    return Account(run_id, record.get("launch_id") or run_id, record.get("backfill_id"))


def _folded(con: duckdb.DuckDBPyConnection, name: str) -> int:
    row = con.execute(_FOLDED, [name]).fetchone()
    return int(row[0]) if row else 0


def _write(
    con: duckdb.DuckDBPyConnection, name: str, entries: Sequence[tuple[int, Record]]
) -> None:
    if not entries:
        return
    for run_id in {record["run_id"] for _, record in entries}:
        records = [record for _, record in entries if record["run_id"] == run_id]
        store_answers(con, [answer for record in records for answer in record["answers"]], run_id)
        total: UsageByPartition = {}
        for record in records:
            for label_type, merchant, values in record["usage"]:
                key = PartitionKey(label_type, merchant)
                total.setdefault(key, Usage()).add(Usage(**values))
        add_usage(con, run_id, total)
        for record in records:
            if "spent" in record:
                entry, day = f"{run_id} {record['day']}", dt.date.fromisoformat(record["day"])
                add_spent(con, entry, _account(record), Spent(**record["spent"]), day=day)
    con.execute(_FORGET, [name])
    con.execute(_NOTE, [name, entries[-1][0]])


def _remove(warehouse: Warehouse, path: Path) -> None:
    def forget(con: duckdb.DuckDBPyConnection) -> None:
        con.execute(_FORGET, [path.name])

    # File first: an offset without a file is harmless, a file without its offset counts twice.
    path.unlink(missing_ok=True)
    warehouse.write(forget)
