"""A table of another database made equal to a query, by the rows that differ."""

from __future__ import annotations

from typing import Final

from harmonizer_assets.core.base.sql import quoted
from harmonizer_assets.core.store.database import Connection

_FRESH: Final = "temp.fresh_rows"
_DIFFERING: Final = "temp.differing_rows"
_ROW_ID: Final = "rowid"


def replace_changed(con: Connection, query: str, table: str, *, exists: bool, empty: bool) -> None:
    """Make a table equal to a query: rows that it lacks are added, those that it has too many go.

    Where there is none with the same columns, it is made anew.

    Args:
        con: a connection with a transaction.
        query: of the rows that are wanted.
        table: with its database.
        exists: whether there is such a table.
        empty: whether that is known to have no rows. To ask a DuckLake about one of its tables
            takes longer than to write a small one.
    """
    con.execute(f"CREATE TEMP TABLE fresh_rows AS {query}")
    wanted = _columns(con, _FRESH)
    names = [name for name, _ in wanted]
    # A column of that name hides the one that tells rows apart.
    is_readable = exists and _ROW_ID not in map(str.lower, names)
    if is_readable and _columns(con, table) == wanted:
        if not empty or _has_rows(con, _FRESH):
            _change(con, table, names)
    else:
        con.execute(f"CREATE OR REPLACE TABLE {table} AS FROM {_FRESH}")
    con.execute(f"DROP TABLE {_FRESH}")


def _columns(con: Connection, table: str) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in con.execute(f"DESCRIBE {table}").fetchall()]


def _has_rows(con: Connection, table: str) -> bool:
    return bool(con.execute(f"FROM {table} LIMIT 1").fetchall())


def _change(con: Connection, table: str, names: list[str]) -> None:
    # Equal rows are told apart by their number.
    number, row = _free("row_number", names), _free("row", names)
    columns = ", ".join(map(quoted, names))
    numbered = f"row_number() OVER (PARTITION BY {columns}) AS {number}"
    equal = " AND ".join(f"a.{name} IS NOT DISTINCT FROM b.{name}" for name in map(quoted, names))
    con.execute(
        f"CREATE TEMP TABLE differing_rows AS "
        f"SELECT {', '.join(f'a.{quoted(name)}' for name in names)}, b.{row} "
        f"FROM (SELECT {columns}, {numbered} FROM {_FRESH}) a "
        f"FULL JOIN (SELECT {columns}, {_ROW_ID} AS {row}, {numbered} FROM {table}) b "
        f"ON a.{number} = b.{number} AND {equal} "
        f"WHERE a.{number} IS NULL OR b.{number} IS NULL"
    )
    [counted] = con.execute(f"SELECT count({row}), count(*) FROM {_DIFFERING}").fetchall()
    removed, differing = counted
    if removed:
        con.execute(
            f"DELETE FROM {table} WHERE {_ROW_ID} IN "
            f"(SELECT {row} FROM {_DIFFERING} WHERE {row} IS NOT NULL)"
        )
    if differing > removed:
        con.execute(f"INSERT INTO {table} SELECT {columns} FROM {_DIFFERING} WHERE {row} IS NULL")
    con.execute(f"DROP TABLE {_DIFFERING}")


def _free(name: str, taken: list[str]) -> str:
    lowered = {column.lower() for column in taken}
    while name in lowered:
        name += "_"
    return name
