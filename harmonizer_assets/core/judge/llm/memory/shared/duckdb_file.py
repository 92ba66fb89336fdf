"""Shared answers in a DuckDB file, for the homes of one machine."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb

from harmonizer_assets.core.base.files import make_private_folder
from harmonizer_assets.core.base.locks import Lock
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.judge.llm.memory.shared.sql import Execute, SqlCache, unusable

_SECONDS: Final = 60.0
_PARAMETER: Final = re.compile(r":(\w+)")


class DuckDBCache(SqlCache):
    """A file that is opened for each transaction, while a lock beside it is held."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            StoreError: it cannot be used.
        """
        make_private_folder(path.parent)
        self._path = path
        # Locks between processes do not hold threads of one process off each other.
        self._threads = threading.Lock()
        self._lock = Lock(
            path.with_suffix(".lock"),
            "using the shared answers",
            timeout=_SECONDS,
            per_holder=True,
            poll_seconds=0.01,
        )
        super().__init__()

    @contextmanager
    def _transaction(self) -> Iterator[Execute]:
        with (
            self._threads,
            self._lock.held(),
            translated(unusable, duckdb.Error),
            duckdb.connect(str(self._path)) as connection,
        ):

            def execute(statement: str, **parameters: Any) -> list[Any]:
                asked = _PARAMETER.sub(r"$\1", statement)
                return connection.execute(asked, parameters).fetchall()

            connection.begin()
            yield execute
            connection.commit()

    def _now(self) -> str:
        return repr(time.time())
