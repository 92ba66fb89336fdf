"""Undo and redo: take corrections back, or make them again, exactly as they were.

Later changes of other labels stay. A correction that later ones build on is left alone and said so,
unless those are to go with it; so is one whose label a batch has changed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from harmonizer_assets.core.apply.operations import Operation, carry_out
from harmonizer_assets.core.apply.rows import (
    row_of,
    same_label,
    stale_partitions,
)
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.records.correction import CorrectionReport, Refusal
from harmonizer_assets.core.records.label import LABEL_COLUMNS, WORD_COLUMNS, label_key
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.warehouse import Warehouse

_IN_FORCE: Final = """
CREATE OR REPLACE TEMP TABLE selected AS
SELECT correction_id FROM corrections_in_force WHERE {condition}
"""
_UNDONE: Final = """
CREATE OR REPLACE TEMP TABLE selected AS
SELECT correction_id FROM label_undos WHERE operation_id = $1 AND correction_id NOT IN
    (SELECT redoes FROM corrections_in_force WHERE redoes IS NOT NULL)
"""
_LATER: Final = f"""
SELECT DISTINCT first.correction_id, later.correction_id AS later_id
FROM label_row_changes first
JOIN label_row_changes later USING ({LABEL_COLUMNS})
WHERE first.correction_id IN (FROM selected)
    AND later.correction_id > first.correction_id
    AND later.correction_id IN (SELECT correction_id FROM corrections_in_force)
    AND later.correction_id NOT IN (FROM selected)
ORDER BY later_id DESC
"""
# A batch may have come between two corrections of a label.
_OVERTAKEN: Final = f"""
WITH followed AS (
    SELECT correction_id, label, row_after,
        lead(struct_pack(v := row_before)) OVER (
            PARTITION BY {LABEL_COLUMNS} ORDER BY correction_id) AS next
    FROM label_row_changes SEMI JOIN corrections_in_force USING (correction_id)
)
SELECT DISTINCT correction_id, format('{{}} was {{}} before it was corrected again, since a batch',
    label, coalesce(next.v.validation_status, 'gone')) AS reason
FROM followed
WHERE correction_id IN (FROM selected) AND next IS NOT NULL
    AND NOT ({same_label("row_after", "next.v")})
"""
# One row per label: the state in which undoing expects it, and the one that it leaves.
_CHANGED: Final = f"""
CREATE OR REPLACE TEMP TABLE changed_rows AS
SELECT {LABEL_COLUMNS}, arg_max(merchant_key, correction_id) AS merchant_key,
    arg_{{expected_last}}(struct_pack(v := c.{{expected}}), correction_id).v AS row_expected,
    arg_{{left_last}}(struct_pack(v := c.{{left}}), correction_id).v AS row_after
FROM label_row_changes c WHERE correction_id IN (FROM selected) GROUP BY {LABEL_COLUMNS}
"""
_UNEXPECTED: Final = f"""
SELECT DISTINCT c.correction_id, format('{{}} is {{}} now, since a batch or another correction',
    c.label, coalesce({row_of("l")}.validation_status, 'gone')) AS reason
FROM label_row_changes c
JOIN changed_rows r USING ({LABEL_COLUMNS})
LEFT JOIN labels l USING ({LABEL_COLUMNS})
WHERE c.correction_id IN (FROM selected) AND NOT ({same_label(row_of("l"), "r.row_expected")})
"""
_SHOWN: Final = f"""
SELECT c.*, w.text AS word_text FROM label_corrections c LEFT JOIN words w USING ({WORD_COLUMNS})
WHERE correction_id IN (FROM selected) ORDER BY correction_id
"""
_REDONE: Final = """
INSERT INTO label_corrections BY NAME
SELECT c.* REPLACE (n.number AS correction_id, $operation_id AS operation_id,
    $now::TIMESTAMPTZ AS corrected_at, c.correction_id AS redoes)
FROM label_corrections c JOIN numbered n ON n.old = c.correction_id
"""
_REDONE_ROWS: Final = """
INSERT INTO label_row_changes BY NAME
SELECT c.* REPLACE (n.number AS correction_id)
FROM label_row_changes c JOIN numbered n ON n.old = c.correction_id
"""


@dataclass(frozen=True)
class Selection:
    """Which corrections are meant; all of those that fit what is given.

    Attributes:
        correction: one correction, by its number.
        operation: all of one apply, undo or redo.
        answer: those that one answer has led to.
        actor: those that one person or program has decided on.
        rule: those of one accepted rule.
        merchant: those on labels of one merchant, by its key.
        run: those that one run has proposed.
    """

    correction: int | None = None
    operation: str | None = None
    answer: str | None = None
    actor: str | None = None
    rule: str | None = None
    merchant: str | None = None
    run: str | None = None

    def sql(self) -> tuple[str, dict[str, Any]]:
        """Write the condition in SQL, and its parameters.

        Raises:
            InputError: nothing is given.
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given:
            raise InputError(
                "say what is to be undone: a correction, an operation, an answer, a person, a "
                "rule, a merchant or a run"
            )
        return " AND ".join(_CONDITIONS[name] for name in given), given


_CONDITIONS: Final = {
    "correction": "correction_id = $correction",
    "operation": "operation_id = $operation",
    "answer": "answer_id = $answer",
    "actor": "actor = $actor",
    "rule": "rule_id = $rule",
    "merchant": f"correction_id IN (SELECT correction_id FROM label_row_changes c "
    f"LEFT JOIN labels l USING ({LABEL_COLUMNS}) "
    "WHERE coalesce(l.merchant_key, c.merchant_key) = $merchant)",
    "run": "run_id = $run",
}


