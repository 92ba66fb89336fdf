"""A PostgreSQL database for as long as a test or a measurement takes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from harmonizer_assets.core.base.home import Home

SERVER: Final = os.environ.get(
    "HARMONIZER_TEST_PG_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)
"""Where databases may be made; the user in it needs the right to."""
DEPLOYED: Final = Path(__file__).parents[2] / "deploy" / "dagster.postgres.yaml"


class UnreachableError(Exception):
    """There is no PostgreSQL server, or it does not let us in; the message says which."""


def keep_in_postgres(home: Home, url: str, environment: pytest.MonkeyPatch) -> None:
    """Have Dagster keep its instance of a home in a database, as where it is deployed."""
    shutil.copy(DEPLOYED, home.dagster / "dagster.yaml")
    environment.setenv("DAGSTER_PG_URL", url)


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


@dataclass(frozen=True)
class OwnServer:
    """A server that a test may stop.

    Attributes:
        url: of its first database.
        stop: ends all connections; given a mode, of `pg_ctl stop`.
        start: has it answer again.
    """

    url: str
    stop: Callable[[str], None]
    start: Callable[[], None]

    def restart(self, mode: str = "fast", seconds: float = 1.0) -> None:
        """Stop the server, and start it again after some seconds."""
        self.stop(mode)
        time.sleep(seconds)
        self.start()


@contextmanager
def german_server(folder: Path) -> Iterator[OwnServer]:
    """Run a server whose messages are German, in an empty folder.

    Raises:
        UnreachableError: programs, the locale's sources or the messages are not installed.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    catalogs = [*Path("/usr/share/locale/de/LC_MESSAGES").glob("postgres-*.mo")]
    if not programs or not catalogs or shutil.which("localedef") is None:
        raise UnreachableError("no PostgreSQL of our own with German messages can be started")
    # The server does not run as root, and has to reach the folder.
    user = "postgres" if os.geteuid() == 0 else None
    locales, data = folder / "locales", folder / "data"
    for made in (locales, data):
        made.mkdir()
        if user:
            shutil.chown(made, user)
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid() and parent.stat().st_mode & 0o011 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    environment = {**os.environ, "LOCPATH": str(locales), "LC_ALL": "de_DE.UTF-8"}
    port = _free_port()

    def run(*command: str | Path) -> None:
        done = subprocess.run(
            command, env=environment, user=user, cwd=data, capture_output=True, check=False
        )
        if done.returncode:
            raise UnreachableError(done.stderr.decode("utf-8", "replace"))

    run("localedef", "-i", "de_DE", "-f", "UTF-8", locales / "de_DE.UTF-8")
    run(programs[-1] / "initdb", "-D", data / "cluster", "-U", "postgres", "-A", "trust", "-N")
    options = f"-p {port} -h 127.0.0.1 -k {data} -F"
    control = programs[-1] / "pg_ctl"

    def start() -> None:
        run(control, "-D", data / "cluster", "-w", "-o", options, "-l", data / "log", "start")

    def stop(mode: str) -> None:
        run(control, "-D", data / "cluster", "-w", "-m", mode, "stop")

    start()
    try:
        yield OwnServer(f"postgresql://postgres@127.0.0.1:{port}/postgres", stop, start)
    finally:
        stop("immediate")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
