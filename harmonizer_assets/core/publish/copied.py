"""The read-only copy of the tables, as whoever publishes it reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import duckdb

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.base.sql import literal
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.errors import store_error

_NAME: Final = "harmonizer"


@contextmanager
def copied_tables(home: Home) -> Iterator[Connection]:
    """Open the home's read-only copy; nobody who works on the tables waits for that.

    Raises:
        StoreError: there is no copy, or it cannot be read.
    """
    with in_memory() as con:
        with translated(lambda error: store_error(error, home.snapshot), duckdb.Error):
            con.execute(reading_copy(home))
        yield con


def reading_copy(home: Home) -> str:
    """Write the SQL after which a DuckDB has the tables of the copy under their names."""
    return f"ATTACH {literal(str(home.snapshot))} AS {_NAME} (READ_ONLY);\nUSE {_NAME};"


@contextmanager
def in_memory() -> Iterator[Connection]:
    """Start a DuckDB that fetches no extensions by itself."""
    with duckdb.connect(
        ":memory:",
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"},
    ) as con:
        yield con
