"""Shared answers in PostgreSQL, for homes anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.judge.llm.memory.shared.sql import Execute, SqlCache, unusable

_LOCK: Final = 0x4861726D
"""Of PostgreSQL's locks by number, the one that those who write take turns at."""


class PostgresCache(SqlCache):
    """Tables in PostgreSQL; the clock is the server's."""

    def __init__(self, url: str) -> None:
        """Connect.

        Args:
            url: `postgresql://user@host:port/database`; the password is in PGPASSWORD.

        Raises:
            ConfigurationError: the driver is not installed.
            StoreError: the server cannot be used.
        """
        try:
            self._engine = sa.create_engine(url, pool_pre_ping=True, pool_size=2)
        except ModuleNotFoundError:
            raise ConfigurationError(
                "shared answers in PostgreSQL need its driver: install the extra with "
                "`pip install 'label-harmonizer[sql]'`"
            ) from None
        super().__init__()

    def close(self) -> None:
        """Close the connections; see `SharedCache.close`."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Execute]:
        with translated(unusable, SQLAlchemyError), self._engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK})

            def execute(statement: str, **parameters: Any) -> list[Any]:
                result = connection.execute(sa.text(statement), parameters)
                return list(result) if result.returns_rows else []

            yield execute

    def _now(self) -> str:
        return "EXTRACT(EPOCH FROM clock_timestamp())"
