"""Columns that pass through: kept as JSON in `extra`, and exported as columns again."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final, Literal

from harmonizer_assets.core.base.sql import literal, quoted
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.numbers import oldest_first
from harmonizer_assets.core.store.typed_json import json_of, readings_of

ExtraAs = Literal["typed", "text", "json"]
"""What a format can hold: columns of one type, text alone, or JSON of any kind."""

_KEPT_APART: Final = {"extra", "batch_id", "batch_time"}
_NUMBERS: Final = {"BIGINT", "UBIGINT", "DOUBLE"}
_EXACT: Final = 2**53
"""Whole numbers up to it are doubles as well."""
_BIGINT: Final = 2**63


def with_extra_columns(con: Connection, table: str, extra_as: ExtraAs) -> str:
    """Write the SELECT of a table whose `extra` is spread over columns.

    Names that differ only in case are one column, as SQL sees them; it gets the most frequent one.

    Args:
        con: a connection to the warehouse.
        table: `words` or `labels`.
        extra_as: what the format can hold.
    """
    own = [row[0] for row in con.execute(f"DESCRIBE {quoted(table)}").fetchall()]
    columns = [quoted(name) for name in own if name not in _KEPT_APART]
    taken = {name.lower() for name in own if name not in _KEPT_APART}
    types = _types(con, table) if extra_as == "typed" else {}
    for names in _names(con, table):
        value = _value(names)
        if extra_as == "typed":
            kind = next((types[name] for name in names if name in types), None)
            shown = _typed(con, table, value, kind)
        else:
            shown = value if extra_as == "json" else f"({value})->>'$'"
        columns.append(f"{shown} AS {quoted(_free(names[0], taken))}")
    return f"SELECT {', '.join(columns)} FROM {quoted(table)}"


def _names(con: Connection, table: str) -> list[list[str]]:
    """List the names in `extra`, those that differ only in case together, frequent ones first."""
    rows = con.execute(
        "SELECT name, count(*) AS n FROM "
        f"(SELECT unnest(json_keys(extra)) AS name FROM {quoted(table)}) "
        "GROUP BY ALL ORDER BY n DESC, name"
    ).fetchall()
    groups: dict[str, list[str]] = {}
    for name, _ in rows:
        groups.setdefault(name.lower(), []).append(name)
    return sorted(groups.values())


def _free(name: str, taken: set[str]) -> str:
    """Return a name that SQL can have for a column, and that is not taken."""
    found = name.replace("\0", "") or "unnamed"
    while found.lower() in taken:
        found += "_"
    taken.add(found.lower())
    return found


def _value(names: list[str]) -> str:
    values = [f"json_extract(extra, {_pointer(name)})" for name in names]
    # JSON's null is no value: it was never written, unless by versions before 0.2.
    return f"nullif(coalesce({', '.join(values)}), 'null'::JSON)"


def _pointer(name: str) -> str:
    path = "/" + name.replace("~", "~0").replace("/", "~1")
    if "\0" not in path:
        return literal(path)
    return " || chr(0) || ".join(literal(part) for part in path.split("\0"))


def _types(con: Connection, table: str) -> dict[str, str]:
    """Look up the types that columns had in the latest batch that has types for them."""
    types: dict[str, str] = {}
    for (recorded,) in con.execute(
        "SELECT extra_types FROM batches WHERE extra_types IS NOT NULL "
        f"ORDER BY {oldest_first('ingested_at')}"
    ).fetchall():
        found: dict[str, Any] = json.loads(recorded)
        types.update(found.get(table, {}))
    return types


def _typed(con: Connection, table: str, value: str, kind: str | None) -> str:
    """Write the SQL that gives a column one type: the one it had, if all values survive that."""
    if kind is not None:
        for reading in readings_of(value, kind):
            if _loses_nothing(con, table, value, json_of(reading, kind)):
                return reading
    kinds = _kinds(con, table, value)
    if kinds and kinds.keys() <= _NUMBERS:
        return _number(con, table, value, set(kinds))
    if kinds.keys() == {"BOOLEAN"}:
        return f"({value})::BOOLEAN"
    if kinds.keys() <= {"VARCHAR"}:
        return f"({value})->>'$'"
    return value


def _loses_nothing(con: Connection, table: str, value: str, written: str) -> bool:
    [lost] = con.execute(
        f"SELECT count(*) FROM {quoted(table)} WHERE {value} IS NOT NULL "
        f"AND ({written})::VARCHAR IS DISTINCT FROM ({value})::VARCHAR"
    ).fetchone() or (0,)
    return not lost


def _kinds(con: Connection, table: str, value: str) -> Counter[str]:
    rows = con.execute(
        f"SELECT json_type({value}), count(*) FROM {quoted(table)} WHERE {value} IS NOT NULL "
        "GROUP BY ALL"
    ).fetchall()
    return Counter(dict(rows))


def _number(con: Connection, table: str, value: str, kinds: set[str]) -> str:
    """Write the SQL of the number type that holds all values; JSON where none does."""
    [largest] = con.execute(
        f"SELECT max(abs(({value})::HUGEINT)) FILTER (WHERE json_type({value}) <> 'DOUBLE') "
        f"FROM {quoted(table)}"
    ).fetchone() or (0,)
    whole = largest or 0
    if "DOUBLE" in kinds:
        return f"({value})::DOUBLE" if whole <= _EXACT else value
    if whole < _BIGINT:
        return f"({value})::BIGINT"
    return f"({value})::UBIGINT" if kinds == {"UBIGINT"} else value
