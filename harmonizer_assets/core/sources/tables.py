"""Labels that arrive in tables of a SQL database."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, NoSuchTableError, SQLAlchemyError

from harmonizer_assets.core.errors import SourceError
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.ingest import submit_batch
from harmonizer_assets.core.settings import TableSettings
from harmonizer_assets.core.sources.base import Source, digest
from harmonizer_assets.core.warehouse import Warehouse

TABLE_URL_VARIABLE: Final = "HARMONIZER_TABLE_URL"

_ROWS_PER_CHUNK: Final = 50_000
_KINDS: Final = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


@dataclass(frozen=True)
class _State:
    """How far a table is: its latest change, and how many rows are that late."""

    latest: Any
    rows: int

    def __str__(self) -> str:
        latest = self.latest
        shown = latest.isoformat() if isinstance(latest, dt.datetime) else str(latest)
        return f"{shown}#{self.rows}"

    @staticmethod
    def latest_of(version: str) -> Any:
        """The latest change in a version that was kept."""
        shown = version.rpartition("#")[0]
        return int(shown) if shown.lstrip("-").isdigit() else dt.datetime.fromisoformat(shown)


class TableSource(Source):
    """Tables of words and labels with a column that says when a row has last changed.

    Rows are read that have changed since the last time, and those of a while before: transactions
    become visible later than the times in them. The count of those late rows is part of what is
    compared, so one that appears there is found.
    """

    def __init__(
        self, settings: TableSettings, url: str | None, home: Home, warehouse: Warehouse
    ) -> None:
        """Name the tables; nothing is asked yet.

        Args:
            settings: which tables and columns.
            url: of the database, as SQLAlchemy writes it; it holds a password, so it is kept out
                of every message.
            home: whose inbox gets the batches.
            warehouse: remembers what was taken.
        """
        tables = {"words": settings.words, "labels": settings.labels}
        self._tables = {name: table for name, table in tables.items() if table is not None}
        super().__init__(f"table {', '.join(self._tables.values())}", home, warehouse)
        self._settings = settings
        self._url = url

    def waiting(self) -> str | None:
        """Names what has changed in the tables; see `Source.waiting`."""
        with self._connected() as connection:
            new = self._new(connection)
        return digest(f"{name}\n{state}" for name, state in new.items()) if new else None

    def pull(self) -> int:
        """Copy the rows that have changed as one batch; see `Source.pull`."""
        with (
            self._connected() as connection,
            tempfile.TemporaryDirectory(dir=self._home.ensure().scratch) as scratch,
        ):
            # Read before the rows: what changes meanwhile is read twice rather than never.
            new = self._new(connection)
            if not new:
                return 0
            taken = self._taken()
            files = {
                name: self._copy(connection, name, taken.get(name), Path(scratch)) for name in new
            }
            times = [s.latest for s in new.values() if isinstance(s.latest, dt.datetime)]
            submit_batch(
                self._home,
                files.get("words"),
                files.get("labels"),
                time=max((_utc(time) for time in times), default=None),
                source=self.name,
            )
        self._record({name: str(state) for name, state in new.items()})
        return 1

    def _new(self, connection: sa.Connection) -> dict[str, _State]:
        taken = self._taken()
        found = {}
        for name in self._tables:
            changed = self._changed(self._table(connection, name))
            latest = connection.execute(sa.select(sa.func.max(changed))).scalar()
            if latest is None:
                continue
            since = changed >= self._before(latest)
            rows = connection.execute(sa.select(sa.func.count()).where(since)).scalar_one()
            state = _State(latest, rows)
            if taken.get(name) != str(state):
                found[name] = state
        return found

    def _copy(self, connection: sa.Connection, name: str, taken: str | None, folder: Path) -> Path:
        """Write the rows of a table that have changed to a Parquet file."""
        table = self._table(connection, name)
        changed = self._changed(table)
        columns = [column for column in table.columns if column is not changed]
        query = sa.select(*columns)
        if taken is not None:
            query = query.where(changed >= self._before(_State.latest_of(taken)))
        schema = pa.schema([(column.name, _kind(column)) for column in columns])
        path = folder / f"{name}.parquet"
        rows = connection.execution_options(stream_results=True, yield_per=_ROWS_PER_CHUNK)
        with pq.ParquetWriter(path, schema) as writer:
            for chunk in rows.execute(query).partitions():
                writer.write_table(_as_table(chunk, schema))
        return path

    def _before(self, latest: Any) -> Any:
        if isinstance(latest, dt.datetime):
            return latest - dt.timedelta(seconds=self._settings.overlap_seconds)
        return latest - self._settings.overlap_seconds

    def _table(self, connection: sa.Connection, name: str) -> sa.Table:
        schema, _, table = self._tables[name].rpartition(".")
        try:
            return sa.Table(table, sa.MetaData(), schema=schema or None, autoload_with=connection)
        except NoSuchTableError:
            raise SourceError(
                f"{self.name}: there is no table {self._tables[name]}: correct [arrivals.tables] "
                f"{name}, which is written table or schema.table"
            ) from None

    def _changed(self, table: sa.Table) -> sa.Column[Any]:
        name = self._settings.changed_at
        if name not in table.columns:
            raise SourceError(
                f"{self.name}: {table.fullname} has no column {name}: name the column with the "
                "time of a row's last change in [arrivals.tables] changed_at"
            )
        column: sa.Column[Any] = table.columns[name]
        return column

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        if not self._url:
            raise SourceError(
                f"{self.name}: the environment has no {TABLE_URL_VARIABLE}: set it to the "
                "database's URL, for example postgresql://user:password@host/database"
            )
        try:
            engine = sa.create_engine(self._url, poolclass=sa.NullPool)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise SourceError(
                f"{self.name}: {TABLE_URL_VARIABLE} is no URL of a database whose driver is "
                f"installed ({type(error).__name__})"
            ) from None
        try:
            with closing(engine.connect()) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise SourceError(
                f"{self.name}: the database cannot be read ({type(error).__name__}): check "
                f"{TABLE_URL_VARIABLE}, the network and the user's rights"
            ) from None


def _kind(column: sa.Column[Any]) -> pa.DataType:
    try:
        return _KINDS.get(column.type.python_type, pa.string())
    except NotImplementedError:
        return pa.string()


def _as_table(rows: Sequence[sa.Row[Any]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.table(
        [
            pa.array(
                [
                    value if value is None or kind.type != pa.string() else str(value)
                    for value in values
                ],
                kind.type,
            )
            for values, kind in zip(columns, schema, strict=True)
        ],
        schema=schema,
    )


def _utc(time: dt.datetime) -> dt.datetime:
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time
