"""Shared answers in PostgreSQL, for homes anywhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.extras import needs_extra
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.judge.llm.memory.shared.sql import Execute, SqlCache, T, unusable

_log = logging.getLogger(__name__)

_LOCK: Final = 0x4861726D
"""Of PostgreSQL's locks by number, the one that those who write take turns at."""


_PATIENCE: Final = 60.0
"""Seconds for which a server that has answered before is waited for: it may be restarted."""
_PAUSE: Final = 0.5


class PostgresCache(SqlCache):
    """Tables in PostgreSQL; the clock is the server's. A server that restarts is waited for."""

    def __init__(self, url: str) -> None:
        """Connect.

        Args:
            url: `postgresql://user@host:port/database`; the password is in PGPASSWORD.

        Raises:
            ConfigurationError: the driver is not installed.
            StoreError: the server cannot be used.
        """
        with needs_extra("sql", "shared answers in PostgreSQL"):
            self._engine = sa.create_engine(url, pool_pre_ping=True, pool_size=2)
        self._patience = 0.0
        super().__init__()
        self._patience = _PATIENCE

    def close(self) -> None:
        """Close the connections; see `SharedCache.close`."""
        self._engine.dispose()

    def _run(self, work: Callable[[Execute], T]) -> T:
        """Do work, again where the connection was lost; see `SqlCache._run`."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return super()._run(work)
            except _LostError:
                if time.monotonic() > deadline:
                    raise
                _log.warning("PostgreSQL with the shared answers does not answer: trying again")
            time.sleep(_PAUSE)

    @contextmanager
    def _transaction(self) -> Iterator[Execute]:
        with translated(_unusable, SQLAlchemyError), self._engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK})

            def execute(statement: str, **parameters: Any) -> list[Any]:
                result = connection.execute(sa.text(statement), parameters)
                return list(result) if result.returns_rows else []

            yield execute

    def _now(self) -> str:
        return "EXTRACT(EPOCH FROM clock_timestamp())"


class _LostError(StoreError):
    """The server is gone, for a while or for good."""


def _unusable(error: Exception) -> StoreError:
    said = unusable(error)
    return _LostError(str(said)) if isinstance(error, OperationalError) else said
