"""Corrections go back to the SQL table that labels came from.

Each correction is one transaction: the old row gets its new status if it is still as it was read,
and the new row is inserted if there is none. Both get a new time of their last change, so whoever
reads the table by it finds them, this home included.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from harmonizer_assets.core.apply.targets.base import CHANGED_THERE, provenance, then_and_now
from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.base.errors import SourceError
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.base.settings import TableSettings, time_zone
from harmonizer_assets.core.ingest.sources import no_order, open_tables
from harmonizer_assets.core.records.label import LABEL_KEY, label_key

if TYPE_CHECKING:
    import sqlalchemy as sa

    from harmonizer_assets.core.ingest.sources.database import Database


class TableTarget:
    """A table of labels in a SQL database; see `Target`."""

    def __init__(self, settings: TableSettings, url: str | None) -> None:
        """Bind to the table; nothing is read yet.

        Args:
            settings: which table and columns; it must name one of labels.
            url: of the database, as SQLAlchemy writes it.
        """
        self.name = f"table {settings.labels}"
        self._settings = settings
        self._url = url

    @contextmanager
    def opened(self) -> Iterator[_Table]:
        """Connect to the database; see `Target.opened`."""
        with open_tables(self.name, self._url) as database:
            yield _Table(self.name, database, self._settings)


class _Table:
    """A table of labels; see `Writer`."""

    def __init__(self, name: str, database: Database, settings: TableSettings) -> None:
        table = database.table(str(settings.labels), "labels", settings.changed_at)
        self._name = name
        self._latest = table.latest
        self._changed = table.changed
        self._table = table.table
        self._connection = database.connection
        self._zone = time_zone(settings.time_zone)
        database.connection.rollback()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> str | None:
        """Write one correction, or take it back, in one transaction; see `Writer.write`."""
        with translated(self._unwritable), self._connection.begin() as transaction:
            changed = self._next_change()
            if all(self._is_written(row, changed) for row in rows):
                return None
            transaction.rollback()
        # A process that was killed may have written it and not recorded that.
        with translated(self._unwritable), self._connection.begin():
            is_done = all(self._status(row) == _status_of(then_and_now(row)[1]) for row in rows)
        return None if is_done else CHANGED_THERE

    def _is_written(self, row: Mapping[str, Any], changed: Any) -> bool:
        """Change the row of one label; return whether it was there as expected."""
        import sqlalchemy as sa

        then, now = then_and_now(row)
        if then is None:
            if self._status(row) is not None:
                return False
            self._connection.execute(sa.insert(self._table).values(self._new(row, now, changed)))
            return True
        # The database compares: who changes the label at the same moment is not overwritten.
        status = sa.func.upper(sa.func.trim(self._table.c.validation_status))
        where = sa.and_(self._where(row), status == _status_of(then))
        if now is None:
            return self._changes_one(sa.delete(self._table).where(where))
        values = {"validation_status": now["validation_status"], self._changed.name: changed}
        return self._changes_one(sa.update(self._table).where(where).values(values))

    def _changes_one(self, statement: sa.Executable) -> bool:
        return bool(self._connection.execute(statement).rowcount == 1)

    def _status(self, row: Mapping[str, Any]) -> str | None:
        """Read the status of a label; None where the table has none such."""
        import sqlalchemy as sa

        query = sa.select(self._table.c.validation_status).where(self._where(row))
        found = self._connection.execute(query).scalars().all()
        return str(found[0]).strip().upper() if found else None

    def _where(self, row: Mapping[str, Any]) -> sa.ColumnElement[bool]:
        import sqlalchemy as sa

        key = zip(LABEL_KEY, label_key(row), strict=True)
        return sa.and_(*(self._table.c[name] == value for name, value in key))

    def _new(self, row: Mapping[str, Any], now: Mapping[str, Any], changed: Any) -> dict[str, Any]:
        """Make the row of a new label, of the columns that the table has."""
        values = {
            **dict(zip(LABEL_KEY, label_key(row), strict=True)),
            "validation_status": now["validation_status"],
            "merchant_name": now["merchant_name"],
            **{name: self._typed(name, value) for name, value in provenance(now).items()},
            self._changed.name: changed,
        }
        return {name: value for name, value in values.items() if name in self._table.c}

    def _typed(self, name: str, value: Any) -> Any:
        """Read a time for a column of times."""
        if value is None or name not in self._table.c:
            return value
        try:
            kind = self._table.c[name].type.python_type
        except NotImplementedError:
            return value
        return self._local(dt.datetime.fromisoformat(value), name) if kind is dt.datetime else value

    def _local(self, time: dt.datetime, name: str) -> dt.datetime:
        """Leave out the zone of a time for a column of times without one."""
        if getattr(self._table.c[name].type, "timezone", False):
            return time
        return time.astimezone(self._zone).replace(tzinfo=None)

    def _next_change(self) -> Any:
        """Return a value for the column of the last change that no row is later than.

        Raises:
            SourceError: the column holds neither times, dates nor numbers.
        """
        name, latest = self._changed.name, self._latest()
        now = utc_now()
        kind = type(latest) if latest is not None else self._changed.type.python_type
        if issubclass(kind, dt.datetime):
            aware = latest is not None and latest.tzinfo is not None
            time = now if aware else self._local(now, name)
            return time if latest is None else max(time, latest)
        if issubclass(kind, dt.date):
            today = now.astimezone(self._zone).date()
            return today if latest is None else max(today, latest)
        if issubclass(kind, int | float | Decimal):
            return 1 if latest is None else latest + 1
        raise no_order(self._name, name, kind)

    def _unwritable(self, error: Exception) -> SourceError:
        return SourceError(
            f"{self._name}: a label cannot be written ({type(error).__name__}): check that the "
            "user of the database may change the table, and that columns of its own have a "
            "default; what was pushed is recorded"
        )


def _status_of(state: Mapping[str, Any] | None) -> str | None:
    return None if state is None else str(state["validation_status"])
