"""The schema: SQL files, applied in the order of their names and recorded in the database."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

import duckdb

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.store.database import Connection


def missing_migrations(con: Connection, database: Path) -> list[str]:
    """List the packaged migrations that a database lacks, in order.

    Raises:
        StoreError: the database was written by a newer version of the Harmonizer.
    """
    applied = _applied_migrations(con)
    packaged = _packaged_migrations()
    newer = sorted(set(applied) - set(packaged))
    if newer:
        raise StoreError(
            f"{database} was written by a newer version (it has {newer[-1]}): "
            "upgrade the label-harmonizer package"
        )
    return [name for name in packaged if name not in applied]


def apply_migrations(con: Connection, database: Path) -> list[str]:
    """Apply the migrations that are missing; used inside a transaction that writes.

    Returns:
        The names of those that were applied.

    Raises:
        StoreError: the database was written by a newer version of the Harmonizer.
    """
    con.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations "
        "(name VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL)"
    )
    missing = missing_migrations(con, database)
    for name in missing:
        con.execute(_packaged_migrations()[name])
    con.execute("INSERT INTO schema_migrations SELECT unnest($1::VARCHAR[]), now()", [missing])
    return missing


@cache
def _packaged_migrations() -> Mapping[str, str]:
    folder = resources.files("harmonizer_assets.core.store.migrations")
    files = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    return {entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8") for entry in files}


def _applied_migrations(con: Connection) -> list[str]:
    try:
        rows = con.execute("SELECT name FROM schema_migrations ORDER BY name").fetchall()
    except duckdb.CatalogException:
        return []  # an empty database: a process was killed before it had made the tables
    return [name for (name,) in rows]
