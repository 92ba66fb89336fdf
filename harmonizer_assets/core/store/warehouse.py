"""The warehouse: tables of one home, through short transactions."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from harmonizer_assets.core.base.files import restrict_to_folder, staged
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.interrupts import interrupts_raised
from harmonizer_assets.core.base.settings import WaitSettings
from harmonizer_assets.core.base.sql import literal, quoted
from harmonizer_assets.core.store.database import (
    MAX_PAUSE_SECONDS,
    STORAGE_VERSION,
    Connection,
    database_file,
)
from harmonizer_assets.core.store.errors import store_error
from harmonizer_assets.core.store.migrate import apply_migrations, missing_migrations

__all__ = ["Connection", "Warehouse", "replace_partitions"]

T = TypeVar("T")

_ARROW_JSON: Final = {"ARROW:extension:name": "arrow.json", "ARROW:extension:metadata": ""}


class Warehouse:
    """Tables of one home, through short transactions.

    One process at a time can open a DuckDB file for writing, and no other can open it meanwhile.
    So every transaction opens the file, waits with jittered pauses while another process has it,
    and closes it again, unless it reads in a `session`; a process that computes holds nothing.

    Attributes:
        home: the home folder.
    """

    def __init__(
        self, home: Home, *, busy_timeout: float = WaitSettings().database_seconds
    ) -> None:
        """Bind to the warehouse of a home; nothing is opened yet.

        Args:
            home: the home folder.
            busy_timeout: seconds to wait for a process that holds the file.
        """
        self.home = home
        self._busy_timeout = busy_timeout
        self._file = database_file(home)
        self._is_current = False

    def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a short read-only transaction.

        Args:
            fn: reads with the connection that it gets; must not keep it.

        Raises:
            StoreBusyError: another process has held the file for `busy_timeout` seconds.
            StoreError: the file or the disk is not usable.
        """
        return self._transaction(fn, read_only=True)

    def write(
        self, fn: Callable[[Connection], T], *, attached: Mapping[str, Path] | None = None
    ) -> T:
        """Run `fn` in a short read-write transaction: all of it is kept, or nothing.

        Args:
            fn: reads and writes with the connection that it gets; must not keep it. It may be
                called again after a conflict, so it must have no other effects.
            attached: further DuckDB files that `fn` reads, by the name of the database.

        Raises:
            StoreBusyError: another process has held the file for `busy_timeout` seconds.
            StoreError: the file or the disk is not usable; nothing was written.
        """
        return self._transaction(fn, read_only=False, attached=attached)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Run one query in a transaction of its own."""
        return self.read(lambda con: con.execute(sql, dict(parameters or {})).to_arrow_table())

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keep the file open between reads that follow each other within a quarter of a second.

        Other processes can read meanwhile. One that waits to write gets the file at the end of the
        read that runs.
        """
        self._file.begin_session()
        try:
            yield
        finally:
            self._file.end_session()

    def migrate(self) -> list[str]:
        """Bring the schema up to date; return the names of the migrations that were applied.

        Raises:
            StoreBusyError: another process has held the file for `busy_timeout` seconds.
            StoreError: the file was written by a newer version of the Harmonizer.
        """
        self.home.ensure()
        database = self.home.database
        applied: list[str] = []
        if not database.exists() or self._run(
            lambda con: missing_migrations(con, database), read_only=True
        ):
            is_new = not database.exists()
            applied = self._run(lambda con: apply_migrations(con, database), read_only=False)
            if is_new:
                restrict_to_folder(database)
        self._is_current = True
        return applied

    def copy_to(self, path: Path) -> str:
        """Copy the whole database to a file, replacing it as a whole.

        The file is locked meanwhile, so an older copy never replaces a newer one.

        Returns:
            The state of the database that was copied, see `state`.

        Raises:
            StoreBusyError: another process has held the file for `busy_timeout` seconds.
            StoreError: the file or the disk is not usable; the copy is as it was.
        """
        if not self._is_current:
            self.migrate()
        with self._opened(read_only=False) as con:
            con.execute("CHECKPOINT")
            with staged(path) as partial:
                partial.touch(mode=0o600)
                shutil.copyfile(self.home.database, partial)
            return self.state()

    def compact(self) -> None:
        """Write the database's file anew, so that nothing of deleted rows is left in it.

        Raises:
            StoreBusyError: another process has held the file for `busy_timeout` seconds.
            StoreError: the file or the disk is not usable; the file is as it was.
        """
        with self._opened(read_only=False) as con, staged(self.home.database) as partial:
            con.execute("CHECKPOINT")
            name = con.execute("SELECT current_database()").fetchall()[0][0]
            version = literal(STORAGE_VERSION)
            con.execute(f"ATTACH {literal(str(partial))} AS compacted (STORAGE_VERSION {version})")
            try:
                con.execute(f"COPY FROM DATABASE {quoted(name)} TO compacted")
            finally:
                con.execute("DETACH compacted")

    def state(self) -> str:
        """Return size and time of writing of the database's file, as text.

        DuckDB leaves a file alone that nobody writes to, so equal states mean equal tables.

        Raises:
            OSError: there is no file yet.
        """
        found = self.home.database.stat()
        return f"{found.st_size} {found.st_mtime_ns}"

    def _transaction(
        self,
        fn: Callable[[Connection], T],
        *,
        read_only: bool,
        attached: Mapping[str, Path] | None = None,
    ) -> T:
        if not self._is_current:
            if not read_only:
                self.home.ensure()
            if not self.home.database.exists():
                self.migrate()
        try:
            return self._run(self._checked(fn), read_only=read_only, attached=attached)
        except _OutdatedSchema:
            self.migrate()
            return self._run(fn, read_only=read_only, attached=attached)

    def _checked(self, fn: Callable[[Connection], T]) -> Callable[[Connection], T]:
        """Check the schema in the first transaction, which has the file open anyway."""

        def run(con: Connection) -> T:
            if not self._is_current:
                if missing_migrations(con, self.home.database):
                    raise _OutdatedSchema
                self._is_current = True
            return fn(con)

        return run

    def _run(
        self,
        fn: Callable[[Connection], T],
        *,
        read_only: bool,
        attached: Mapping[str, Path] | None = None,
    ) -> T:
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                with self._opened(read_only=read_only, attached=attached) as con:
                    con.execute("BEGIN")
                    result = fn(con)
                    con.execute("COMMIT")
                    return result
            except duckdb.TransactionException as error:
                if "onflict" not in str(error) or time.monotonic() > deadline:
                    raise store_error(error, self.home.database) from error
            time.sleep(random.uniform(0, MAX_PAUSE_SECONDS))

    @contextmanager
    def _opened(
        self, *, read_only: bool, attached: Mapping[str, Path] | None = None
    ) -> Iterator[Connection]:
        """Open the file and close it again; raise errors of DuckDB and the disk as `StoreError`."""
        with interrupts_raised(), self._file.used() as around:
            con, failed = None, True
            try:
                con = self._file.open(
                    read_only=read_only, busy_timeout=self._busy_timeout, others=attached
                )
                yield con
                failed = False
            except (
                duckdb.IOException,
                duckdb.FatalException,
                duckdb.OutOfMemoryException,
                OSError,
            ) as error:
                raise store_error(error, self.home.database) from error
            finally:
                self._file.close(con, around, failed=failed)


