"""Texts in Dagster's own SQLite files: replaced where they quote what was deleted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.files import write_atomically
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.erase import DeletedTexts

_BUSY_SECONDS: Final = 30.0
_METADATA: Final = "Metadata"
"""Metadata values are serialized as objects whose class name holds this."""
_MESSAGES: Final = ("message", "user_message")
_CONFIGURATION: Final = "run_config"
_NAMES: Final = "merchants"
"""The option of a configuration in which people name merchants."""
_TEXTS: Final = {
    "event_logs": ("event",),
    "asset_keys": ("last_materialization",),
    "runs": ("run_body",),
    "job_ticks": ("tick_body",),
    "bulk_actions": ("body",),
}
"""Columns of serialized objects, by table."""
_CACHES: Final = {"asset_keys": "cached_status_data"}
"""Columns that Dagster fills again, by table."""
_LOGS: Final = "storage/*/compute_logs/*"


def replace_in_events(home: Home, texts: DeletedTexts) -> int:
    """Replace texts in all that Dagster has stored; return in how many places.

    Texts are replaced in metadata, messages, logs and names of merchants that runs are configured
    with, since a word may be spelled like an asset, a label type or an option. Keys of merchants
    are nothing else's name, and are replaced in names of partitions and tags as well. The files are
    compacted, so that nothing of the old texts stays in them. Event logs elsewhere, as in
    PostgreSQL, are left alone.

    Args:
        home: whose Dagster instance.
        texts: what was deleted, with the keys of merchants that hold no labels any more.

    Raises:
        StoreError: a file cannot be read or written; those before it are done.
    """
    changed = 0
    for path in sorted(home.dagster.glob("**/*.db")):
        try:
            changed += _replace_in_file(path, texts)
        except sqlite3.Error as error:
            raise StoreError(
                f"{path}: what was deleted cannot be removed from it ({error}); see whom the file "
                "belongs to, the next run tries again"
            ) from error
    for path in sorted(home.dagster.glob(_LOGS)):
        content = path.read_text(encoding="utf-8", errors="surrogateescape")
        replaced = texts.replaced_in(content)
        if replaced != content:
            write_atomically(path, replaced.encode("utf-8", "surrogateescape"))
            changed += 1
    return changed


def _replace_in_file(path: Path, texts: DeletedTexts) -> int:
    changed = 0
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as con:
        con.create_function("without_keys", 1, texts.without_keys, deterministic=True)
        tables = {
            name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        with con:
            for table in sorted(tables & _TEXTS.keys()):
                for column in _TEXTS[table]:
                    changed += _replace_in_column(con, table, column, texts.replaced_in)
            for table in sorted(tables) if texts.keys else ():
                changed += _replace_keys(con, table, texts.keys)
        if changed:
            con.execute("VACUUM")
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return changed


def _replace_in_column(
    con: sqlite3.Connection, table: str, column: str, replace: Callable[[str], str]
) -> int:
    rows = con.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
    changes = []
    for row, text in rows:
        event = json.loads(text)
        replaced = _replaced(event, replace, is_free=False)
        if replaced != event:
            changes.append((json.dumps(replaced), row))
    con.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changes)
    return len(changes)


def _replace_keys(con: sqlite3.Connection, table: str, keys: Sequence[str]) -> int:
    """Replace keys in all texts of a table; what Dagster has cached of them goes."""
    changed = 0
    for _, column, kind, *_ in con.execute(f"PRAGMA table_info({table})").fetchall():
        if not kind.upper().startswith(("TEXT", "VARCHAR")):
            continue
        quotes = " OR ".join(f'instr("{column}", ?)' for _ in keys)
        value = "NULL" if _CACHES.get(table) == column else f'without_keys("{column}")'
        done = con.execute(
            f'UPDATE OR REPLACE {table} SET "{column}" = {value} WHERE {quotes}', list(keys)
        )
        changed += done.rowcount
    return changed


def _replaced(
    value: Any, replace: Callable[[str], str], *, is_free: bool, is_configured: bool = False
) -> Any:
    if isinstance(value, str):
        return replace(value) if is_free else value
    if isinstance(value, list):
        return [
            _replaced(item, replace, is_free=is_free, is_configured=is_configured) for item in value
        ]
    if isinstance(value, dict):
        kind = value.get("__class__", "")
        inside = is_free or (_METADATA in kind and kind.endswith(("Data", "Value")))
        return {
            key: item
            if key == "__class__"
            else _replaced(
                item,
                replace,
                is_free=inside or key in _MESSAGES or (is_configured and key == _NAMES),
                is_configured=is_configured or key == _CONFIGURATION,
            )
            for key, item in value.items()
        }
    return value
