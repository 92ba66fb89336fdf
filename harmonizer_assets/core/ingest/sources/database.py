"""SQL databases, through SQLAlchemy: what has changed in a table, and its rows.

Importing this module needs the package's extra `sql`.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.exc import NoSuchTableError, SQLAlchemyError

from harmonizer_assets.core.base.errors import SourceError
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.ingest.sources.base import TABLE_URL_VARIABLE

_ROWS_PER_CHUNK: Final = 50_000
_KINDS: Final = {
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    dt.date: pa.date32(),
    bytes: pa.binary(),
}
_DIGITS: Final = 38
"""Decimal digits that Parquet files of ours hold."""


@contextmanager
def open_database(source: str, url: str) -> Iterator[Database]:
    """Connect to a database.

    Args:
        source: names the source in errors.
        url: of the database; it is kept out of errors since it may hold a password.

    Raises:
        SourceError: the URL cannot be used, or the database cannot be read.
    """

    def unreadable(error: Exception) -> SourceError:
        return SourceError(
            f"{source}: the database cannot be read ({type(error).__name__}): check "
            f"{TABLE_URL_VARIABLE}, the network and the user's rights"
        )

    with translated(
        lambda error: SourceError(
            f"{source}: {TABLE_URL_VARIABLE} is no URL of a database whose driver is "
            f"installed ({type(error).__name__}); write special characters of a password as "
            "%40 for @, %3A for : and %2F for /"
        )
    ):
        engine = sa.create_engine(url, poolclass=sa.NullPool)
    with translated(unreadable):
        connection = engine.connect()
    with closing(connection), translated(unreadable, SQLAlchemyError):
        yield Database(source, connection)


class Database:
    """A connection to a database with tables of labels or words.

    Attributes:
        connection: of SQLAlchemy.
    """

    def __init__(self, source: str, connection: sa.Connection) -> None:
        self.connection = connection
        self._source = source

    def table(self, name: str, setting: str, changed_at: str) -> ChangingTable:
        """Find a table.

        Args:
            name: `table` or `schema.table`.
            setting: the setting that names it, for errors.
            changed_at: the column with the time of a row's last change.

        Raises:
            SourceError: there is no such table or column.
        """
        schema, _, bare = name.rpartition(".")
        try:
            table = sa.Table(
                bare, sa.MetaData(), schema=schema or None, autoload_with=self.connection
            )
        except NoSuchTableError:
            raise SourceError(
                f"{self._source}: there is no table {name}: correct [arrivals.tables] "
                f"{setting}, which is written table or schema.table"
            ) from None
        if changed_at not in table.columns:
            raise SourceError(
                f"{self._source}: {table.fullname} has no column {changed_at}: name the column "
                "with the time of a row's last change in [arrivals.tables] changed_at"
            )
        return ChangingTable(self._source, self.connection, table, table.columns[changed_at])


class ChangingTable:
    """A table with a column, a time or a number, that says when a row has last changed.

    Attributes:
        table: as SQLAlchemy has read it.
        changed: the column of the last change.
    """

    def __init__(
        self, source: str, connection: sa.Connection, table: sa.Table, changed: sa.Column[Any]
    ) -> None:
        self._source = source
        self._connection = connection
        self.table = table
        self.changed = changed

    def latest(self) -> Any:
        """Read the latest change; None where no row has one."""
        return self._connection.execute(sa.select(sa.func.max(self.changed))).scalar()

    def count_since(self, time: Any | None) -> int:
        """Count the rows that have changed at this time or later, or never; all for None."""
        query = self._since(sa.select(sa.func.count()).select_from(self.table), time)
        return int(self._connection.execute(query).scalar_one())

    def copy_since(self, time: Any | None, path: Path, *, texts: Collection[str]) -> None:
        """Write the rows that `count_since` counts to a Parquet file.

        The column of the last change is left out.

        Args:
            time: see `count_since`.
            path: the file.
            texts: columns that are checked when they are ingested, so they may hold anything.

        Raises:
            SourceError: another column holds a value that is not of its type.
        """
        columns = [column for column in self.table.columns if column is not self.changed]
        query = self._since(sa.select(*columns), time)
        schema = pa.schema(
            [
                (column.name, pa.string() if column.name in texts else _kind(column))
                for column in columns
            ]
        )
        rows = self._connection.execution_options(stream_results=True, yield_per=_ROWS_PER_CHUNK)
        with pq.ParquetWriter(path, schema) as writer:
            for chunk in rows.execute(query).partitions():
                writer.write_table(self._as_table(chunk, schema))

    def _since(self, query: sa.Select[Any], time: Any | None) -> sa.Select[Any]:
        if time is None:
            return query
        return query.where(sa.or_(self.changed >= time, self.changed.is_(None)))

    def _as_table(self, rows: Sequence[sa.Row[Any]], schema: pa.Schema) -> pa.Table:
        columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
        arrays = []
        for values, kind in zip(columns, schema, strict=True):
            is_text = pa.types.is_string(kind.type)
            found = [_as_text(value) if is_text else value for value in values]
            try:
                arrays.append(pa.array(found, kind.type))
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                raise SourceError(
                    f"{self._source}: column {kind.name} of {self.table.fullname} holds a value "
                    f"that is no {kind.type}: correct it, or leave the column out by a view"
                ) from None
        return pa.table(arrays, schema=schema)


def _kind(column: sa.Column[Any]) -> pa.DataType:
    try:
        kind = column.type.python_type
    except NotImplementedError:
        return pa.string()
    if kind is dt.datetime:
        return pa.timestamp("us", "UTC" if getattr(column.type, "timezone", False) else None)
    if kind is Decimal:
        precision, scale = (getattr(column.type, name, None) for name in ("precision", "scale"))
        known = precision is not None and scale is not None and 0 <= scale <= precision <= _DIGITS
        return pa.decimal128(precision, scale) if known else pa.string()
    return _KINDS.get(kind, pa.string())


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return str(value)
