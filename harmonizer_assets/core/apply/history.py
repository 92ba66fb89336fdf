"""The history of labels: what was changed, when, by whom, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from harmonizer_assets.core.records.label import LABEL_KEY, LabelKey, WordKey
from harmonizer_assets.core.store.warehouse import Warehouse

_HISTORY: Final = """
SELECT r.correction_id, o.operation_id, o.kind, o.actor AS done_by, o.done_at, o.note,
    r.image_id, r.receipt_id, r.line_id, r.word_id, r.label, w.text AS word_text,
    c.action, c.to_label, c.source, c.actor AS decided_by, c.reasoning, c.decided_by AS found_by,
    c.outlier_score, c.policy, c.rule_id, c.run_id, c.model, c.prompt_version, c.answer_id,
    CASE WHEN o.kind = 'undo' THEN r.row_after.validation_status
        ELSE r.row_before.validation_status END AS status_before,
    CASE WHEN o.kind = 'undo' THEN r.row_before.validation_status
        ELSE r.row_after.validation_status END AS status_after
FROM label_row_changes r
JOIN label_corrections c USING (correction_id)
JOIN (
    SELECT correction_id, operation_id FROM label_corrections
    UNION ALL SELECT correction_id, operation_id FROM label_undos
) done USING (correction_id)
JOIN label_operations o ON o.operation_id = done.operation_id
LEFT JOIN words w ON (w.image_id, w.receipt_id, w.line_id, w.word_id)
    = (r.image_id, r.receipt_id, r.line_id, r.word_id)
WHERE {condition}
ORDER BY o.done_at, r.correction_id, r.label
"""


def label_history(warehouse: Warehouse, of: WordKey | LabelKey) -> list[dict[str, Any]]:
    """List what was done to the labels of a word, or to one label, the earliest first.

    Returns:
        One row per change of a row of `labels`: `status_before` and `status_after` (null where
        there was no label, or is none), who decided on it and why, and in which operation.
    """
    given = dict(zip(LABEL_KEY, of, strict=False))
    condition = " AND ".join(f"r.{name} = ${name}" for name in given)
    return warehouse.query(_HISTORY.format(condition=condition), given).to_pylist()


def operations(warehouse: Warehouse, limit: int | None = None) -> Sequence[dict[str, Any]]:
    """List the operations, the latest first, each with how many of its corrections are in force."""
    return warehouse.query(
        """
        SELECT o.*, (SELECT count(*) FROM corrections_in_force c
            WHERE c.operation_id = o.operation_id) AS in_force
        FROM label_operations o ORDER BY done_at DESC LIMIT $limit
        """,
        {"limit": limit},
    ).to_pylist()