def undo(
    warehouse: Warehouse,
    selection: Selection,
    *,
    actor: str,
    with_later: bool = False,
    note: str | None = None,
    commit: bool,
) -> CorrectionReport:
    """Take corrections back: their labels are again what they were before.

    Args:
        warehouse: holds the labels.
        selection: which; those that are not in force any more are left out.
        actor: who does it, for the record.
        with_later: whether later corrections of the same labels go too. Otherwise the corrections
            that they build on stay, and are among the refused.
        note: why, for the record.
        commit: whether labels are changed. All are, in one transaction, or none.

    Raises:
        InputError: the selection is empty.
        StoreError: the tables cannot be written; nothing was changed.
    """
    condition, values = selection.sql()

    def prepare(con: Connection, _: Operation) -> CorrectionReport:
        con.execute(_IN_FORCE.format(condition=condition), values)
        return _report(con, _settle_undo(con, with_later=with_later))

    return carry_out(
        warehouse, "undo", prepare, _record_undo, actor=actor, note=note, commit=commit
    )


def redo(
    warehouse: Warehouse,
    operation_id: str,
    *,
    actor: str,
    note: str | None = None,
    commit: bool,
) -> CorrectionReport:
    """Make the corrections again that an undo has taken back.

    Args:
        warehouse: holds the labels.
        operation_id: of the undo.
        actor: who does it, for the record.
        note: why, for the record.
        commit: whether labels are changed. All are, in one transaction, or none.

    Raises:
        InputError: there is no such undo.
        StoreError: the tables cannot be written; nothing was changed.
    """

    def prepare(con: Connection, _: Operation) -> CorrectionReport:
        known = con.execute(
            "SELECT count(*) FROM label_operations WHERE operation_id = $1 AND kind = 'undo'",
            [operation_id],
        ).fetchall()[0][0]
        if not known:
            raise InputError(f"{operation_id!r} is no undo: `harmonizer history` lists them")
        con.execute(_UNDONE, [operation_id])
        return _report(con, _settle_redo(con))

    return carry_out(
        warehouse, "redo", prepare, _record_redo, actor=actor, note=note, commit=commit
    )


def _record_undo(con: Connection, operation: Operation) -> None:
    con.execute(
        "INSERT INTO label_undos SELECT correction_id, $1 FROM selected", [operation.operation_id]
    )


def _record_redo(con: Connection, operation: Operation) -> None:
    con.execute(
        "CREATE OR REPLACE TEMP TABLE numbered AS SELECT correction_id AS old, "
        "$1 + row_number() OVER (ORDER BY correction_id) AS number FROM selected",
        [operation.before],
    )
    con.execute(_REDONE, {"operation_id": operation.operation_id, "now": operation.now})
    con.execute(_REDONE_ROWS)


def _settle_undo(con: Connection, *, with_later: bool) -> dict[int, str]:
    """Add later corrections to `selected`, or take out those that later ones build on.

    Those are taken out as well whose labels a batch had changed before they were corrected again.
    """
    refused = dict(con.execute(_OVERTAKEN).fetchall())
    _leave_out(con, refused)
    if with_later:
        while _count(con, _LATER):
            con.execute(f"INSERT INTO selected SELECT DISTINCT later_id FROM ({_LATER})")
    while True:
        found = _unexpected(con, expected="row_after", left="row_before") | {
            first: f"correction {after} builds on it: undo that too"
            for first, after in con.execute(_LATER).fetchall()
        }
        if not found:
            return refused
        refused |= found
        _leave_out(con, found)


def _settle_redo(con: Connection) -> dict[int, str]:
    """Take corrections out of `selected` whose labels are not as they were before them."""
    refused: dict[int, str] = {}
    while found := _unexpected(con, expected="row_before", left="row_after"):
        refused |= found
        _leave_out(con, found)
    return refused


def _unexpected(con: Connection, *, expected: str, left: str) -> dict[int, str]:
    """Make `changed_rows` for `selected`; return those whose labels are not as expected."""
    backwards = expected == "row_after"
    con.execute(
        _CHANGED.format(
            expected=expected,
            left=left,
            expected_last="max" if backwards else "min",
            left_last="min" if backwards else "max",
        )
    )
    return dict(con.execute(_UNEXPECTED).fetchall())


def _leave_out(con: Connection, found: Mapping[int, str]) -> None:
    con.register("found", pa.table({"correction_id": pa.array(found, pa.int64())}))
    con.execute("DELETE FROM selected WHERE correction_id IN (FROM found)")
    con.unregister("found")


def _report(con: Connection, refused: Mapping[int, str]) -> CorrectionReport:
    corrections = con.execute(_SHOWN).to_arrow_table().to_pylist()
    con.register("refused", pa.table({"correction_id": pa.array(refused, pa.int64())}))
    left_alone = con.execute(
        "FROM label_corrections SEMI JOIN refused USING (correction_id) ORDER BY correction_id"
    ).to_arrow_table()
    con.unregister("refused")
    return CorrectionReport(
        "",
        corrections,
        [
            Refusal(
                *label_key(row),
                action=row["action"],
                to_label=row["to_label"],
                reason=refused[row["correction_id"]],
            )
            for row in left_alone.to_pylist()
        ],
        partitions=stale_partitions(con),
    )


def _count(con: Connection, source: str) -> int:
    return int(con.execute(f"SELECT count(*) FROM ({source})").fetchall()[0][0])
