"""The warehouse: the only code that opens the DuckDB file."""

from __future__ import annotations

import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import pyarrow as pa

from harmonizer_assets.core.errors import InputError, StoreBusyError, StoreError
from harmonizer_assets.core.home import Home

T = TypeVar("T")
Connection = duckdb.DuckDBPyConnection

BUSY_TIMEOUT_SECONDS: Final = 30.0
_MAX_PAUSE_SECONDS: Final = 0.25
_HOLDER: Final = re.compile(r"PID (\d+)")

EXPORTABLE: Final = (
    "words",
    "labels",
    "quarantine",
    "batches",
    "similarity_matches",
    "llm_verdicts",
    "judgements",
    "outliers",
    "label_decisions",
    "dead_letters",
    "partition_failures",
    "llm_usage",
    "merchant_alarms",
    "receipt_alarms",
    "findings",
    "label_patterns",
    "label_rules",
    "label_contradictions",
    "suspicion_models",
    "quality_history",
    "run_history",
)
_WITH_EXTRA_COLUMNS: Final = ("words", "labels")
_EXPORT_FORMATS: Final = {
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
    ".csv": "FORMAT csv, HEADER true",
    ".ndjson": "FORMAT json",
    ".jsonl": "FORMAT json",
}

_process_locks: dict[Path, threading.RLock] = {}
_process_locks_guard = threading.Lock()


