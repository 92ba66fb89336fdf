"""Operations: one apply, undo or redo, in one transaction, with its time and number on record."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from harmonizer_assets.core.apply.rows import write_rows
from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.records.correction import CorrectionReport
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.ranks import next_rank, record_rank
from harmonizer_assets.core.store.warehouse import Warehouse

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


Prepare = Callable[[Connection, Operation], CorrectionReport]
Record = Callable[[Connection, Operation], object]


def carry_out(
    warehouse: Warehouse,
    kind: Kind,
    prepare: Prepare,
    record: Record,
    *,
    actor: str,
    note: str | None = None,
    commit: bool,
) -> CorrectionReport:
    """Do an operation in one transaction, or say what it would do.

    Args:
        warehouse: holds the labels.
        kind: of the operation.
        prepare: makes the table `changed_rows`; see `rows.write_rows`.
        record: writes the history of what was prepared.
        actor: who does it, for the record.
        note: why, for the record.
        commit: whether labels are changed.

    Raises:
        StoreError: the tables cannot be written; nothing was changed.
    """

    def dry(con: Connection) -> CorrectionReport:
        return prepare(con, _begin(con, kind))

    def write(con: Connection) -> CorrectionReport:
        operation = _begin(con, kind)
        report = prepare(con, operation)
        if not report.corrections:
            return report
        record(con, operation)
        _note(con, operation, actor, len(report.corrections), note)
        write_rows(con)
        return replace(report, operation_id=operation.operation_id)

    return warehouse.write(write) if commit else warehouse.read(dry)


def _begin(con: Connection, kind: Kind) -> Operation:
    before, last = con.execute(_BEFORE).fetchall()[0]
    now = utc_now()
    if last is not None:
        # A clock that is set back must not put what is done now before what was done earlier.
        now = max(now, last + dt.timedelta(microseconds=1))
    return Operation(f"{kind}-{uuid.uuid4().hex[:12]}", kind, before, now)


def _note(
    con: Connection, operation: Operation, actor: str, corrections: int, note: str | None
) -> None:
    """Record an operation, with the number of its corrections; an undo makes none of its own."""
    given = 0 if operation.kind == "undo" else corrections
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
    # A batch that has come before must not win, nor one lose that comes later, by what clocks say.
    record_rank(con, operation.operation_id, next_rank(con))
