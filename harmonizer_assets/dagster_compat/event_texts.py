"""Texts in Dagster's own tables: replaced where they quote what was deleted, or lead nowhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterator, Sequence, Set
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, Final, Protocol

import sqlalchemy
from dagster import DagsterInstance
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.runs.schema import RunStorageSqlMetadata
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.schedules.schema import ScheduleStorageSqlMetadata
from dagster._core.storage.schedules.sql_schedule_storage import SqlScheduleStorage
from sqlalchemy import Connection, MetaData, String, TableClause, select
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.files import write_atomically
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.base.written_reports import REPORTS
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
_ROWS_AT_ONCE: Final = 500
_CACHES: Final = {"asset_keys": "cached_status_data"}
"""Columns that Dagster fills again, by table."""
_LINK: Final = re.compile(r"http://127\.0\.0\.1:\d+(?=/[^/\s]+\.html$)")
_LOGS: Final = "storage/*/compute_logs/*"


def replace_in_events(home: Home, instance: DagsterInstance, texts: DeletedTexts) -> int:
    """Replace texts in all that Dagster has stored; return in how many places.

    Texts are replaced in metadata, messages, logs and names of merchants that runs are configured
    with, since a word may be spelled like an asset, a label type or an option. Keys of merchants
    are nothing else's name, and are replaced in names of partitions and tags as well. SQLite files
    are compacted, so that nothing of the old texts stays in them; a database server reuses the
    space when it vacuums.

    Args:
        home: whose files.
        instance: of the home, with its tables in those files or on a database server.
        texts: what was deleted, with the keys of merchants that hold no labels any more.

    Raises:
        StoreError: a file or the server cannot be read or written; what came before is done.
    """
    changed = _replace_in_files(home, texts)
    with translated(_unchangeable("the database with Dagster's instance"), SQLAlchemyError):
        for tables, connected in _storages(instance):
            with connected as con:
                if con.dialect.name != "sqlite":
                    changed += _replace_in_tables(con, tables.tables.keys(), texts)
    for path in sorted(home.dagster.glob(_LOGS)):
        content = path.read_text(encoding="utf-8", errors="surrogateescape")
        replaced = texts.replaced_in(content)
        if replaced != content:
            write_atomically(path, replaced.encode("utf-8", "surrogateescape"))
            changed += 1
    return changed


def replace_links(home: Home) -> int:
    """Have links to reports lead to where they are served; return how many rows had one.

    Before 0.1.0 reports had a server of their own, and links named its port.

    Raises:
        StoreError: a file cannot be read or written; those before it are done.
    """
    return _replace_in_files(home, _Links())


class _Replacements(Protocol):
    @property
    def keys(self) -> Sequence[str]:
        """What is replaced in any text; without them only serialized objects are read."""

    def replaced_in(self, content: str) -> str:
        """Replace in a text that people read."""

    def without_keys(self, content: str) -> str:
        """Replace in any text."""


class _Links:
    keys: Final = ()

    def replaced_in(self, content: str) -> str:
        return _LINK.sub(REPORTS, content)

    def without_keys(self, content: str) -> str:
        return content


def _unchangeable(where: str) -> Callable[[Exception], StoreError]:
    def made(error: Exception) -> StoreError:
        said = error.orig if isinstance(error, DBAPIError) else error
        return StoreError(
            f"{where}: its texts cannot be replaced ({said}); see whom it belongs to, the next run "
            "tries again"
        )

    return made


def _storages(
    instance: DagsterInstance,
) -> Iterator[tuple[MetaData, AbstractContextManager[Connection]]]:
    events, runs, schedules = (
        instance.event_log_storage,
        instance.run_storage,
        instance.schedule_storage,
    )
    if isinstance(events, SqlEventLogStorage):
        yield SqlEventLogStorageMetadata, events.index_connection()
    if isinstance(runs, SqlRunStorage):
        yield RunStorageSqlMetadata, runs.connect()
    if isinstance(schedules, SqlScheduleStorage):
        yield ScheduleStorageSqlMetadata, schedules.connect()


def _replace_in_files(home: Home, texts: _Replacements) -> int:
    changed = 0
    for path in sorted(home.dagster.glob("**/*.db")):
        with translated(_unchangeable(str(path)), SQLAlchemyError):
            changed += _replace_in_file(path, texts)
    return changed


def _replace_in_file(path: Path, texts: _Replacements) -> int:
    url = sqlalchemy.URL.create("sqlite", database=str(path))
    engine = sqlalchemy.create_engine(
        url, poolclass=sqlalchemy.NullPool, connect_args={"timeout": _BUSY_SECONDS}
    )
    with engine.begin() as con:
        changed = _replace_in_tables(con, None, texts)
    if changed:
        with closing(engine.connect().execution_options(isolation_level="AUTOCOMMIT")) as con:
            con.exec_driver_sql("VACUUM")
            con.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return changed


def _replace_in_tables(con: Connection, names: Set[str] | None, texts: _Replacements) -> int:
    """Replace texts in those of the named tables, or in all, that a version of Dagster has made."""
    changed = 0
    wanted = names
    if not texts.keys:
        wanted = _TEXTS.keys() if names is None else _TEXTS.keys() & names
    for table in _tables(con, wanted):
        changes = [*_changes_of(con, table, texts)]
        for row, values in changes:
            # A statement that fails undoes itself alone: on a server Dagster commits each.
            try:
                con.execute(table.update().where(table.c.id == row).values(values))
            except IntegrityError:
                # It says the same as another row now.
                con.execute(table.delete().where(table.c.id == row))
        changed += len(changes)
    return changed


def _tables(con: Connection, names: Container[str] | None) -> Iterator[TableClause]:
    """Describe tables by their ids and their columns of texts: more takes long for many files."""
    inspector = sqlalchemy.inspect(con)
    for name in inspector.get_table_names():
        if names is None or name in names:
            found = inspector.get_columns(name)
            if any(each["name"] == "id" for each in found):
                texts = [each["name"] for each in found if isinstance(each["type"], String)]
                yield sqlalchemy.table(name, *map(sqlalchemy.column, ("id", *texts)))


def _changes_of(
    con: Connection, table: TableClause, texts: _Replacements
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Find the rows that quote a text, with the values of the columns that do."""
    objects, cache = _TEXTS.get(table.name, ()), _CACHES.get(table.name)
    _, *names = table.c.keys()
    rows = con.execute(select(table))
    for row, *values in rows.yield_per(_ROWS_AT_ONCE):
        changed: dict[str, str | None] = {}
        for name, text in zip(names, values, strict=True):
            if text is not None:
                replaced = _replaced_in_object(text, texts) if name in objects else text
                replaced = texts.without_keys(replaced)
                if replaced != text:
                    changed[name] = None if name == cache else replaced
        if changed:
            yield row, changed


def _replaced_in_object(text: str, texts: _Replacements) -> str:
    found = json.loads(text)
    replaced = _replaced(found, texts.replaced_in, is_free=False)
    return text if replaced == found else json.dumps(replaced)


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
