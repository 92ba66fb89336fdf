"""Dagster's instance in PostgreSQL, through a restart of the server; needs the extra `postgres`.

Dagster's storages try for about six seconds to connect, and not at all to repeat a statement whose
connection the server has ended. A run of ours takes hours, and servers are restarted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache, wraps
from typing import Any, Final, Self, TypeVar

from dagster import DagsterRun
from dagster._core.storage.event_log import EventLogStorage
from dagster._core.storage.runs import RunStorage
from dagster._core.storage.schedules import ScheduleStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import PostgresRunStorage, PostgresScheduleStorage
from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from harmonizer_assets.core.base.errors import StoreError

_log = logging.getLogger(__name__)

PATIENCE: Final = 60.0
"""Seconds for which a server that has answered before is waited for."""
_PAUSE: Final = 0.5
_SHUT_DOWN: Final = ("57P", "08")
"""Beginnings of the codes that PostgreSQL gives when it ends a connection, in any language."""
_NOT_REPEATED: Final = frozenset({"add_run", "store_event", "store_event_batch"})
"""What would be stored twice if the server had done it before it was gone: these look first."""

S = TypeVar("S", bound=type)
_calls = threading.local()


class Outage:
    """How long a server has not answered, for all storages of this process that are on it."""

    def __init__(self) -> None:
        self._since: float | None = None

    def over(self) -> None:
        """Note that the server answers."""
        self._since = None

    def wait(self, error: Exception) -> None:
        """Wait a little before the next attempt.

        Raises:
            StoreError: the server has not answered for `PATIENCE` seconds.
        """
        if self._since is None:
            self._since = time.monotonic()
            _log.warning(
                "PostgreSQL with Dagster's instance does not answer: waiting for %.0f s", PATIENCE
            )
        if time.monotonic() - self._since > PATIENCE:
            raise StoreError(
                f"PostgreSQL with Dagster's instance has not answered for {PATIENCE:.0f} s: start "
                "it and run again, what is finished is kept"
            ) from error
        time.sleep(_PAUSE)


@cache
def outage_of(url: str) -> Outage:
    """Return what this process knows of a server."""
    return Outage()


@contextmanager
def connected(engine: Engine, outage: Outage) -> Iterator[Connection]:
    """Connect to a server that has answered before.

    Raises:
        StoreError: it has not answered for `PATIENCE` seconds.
    """
    while True:
        try:
            connection = engine.connect()
            break
        except OperationalError as error:
            outage.wait(error)
    outage.over()
    with closing(connection):
        yield connection


def is_lost(error: DBAPIError) -> bool:
    """Say whether the server has ended the connection under a statement."""
    code = str(getattr(error.orig, "pgcode", None) or "")
    return error.connection_invalidated or code.startswith(_SHUT_DOWN)


def repeated(method: Callable[..., Any]) -> Callable[..., Any]:
    """Have a method of a storage called again when the server ends its connection."""

    @wraps(method)
    def called(self: Any, *arguments: Any, **more: Any) -> Any:
        if getattr(_calls, "is_inside", False):
            return method(self, *arguments, **more)
        _calls.is_inside = True
        try:
            while True:
                try:
                    return method(self, *arguments, **more)
                except DBAPIError as error:
                    if not is_lost(error):
                        raise
                    outage_of(self.postgres_url).wait(error)
        finally:
            _calls.is_inside = False

    return called


def patient(storage: S) -> S:
    """Have all methods of a storage's interface repeated that can be."""
    for interface in (EventLogStorage, RunStorage, ScheduleStorage):
        if issubclass(storage, interface):
            for name in interface.__abstractmethods__ - _NOT_REPEATED:
                setattr(storage, name, repeated(getattr(storage, name)))
    return storage


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what dagster.yaml says of a storage, as arguments of its constructor."""
    return {
        "postgres_url": pg_url_from_config(config),
        "should_autocreate_tables": config.get("should_autocreate_tables", True),
        "token_provider": get_token_provider_from_config(config),
    }


@patient
class PatientRunStorage(PostgresRunStorage):
    """Dagster's runs in PostgreSQL."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Make the storage that dagster.yaml configures, with the stock storage's settings."""
        return cls(inst_data=inst_data, **arguments_of(config_value))

    def connect(self) -> Any:
        """Connect; see `connected`."""
        return connected(self._engine, outage_of(self.postgres_url))

    def add_run(self, dagster_run: DagsterRun) -> DagsterRun:
        """Store a run, once, whatever becomes of the server meanwhile."""
        lost = False
        while True:
            try:
                if lost:
                    # The server may have stored the run, with its tags or without them.
                    self.delete_run(dagster_run.run_id)
                return super().add_run(dagster_run)
            except DBAPIError as error:
                if not is_lost(error):
                    raise
                lost = True
                outage_of(self.postgres_url).wait(error)


@patient
class PatientScheduleStorage(PostgresScheduleStorage):
    """Dagster's schedules and sensors in PostgreSQL."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Make the storage that dagster.yaml configures, with the stock storage's settings."""
        return cls(inst_data=inst_data, **arguments_of(config_value))

    def connect(self, run_id: str | None = None) -> Any:
        """Connect; see `connected`."""
        return connected(self._engine, outage_of(self.postgres_url))
