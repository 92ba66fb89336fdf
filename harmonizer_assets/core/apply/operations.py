"""Operations: one apply, undo or redo, with its time and its number on record."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Final, Literal

from harmonizer_assets.core.store.database import Connection

Kind = Literal["apply", "undo", "redo"]

# Numbers are never given twice, not even after the corrections of deleted words are gone.
_BEFORE: Final = "SELECT coalesce(max(last_correction), 0), max(done_at) FROM label_operations"


@dataclass(frozen=True)
class Operation:
    """One operation that is being done.

    Attributes:
        before: the highest number of a correction so far.
        now: its time; later than that of every operation before it.
    """

    operation_id: str
    kind: Kind
    before: int
    now: dt.datetime


def begin_operation(con: Connection, kind: Kind) -> Operation:
    """Begin an operation inside `Warehouse.write`."""
    before, last = con.execute(_BEFORE).fetchall()[0]
    now = dt.datetime.now(dt.UTC)
    if last is not None:
        # A clock that is set back must not put what is done now before what was done earlier.
        now = max(now, last + dt.timedelta(microseconds=1))
    return Operation(f"{kind}-{uuid.uuid4().hex[:12]}", kind, before, now)


def end_operation(
    con: Connection,
    operation: Operation,
    actor: str,
    corrections: int,
    *,
    numbered: int | None = None,
    note: str | None = None,
) -> None:
    """Record an operation, with the number of its corrections; used inside `Warehouse.write`.

    Args:
        con: the connection that `write` gave.
        operation: that was done.
        actor: who did it.
        corrections: that were made or taken back.
        numbered: how many of them have new numbers; by default all.
        note: why, for the record.
    """
    given = corrections if numbered is None else numbered
    con.execute(
        "INSERT INTO label_operations BY NAME SELECT $operation_id AS operation_id, $kind AS kind, "
        "$actor AS actor, $note AS note, $corrections AS corrections, "
        "$last AS last_correction, $now::TIMESTAMPTZ AS done_at",
        {
            "operation_id": operation.operation_id,
            "kind": operation.kind,
            "actor": actor,
            "note": note,
            "corrections": corrections,
            "last": operation.before + given,
            "now": operation.now,
        },
    )
