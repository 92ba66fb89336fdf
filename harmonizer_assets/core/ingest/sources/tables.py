"""Labels that arrive in tables of a SQL database."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harmonizer_assets.core.base.errors import SourceError
from harmonizer_assets.core.base.extras import needs_extra
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.scratch import scratch_folder
from harmonizer_assets.core.base.settings import TableSettings, time_zone
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.ingest.layouts import LAYOUTS
from harmonizer_assets.core.ingest.sources.base import (
    TABLE_URL_VARIABLE,
    Source,
    digest,
    no_order,
)
from harmonizer_assets.core.store.warehouse import Warehouse

if TYPE_CHECKING:
    from harmonizer_assets.core.ingest.sources.database import ChangingTable, Database

_LAYOUTS: Final = {layout.name: layout for layout in LAYOUTS}
_SECONDS_PER_DAY: Final = 86_400


@dataclass(frozen=True)
class _State:
    """The state of a table: its latest change, and how many rows are that late or have no time."""

    latest: Any
    rows: int

    def __str__(self) -> str:
        latest = self.latest
        if latest is None:
            return f"#{self.rows}"
        shown = latest.isoformat() if isinstance(latest, dt.date) else str(latest)
        return f"{shown}#{self.rows}"

    def latest_of(self, version: str) -> Any | None:
        """Parse the latest change from a version that was recorded earlier.

        Returns:
            None where there was none, or one of another type than there is now.
        """
        shown = version.rpartition("#")[0]
        kind = type(self.latest)
        try:
            return kind.fromisoformat(shown) if issubclass(kind, dt.date) else kind(shown)
        except (ArithmeticError, TypeError, ValueError):
            return None


@contextmanager
def open_tables(name: str, url: str | None) -> Iterator[Database]:
    """Connect to the database of tables of words and labels.

    Args:
        name: of the source or target, for errors.
        url: of the database, as SQLAlchemy writes it; None where the environment has none.

    Raises:
        SourceError: there is no URL, or it cannot be used; a package is missing; the database
            cannot be reached.
    """
    # SQLAlchemy's drivers are optional, and most homes have no tables elsewhere.
    with needs_extra("sql", name, SourceError):
        from harmonizer_assets.core.ingest.sources.database import open_database
    if not url:
        raise SourceError(
            f"{name}: the environment has no {TABLE_URL_VARIABLE}: set it to the "
            "database's URL, for example postgresql://user:password@host/database"
        )
    with open_database(name, url) as database:
        yield database


class TableSource(Source):
    """Tables of words and labels with a column that says when a row has last changed.

    Rows are read that have changed since the last time, and those of a while before, because
    transactions become visible later than the times in them. The count of these late rows is
    compared as well, so that a row that appears among them is found. Rows without a time are read
    each time, and counted with them.
    """

    def __init__(
        self, settings: TableSettings, url: str | None, home: Home, warehouse: Warehouse
    ) -> None:
        """Bind to the tables; nothing is read yet.

        Args:
            settings: which tables and columns.
            url: of the database, as SQLAlchemy writes it; it holds a password, so it is kept out
                of every message.
            home: whose inbox gets the batches.
            warehouse: records what has been copied.
        """
        tables = {"words": settings.words, "labels": settings.labels}
        self._tables = {name: table for name, table in tables.items() if table is not None}
        super().__init__(f"table {', '.join(self._tables.values())}", home, warehouse)
        self._settings = settings
        self._url = url

    def waiting(self) -> str | None:
        """Hash what has changed in the tables; see `Source.waiting`."""
        with open_tables(self.name, self._url) as database:
            new = self._new(database)
        return digest(f"{name}\n{state}" for name, state in new.items()) if new else None

    def pull(self) -> int:
        """Copy the rows that have changed as one batch; see `Source.pull`."""
        with (
            open_tables(self.name, self._url) as database,
            scratch_folder(self._home) as scratch,
        ):
            # Read before the rows: what changes meanwhile is read twice rather than never.
            new = self._new(database)
            if not new:
                return 0
            files = self._copy(database, new, scratch)
            times = [s.latest for s in new.values() if isinstance(s.latest, dt.datetime)]
            submit_batch(
                self._home,
                files.get("words"),
                files.get("labels"),
                time=max((self._zoned(time) for time in times), default=None),
                source=self.name,
            )
        self._record({name: str(state) for name, state in new.items()})
        return 1

    def _new(self, database: Database) -> dict[str, _State]:
        taken = self._taken()
        found = {}
        for name in self._tables:
            table = self._table(database, name)
            latest = table.latest()
            state = _State(latest, table.count_since(self._before(latest)))
            if state.rows and taken.get(name) != str(state):
                found[name] = state
        return found

    def _copy(self, database: Database, new: Mapping[str, _State], folder: Path) -> dict[str, Path]:
        """Write the rows of tables that have changed to Parquet files."""
        taken = self._taken()
        files = {}
        for name, state in new.items():
            version = taken.get(name)
            since = None if version is None else self._before(state.latest_of(version))
            files[name] = folder / f"{name}.parquet"
            table = self._table(database, name)
            table.copy_since(since, files[name], texts=_LAYOUTS[name].columns)
        return files

    def _before(self, latest: Any) -> Any | None:
        """Return the time from which rows are read; None for all rows.

        Raises:
            SourceError: the column holds neither times nor numbers.
        """
        overlap = self._settings.overlap_seconds
        try:
            if isinstance(latest, dt.datetime):
                return latest - dt.timedelta(seconds=overlap)
            if isinstance(latest, dt.date):
                return latest - dt.timedelta(days=math.ceil(overlap / _SECONDS_PER_DAY))
        except OverflowError:
            return None
        if latest is None or isinstance(latest, int | float | Decimal):
            return None if latest is None else latest - overlap
        raise no_order(self.name, self._settings.changed_at, type(latest))

    def _zoned(self, time: dt.datetime) -> dt.datetime:
        zone = time_zone(self._settings.time_zone)
        return time.replace(tzinfo=zone) if time.tzinfo is None else time

    def _table(self, database: Database, name: str) -> ChangingTable:
        return database.table(self._tables[name], name, self._settings.changed_at)
