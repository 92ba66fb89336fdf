"""Push corrections to the tables that labels came from.

What was undone here is taken back there. A label that has changed there meanwhile is left alone and
listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from harmonizer_assets.core.apply.targets import Target, Writer
from harmonizer_assets.core.records.correction import Refusal
from harmonizer_assets.core.records.label import LABEL_KEY, label_key, qualified
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.numbers import newest_first, next_number
from harmonizer_assets.core.store.warehouse import Warehouse

# In the order in which they were made; what was undone, in the opposite one.
_DUE: Final = f"""
WITH last AS (
    SELECT correction_id, undone AS was_undone FROM pushed_corrections WHERE target = $target
    QUALIFY row_number() OVER (
        PARTITION BY correction_id ORDER BY {newest_first("pushed_at")}) = 1
)
SELECT r.correction_id, {qualified("r", LABEL_KEY)}, row_before, row_after, c.action, c.to_label,
    u.correction_id IS NOT NULL AS is_undone
FROM label_row_changes r
JOIN label_corrections c USING (correction_id)
LEFT JOIN label_undos u USING (correction_id)
LEFT JOIN last p USING (correction_id)
WHERE CASE WHEN u.correction_id IS NULL THEN p.correction_id IS NULL
    ELSE p.correction_id IS NOT NULL AND NOT p.was_undone END
ORDER BY is_undone DESC, CASE WHEN is_undone THEN -r.correction_id ELSE r.correction_id END, r.label
"""
_RECORDED_AT_ONCE: Final = 100
"""Corrections between two records of what was pushed. Those that a killed push has not recorded are
found done by the next one."""

Rows = list[Mapping[str, Any]]


@dataclass(frozen=True)
class PushReport:
    """What was pushed, or would be.

    Attributes:
        pushed: corrections that the table has been given.
        undone: corrections that were taken back there.
        refused: those whose labels have changed there, each with its reason.
    """

    pushed: int
    undone: int
    refused: Sequence[Refusal] = ()


def push_corrections(warehouse: Warehouse, target: Target, *, commit: bool) -> PushReport:
    """Bring a table in line with the corrections of the home.

    Args:
        warehouse: holds the corrections.
        target: the table.
        commit: whether it is written; otherwise the report counts what would be.

    Raises:
        SourceError: the table cannot be written; what was pushed before is recorded.
        StoreError: the home cannot be written.
    """
    due = warehouse.query(_DUE, {"target": target.name}).to_pylist()
    corrections = [list(rows) for _, rows in groupby(due, key=lambda row: row["correction_id"])]
    if not commit or not corrections:
        return _counted(corrections)
    pushed: list[Rows] = []
    refused: list[Refusal] = []
    with target.opened() as writer:
        for start in range(0, len(corrections), _RECORDED_AT_ONCE):
            written: list[Rows] = []
            try:
                for rows in corrections[start : start + _RECORDED_AT_ONCE]:
                    _write(writer, rows, written, refused)
            finally:
                _record(warehouse, target.name, written)
            pushed += written
    return _counted(pushed, refused)


def _write(writer: Writer, rows: Rows, written: list[Rows], refused: list[Refusal]) -> None:
    """Write one correction, and add it to those that were written or refused."""
    changed = writer.write(rows)
    if changed is None:
        written.append(rows)
    else:
        refused.append(_refusal(rows[0], changed))


def _counted(corrections: Sequence[Rows], refused: Sequence[Refusal] = ()) -> PushReport:
    undone = sum(rows[0]["is_undone"] for rows in corrections)
    return PushReport(len(corrections) - undone, undone, refused)


def _record(warehouse: Warehouse, target: str, corrections: Sequence[Rows]) -> None:
    if not corrections:
        return
    values = [[target, rows[0]["correction_id"], rows[0]["is_undone"]] for rows in corrections]

    def write(con: Connection) -> None:
        con.executemany(
            "INSERT INTO pushed_corrections BY NAME SELECT $1 AS target, $2 AS correction_id, "
            f"$3 AS undone, now() AS pushed_at, {next_number('pushed_corrections')} AS number",
            values,
        )

    warehouse.write(write)


def _refusal(row: Mapping[str, Any], reason: str) -> Refusal:
    return Refusal(*label_key(row), action=row["action"], to_label=row["to_label"], reason=reason)