class Warehouse:
    """Tables of one home, through short transactions.

    A DuckDB file is open to one read-write process at a time and shuts out everyone else while it
    is. So every transaction opens the file, waits with jittered pauses while another process has
    it, and closes it again; a process that computes holds nothing.
    """

    def __init__(
        self,
        home: Home,
        *,
        busy_timeout: float = BUSY_TIMEOUT_SECONDS,
        memory_limit: str | None = None,
    ) -> None:
        """Name the warehouse of a home; nothing is opened yet.

        Args:
            home: the home folder.
            busy_timeout: seconds to wait for a process that holds the file.
            memory_limit: DuckDB's, for example `"2GB"`; default is DuckDB's own.
        """
        self._home = home
        self._busy_timeout = busy_timeout
        self._memory_limit = memory_limit
        self._migrated = False
        with _process_locks_guard:
            self._lock = _process_locks.setdefault(home.database.resolve(), threading.RLock())

    def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a short read-only transaction.

        Args:
            fn: reads with the connection that it gets; must not keep it.

        Raises:
            StoreBusyError: another process has held the file for `busy_timeout` seconds.
            StoreError: the file or the disk is not usable.
        """
        self._migrate_once()
        return self._transaction(fn, read_only=True)

    def write(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a short read-write transaction: all of it is kept, or nothing.

        Args:
            fn: reads and writes with the connection that it gets; must not keep it. It may be
                called again after a conflict, so it must have no other effects.

        Raises:
            StoreBusyError: another process has held the file for `busy_timeout` seconds.
            StoreError: the file or the disk is not usable; nothing was written.
        """
        self._migrate_once()
        return self._transaction(fn, read_only=False)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Run one query in a transaction of its own."""
        return self.read(lambda con: con.execute(sql, dict(parameters or {})).to_arrow_table())

    def replace_partitions(
        self, con: Connection, table: str, partitions: pa.Table, rows: pa.Table
    ) -> None:
        """Replace the rows of exactly these partitions; used inside `write`.

        Args:
            con: the connection that `write` gave.
            table: a table with the columns `label_type` and `merchant_key`.
            partitions: columns `label_type` and `merchant_key`.
            rows: columns of `table`, by name; missing ones become null.
        """
        con.register("replaced_partitions", partitions)
        con.register("replacing_rows", rows)
        con.execute(
            f"DELETE FROM {_quoted(table)} WHERE (label_type, merchant_key) IN "
            "(SELECT (label_type, merchant_key) FROM replaced_partitions)"
        )
        if rows.num_rows:
            con.execute(f"INSERT INTO {_quoted(table)} BY NAME SELECT * FROM replacing_rows")
        con.unregister("replaced_partitions")
        con.unregister("replacing_rows")

    def migrate(self) -> list[str]:
        """Bring the schema up to date; the names of the migrations that were applied.

        Raises:
            StoreError: the file was written by a newer version of the Harmonizer.
        """
        self._home.ensure()
        migrations = _packaged_migrations()
        if self._home.database.exists():
            applied = self._transaction(_applied_migrations, read_only=True)
            self._refuse_newer(applied, migrations)
            if set(migrations) <= set(applied):
                return []

        def apply(con: Connection) -> list[str]:
            con.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations "
                "(name VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL)"
            )
            applied = _applied_migrations(con)
            self._refuse_newer(applied, migrations)
            missing = [name for name in migrations if name not in applied]
            for name in missing:
                con.execute(migrations[name])
                con.execute("INSERT INTO schema_migrations VALUES ($1, now())", [name])
            return missing

        return self._transaction(apply, read_only=False)

    def publish_snapshot(self) -> Path:
        """Copy the database to `Home.snapshot`, replacing the copy as a whole.

        People query the copy with any DuckDB client for as long as they like; an open shell keeps
        the copy that it has opened.
        """
        self._migrate_once()
        target = self._home.snapshot
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with self._lock:
                con = self._open(read_only=False)
                try:
                    con.execute("CHECKPOINT")
                    shutil.copyfile(self._home.database, partial)
                finally:
                    con.close()
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _store_error(error, self._home.database) from error
        return target

    def export(self, table: str, path: Path) -> int:
        """Write a table or view to Parquet, CSV or NDJSON, by the file's suffix.

        Args:
            table: one of `EXPORTABLE`. `words` and `labels` get their extra columns back.
            path: replaced as a whole once it is complete.

        Returns:
            The number of rows.

        Raises:
            InputError: no such table, another suffix, or the file cannot be written.
        """
        if table not in EXPORTABLE:
            raise InputError(f"no table {table!r}: choose one of {', '.join(EXPORTABLE)}")
        options = _EXPORT_FORMATS.get(path.suffix.lower())
        if options is None:
            raise InputError(
                f"{path}: the suffix names the format: one of {', '.join(_EXPORT_FORMATS)}"
            )
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}")
        partial = path.with_name(f".{path.name}.{os.getpid()}")

        def copy(con: Connection) -> int:
            source = f"SELECT * FROM {_quoted(table)}"
            if table in _WITH_EXTRA_COLUMNS:
                source = _with_extra_columns(con, table)
            rows = con.execute(
                f"COPY ({source}) TO '{str(partial).replace(chr(39), chr(39) * 2)}' ({options})"
            ).fetchone()
            return int(rows[0]) if rows else 0

        try:
            count = self.read(copy)
            partial.replace(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        finally:
            partial.unlink(missing_ok=True)
        return count

    def _migrate_once(self) -> None:
        if not self._migrated:
            self.migrate()
            self._migrated = True

    def _refuse_newer(self, applied: Sequence[str], known: Mapping[str, str]) -> None:
        newer = sorted(set(applied) - set(known))
        if newer:
            raise StoreError(
                f"{self._home.database} was written by a newer version (it has {newer[-1]}): "
                "upgrade the label-harmonizer package"
            )

    def _transaction(self, fn: Callable[[Connection], T], *, read_only: bool) -> T:
        deadline = time.monotonic() + self._busy_timeout
        while True:
            with self._lock:
                con = self._open(read_only=read_only)
                try:
                    con.execute("BEGIN")
                    result = fn(con)
                    con.execute("COMMIT")
                    return result
                except duckdb.TransactionException as error:
                    if "onflict" not in str(error) or time.monotonic() > deadline:
                        raise _store_error(error, self._home.database) from error
                except (duckdb.IOException, duckdb.FatalException, OSError) as error:
                    raise _store_error(error, self._home.database) from error
                except duckdb.OutOfMemoryException as error:
                    raise _store_error(error, self._home.database) from error
                finally:
                    self._close(con)
            time.sleep(random.uniform(0, _MAX_PAUSE_SECONDS))

    def _close(self, con: Connection) -> None:
        try:
            # Closing rolls back what was not committed, and folds the log into the file.
            con.close()
        except duckdb.Error as error:
            raise _store_error(error, self._home.database) from error

    def _open(self, *, read_only: bool) -> Connection:
        database = self._home.database
        config: dict[str, Any] = {
            "temp_directory": str(self._home.scratch),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        if self._memory_limit:
            config["memory_limit"] = self._memory_limit
        deadline = time.monotonic() + self._busy_timeout
        pause = 0.005
        while True:
            try:
                return duckdb.connect(database, read_only=read_only, config=config)
            except duckdb.IOException as error:
                if "lock" not in str(error):
                    raise _store_error(error, database) from error
                if time.monotonic() > deadline:
                    holder = _HOLDER.search(str(error))
                    raise StoreBusyError(
                        f"{database} has been held by "
                        f"{f'process {holder[1]}' if holder else 'another process'} for over "
                        f"{self._busy_timeout:.0f} s: close that process (people's own shells "
                        f"should open {self._home.snapshot} instead), then run again"
                    ) from None
            except duckdb.Error as error:
                raise _store_error(error, database) from error
            time.sleep(random.uniform(0.2, 1.0) * pause)
            pause = min(_MAX_PAUSE_SECONDS, pause * 1.6)


def _packaged_migrations() -> dict[str, str]:
    folder = resources.files("harmonizer_assets.core.migrations")
    files = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    return {entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8") for entry in files}


def _applied_migrations(con: Connection) -> list[str]:
    exists = con.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'schema_migrations'"
    ).fetchone()
    if not exists or not exists[0]:
        return []
    rows = con.execute("SELECT name FROM schema_migrations ORDER BY name").fetchall()
    return [name for (name,) in rows]


def _with_extra_columns(con: Connection, table: str) -> str:
    keys = con.execute(
        f"SELECT DISTINCT unnest(json_keys(extra)) AS name FROM {_quoted(table)} ORDER BY name"
    ).fetchall()
    own = [row[0] for row in con.execute(f"DESCRIBE {_quoted(table)}").fetchall()]
    columns = [_quoted(name) for name in own if name not in {"extra", "batch_id", "batch_time"}]
    for (name,) in keys:
        pointer = "/" + name.replace("~", "~0").replace("/", "~1")
        value = f"json_extract(extra, {_literal(pointer)})"
        structure = con.execute(
            f"SELECT DISTINCT json_type({value}) FROM {_quoted(table)} WHERE {value} IS NOT NULL"
        ).fetchall()
        kinds = {kind for (kind,) in structure} - {"NULL"}
        columns.append(f"{_typed(value, kinds)} AS {_quoted(name)}")
    return f"SELECT {', '.join(columns)} FROM {_quoted(table)}"


def _typed(value: str, kinds: set[str]) -> str:
    """SQL that turns a JSON value into the one type that its column had."""
    if kinds <= {"UBIGINT", "BIGINT"} and kinds:
        return f"({value})::BIGINT"
    if kinds <= {"UBIGINT", "BIGINT", "DOUBLE"} and kinds:
        return f"({value})::DOUBLE"
    if kinds == {"BOOLEAN"}:
        return f"({value})::BOOLEAN"
    return f"({value})->>'$'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _store_error(error: Exception, database: Path) -> StoreError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    remedy = "nothing was written; see the message and run again"
    lowered = text.lower()
    if "no space" in lowered or "disk full" in lowered or "could not write" in lowered:
        remedy = "the disk is full or nearly so: make room and run again, nothing was lost"
    elif "memory" in lowered:
        remedy = "not enough memory: run on a larger machine or fewer labels at once"
    elif "not a valid duckdb" in lowered:
        remedy = "it is not a DuckDB file: move it away or give another --home"
    elif "permission" in lowered:
        remedy = "check who owns the home folder"
    return StoreError(f"{database}: {text} ({remedy})")