class _OutdatedSchema(Exception):  # noqa: N818  it is a state, not an error
    """The database lacks migrations."""


def replace_partitions(
    con: Connection,
    table: str,
    partitions: pa.Table,
    rows: pa.Table,
    *,
    json_columns: Sequence[str] = (),
) -> None:
    """Replace the rows of exactly these partitions; used inside `Warehouse.write`.

    Args:
        con: the connection that `write` gave.
        table: a table with the columns `label_type` and `merchant_key`.
        partitions: columns `label_type` and `merchant_key`.
        rows: columns of `table`, by name; missing ones become null. Those of other partitions are
            left out.
        json_columns: of `rows`, texts that are known to be JSON, which is not checked again.
    """
    con.register("replaced_partitions", partitions)
    con.execute(
        f"DELETE FROM {quoted(table)} WHERE (label_type, merchant_key) IN "
        "(SELECT (label_type, merchant_key) FROM replaced_partitions)"
    )
    con.unregister("replaced_partitions")
    kept = _of_partitions(rows, partitions) if rows.num_rows else rows
    if kept.num_rows:
        con.register("replacing_rows", _marked_as_json(kept, json_columns))
        con.execute(f"INSERT INTO {quoted(table)} BY NAME FROM replacing_rows")
        con.unregister("replacing_rows")


def _of_partitions(rows: pa.Table, partitions: pa.Table) -> pa.Table:
    """Keep the rows of some partitions.

    DuckDB's join would copy every column, which takes as long as writing them does.
    """
    is_kept = pc.is_in(_partition_names(rows), _partition_names(partitions))
    return rows if pc.all(is_kept).as_py() else rows.filter(is_kept)


def _partition_names(table: pa.Table) -> pa.ChunkedArray:
    # Keys of merchants are slugs, so no two partitions have the same name.
    return pc.binary_join_element_wise(
        *(table[name].cast(pa.string()) for name in ("label_type", "merchant_key")), "\x1f"
    )


def _marked_as_json(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """Mark texts as Arrow's JSON, which DuckDB takes as it is; any other text it parses first."""
    schema = rows.schema
    for name in names:
        at = schema.get_field_index(name)
        if pa.types.is_string(schema.field(at).type):  # a column of nulls alone has none
            schema = schema.set(at, schema.field(at).with_metadata(_ARROW_JSON))
    return pa.Table.from_arrays(rows.columns, schema=schema)


def replace_ranking(
    warehouse: Warehouse, table: str, rank: Callable[[Connection], pa.Table], order: str
) -> int:
    """Compute a whole table anew, and replace it unless it is the same.

    Args:
        warehouse: holds the table.
        table: the table.
        rank: returns its rows, in order.
        order: the columns that stored rows are read by, so that they can be compared.

    Returns:
        The number of rows.
    """
    found, stored = warehouse.read(
        lambda con: (
            rank(con),
            con.execute(f"FROM {quoted(table)} ORDER BY {order}").to_arrow_table(),
        )
    )
    if found.select(stored.column_names).to_pylist() != stored.to_pylist():
        warehouse.write(lambda con: _replace_all(con, table, found))
    return int(found.num_rows)


def _replace_all(con: Connection, table: str, rows: pa.Table) -> None:
    con.execute(f"DELETE FROM {quoted(table)}")
    con.register("replacing_rows", rows)
    con.execute(f"INSERT INTO {quoted(table)} BY NAME FROM replacing_rows")
    con.unregister("replacing_rows")
