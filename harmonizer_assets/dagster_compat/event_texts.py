"""Texts in the events of Dagster's SQLite event logs: replaced where they quote deleted words."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.base.home import Home

_BUSY_SECONDS: Final = 30.0
_METADATA: Final = "Metadata"
"""Metadata values are serialized as objects whose class name holds this."""
_TEXTS: Final = {
    "event_logs": ("event",),
    "asset_keys": ("last_materialization", "cached_status_data"),
}
"""Columns of serialized events, by table."""


def replace_in_events(home: Home, replace: Callable[[str], str]) -> int:
    """Replace texts in the metadata of all events; return how many events were changed.

    Only metadata is touched, since names of assets and partitions must stay what they are. The
    files are compacted, so that nothing of the old texts stays in them. Event logs elsewhere, as
    in PostgreSQL, are left alone.
    """
    return sum(
        _replace_in_file(path, replace) for path in sorted(home.dagster.glob("history/**/*.db"))
    )


def _replace_in_file(path: Path, replace: Callable[[str], str]) -> int:
    changed = 0
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as con:
        tables = {name for (name,) in con.execute("SELECT name FROM sqlite_master")}
        with con:
            for table in tables & _TEXTS.keys():
                for column in _TEXTS[table]:
                    changed += _replace_in_column(con, table, column, replace)
        if changed:
            con.execute("VACUUM")
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return changed


def _replace_in_column(
    con: sqlite3.Connection, table: str, column: str, replace: Callable[[str], str]
) -> int:
    rows = con.execute(
        f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE '%{_METADATA}%'"
    ).fetchall()
    changes = []
    for row, text in rows:
        event = json.loads(text)
        replaced = _replaced(event, replace, in_metadata=False)
        if replaced != event:
            changes.append((json.dumps(replaced), row))
    con.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changes)
    return len(changes)


def _replaced(value: Any, replace: Callable[[str], str], *, in_metadata: bool) -> Any:
    if isinstance(value, str):
        return replace(value) if in_metadata else value
    if isinstance(value, list):
        return [_replaced(item, replace, in_metadata=in_metadata) for item in value]
    if isinstance(value, dict):
        kind = value.get("__class__", "")
        inside = in_metadata or (_METADATA in kind and kind.endswith(("Data", "Value")))
        return {
            key: item if key == "__class__" else _replaced(item, replace, in_metadata=inside)
            for key, item in value.items()
        }
    return value
