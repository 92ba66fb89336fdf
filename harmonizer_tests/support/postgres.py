"""A PostgreSQL database for as long as a test or a measurement takes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import sqlalchemy
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

SERVER: Final = os.environ.get(
    "HARMONIZER_TEST_PG_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)
"""Where databases may be made; the user in it needs the right to."""


class UnreachableError(Exception):
    """There is no PostgreSQL server, or it does not let us in; the message says which."""


@contextmanager
def temporary_database(server: str = SERVER) -> Iterator[str]:
    """Make a database with a name of its own, give its URL, and drop it.

    Raises:
        UnreachableError: the server does not answer, or psycopg2 is not installed.
    """
    name = f"harmonizer_{uuid.uuid4().hex[:12]}"
    _execute(server, f"CREATE DATABASE {name}")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(server: str, statement: str) -> None:
    try:
        engine = sqlalchemy.create_engine(
            server, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3}
        )
    except ModuleNotFoundError as error:
        raise UnreachableError(f"{error}: install the extra `postgres`") from error
    try:
        connection = engine.connect()
    except OperationalError as error:
        raise UnreachableError(f"no PostgreSQL: {str(error.orig).strip()}") from error
    with closing(connection):
        connection.exec_driver_sql(statement)
    engine.dispose()
