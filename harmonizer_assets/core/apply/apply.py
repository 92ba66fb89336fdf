"""Apply corrections: check each against the label as it is now, then change the labels at once.

A label that is wrong is retired as INVALID and never deleted; one that a word lacks is added. A
label that has changed since it was decided on is refused, and so is everything that would overrule
a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from harmonizer_assets.core.apply.operations import Operation, carry_out
from harmonizer_assets.core.apply.rows import (
    row_of,
    same_label,
    stale_partitions,
)
from harmonizer_assets.core.records.correction import (
    WANTED,
    Action,
    CorrectionReport,
    Refusal,
    Source,
)
from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    LABEL_KEY,
    WORD_COLUMNS,
    WORD_KEY,
    qualified,
)
from harmonizer_assets.core.records.merchant import UNKNOWN_MERCHANT
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.stages.stage import partition_table
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.warehouse import Warehouse

_RETIRING: Final = f"('{Action.MARK_INVALID}', '{Action.MOVE}')"
_STATUS_AFTER: Final = f"""
CASE WHEN action IN {_RETIRING} THEN 'INVALID' WHEN action = '{Action.ASK}' THEN 'NEEDS_REVIEW'
    ELSE 'VALID' END
"""
_BY_PERSON: Final = f"source IN ('{Source.PERSON}', '{Source.KIND}')"

# Of several corrections of one label, the one that a person gave about it alone counts. What has
# been applied before is done, not refused because the label has changed by it.
_CHECKED: Final = f"""
CREATE OR REPLACE TEMP TABLE checked AS
WITH applied AS (
    SELECT {LABEL_COLUMNS},
        arg_max(struct_pack(action, to_label, row_after), correction_id) AS last
    FROM corrections_in_force JOIN label_row_changes USING (correction_id, {LABEL_COLUMNS})
    GROUP BY ALL
),
receipts AS (
    SELECT image_id, receipt_id, mode(struct_pack(merchant_key, merchant_name)) AS merchant
    FROM labels SEMI JOIN (FROM wanted WHERE action = '{Action.ADD}') USING (image_id, receipt_id)
    GROUP BY ALL
),
compared AS (
    SELECT w.*, {_BY_PERSON} AS by_person, {_STATUS_AFTER} AS status_after,
        coalesce(l.merchant_key, r.merchant.merchant_key,
            CASE WHEN w.action = '{Action.ADD}' THEN '{UNKNOWN_MERCHANT}' END) AS merchant_key,
        coalesce(l.merchant_name, r.merchant.merchant_name) AS merchant_name,
        words.text AS text_now, p.label IS NOT NULL AS is_retired,
        {row_of("l")} AS row_now, {row_of("t")} AS target_now,
        coalesce(a.last.action = w.action AND a.last.to_label IS NOT DISTINCT FROM w.to_label
            AND {same_label("a.last.row_after", row_of("l"))}, false) AS is_applied,
        row_number() OVER (PARTITION BY {qualified("w", LABEL_KEY)}
            ORDER BY w.source = '{Source.PERSON}' DESC, w.source = '{Source.KIND}' DESC,
                w.answer_id DESC) AS place
    FROM wanted w
    LEFT JOIN labels l USING ({LABEL_COLUMNS})
    LEFT JOIN words USING ({WORD_COLUMNS})
    LEFT JOIN applied a USING ({LABEL_COLUMNS})
    LEFT JOIN retired_by_policy p USING ({LABEL_COLUMNS})
    LEFT JOIN receipts r ON w.action = '{Action.ADD}'
        AND (r.image_id, r.receipt_id) = (w.image_id, w.receipt_id)
    LEFT JOIN labels t ON w.action = '{Action.MOVE}' AND t.label = w.to_label
        AND ({qualified("t", WORD_KEY)}) = ({qualified("w", WORD_KEY)})
)
SELECT * EXCLUDE (place, is_retired),
    is_applied OR (action <> '{Action.MOVE}'
        AND coalesce(row_now.validation_status = status_after, false)) AS is_done,
    CASE
        WHEN is_applied THEN NULL
        WHEN action = '{Action.ADD}' AND row_now IS NOT NULL
            THEN format('the word has this label by now: it is {{}}', row_now.validation_status)
        WHEN action <> '{Action.ADD}' AND row_now IS NULL THEN 'the label is no longer there'
        WHEN row_now.validation_status IS DISTINCT FROM seen_status
            THEN format('the label has changed since it was decided on: it is {{}} now',
                row_now.validation_status)
        WHEN text_now IS DISTINCT FROM seen_text
            THEN format('the word has changed since it was decided on: it reads {{}} now',
                coalesce(text_now, 'nothing'))
        WHEN action = '{Action.MOVE}' AND to_label = label THEN 'it has this label already'
        WHEN NOT by_person AND is_retired THEN 'a rule of the review policy has retired it'
        WHEN NOT by_person AND row_now.validation_status IN ('VALID', 'INVALID')
            THEN 'a person has decided on the label'
        WHEN NOT by_person AND target_now.validation_status = 'INVALID'
            THEN format('{{}} has been rejected on this word', to_label)
    END AS refused
FROM compared WHERE place = 1
"""
_OUTSIDE: Final = """
DELETE FROM checked WHERE (label, merchant_key) NOT IN
    (SELECT (label_type, merchant_key) FROM chosen_partitions)
"""
# Two corrections of one word may want the same label, each for reasons of its own.
_COLLIDING: Final = f"""
UPDATE checked c SET refused = 'another correction changes the same label of the word'
WHERE refused IS NULL AND NOT is_done AND action = '{Action.MOVE}' AND (
    SELECT count(*) FROM checked o
    WHERE o.refused IS NULL AND NOT o.is_done
        AND ({qualified("o", WORD_KEY)}) = ({qualified("c", WORD_KEY)})
        AND (o.label = c.to_label
            OR (o.action = '{Action.MOVE}' AND o.to_label = c.to_label AND o.label < c.label))
) > 0
"""
_CAPPED: Final = f"""
UPDATE checked c SET refused = format(
    'the brake: {{:,}} labels of the merchant would be retired at once, of {{:,}} that it has',
    o.retired, o.labels)
FROM (
    SELECT merchant_key, count(*) AS retired,
        (SELECT count(*) FROM labels l WHERE l.merchant_key = k.merchant_key) AS labels
    FROM checked k WHERE refused IS NULL AND NOT is_done AND action IN {_RETIRING} GROUP BY ALL
) o
WHERE o.merchant_key = c.merchant_key AND c.refused IS NULL AND c.action IN {_RETIRING}
    AND o.retired > greatest($at_least, $share * o.labels)
"""
_NUMBERED: Final = f"""
CREATE OR REPLACE TEMP TABLE made AS
SELECT $before + row_number() OVER (ORDER BY {LABEL_COLUMNS}) AS correction_id, *
FROM checked WHERE refused IS NULL AND NOT is_done
"""
# What a person says is VALID; what nobody has looked at stays PENDING, so that no model learns from
# its own decisions as if a person had made them.
_OLD_ROWS: Final = f"""
SELECT correction_id, {LABEL_COLUMNS}, merchant_key, row_now AS row_before,
    struct_update(row_now, validation_status := status_after, batch_id := $operation_id,
        batch_time := $now::TIMESTAMPTZ) AS row_after
FROM made WHERE action <> '{Action.ADD}'
"""
_NEW_ROWS: Final = f"""
SELECT correction_id, {WORD_COLUMNS}, coalesce(to_label, label) AS label, merchant_key,
    target_now AS row_before,
    struct_pack(
        validation_status := CASE WHEN by_person THEN 'VALID' ELSE 'PENDING' END,
        merchant_name := merchant_name,
        extra := json_merge_patch(coalesce(target_now.extra, '{{}}'), json_object(
            'label_proposed_by', actor, 'label_consolidated_from',
            CASE WHEN action = '{Action.MOVE}' THEN label END, 'reasoning', reasoning,
            'timestamp_added', $added)),
        batch_id := $operation_id, batch_time := $now::TIMESTAMPTZ) AS row_after
FROM made
WHERE action = '{Action.ADD}' OR (action = '{Action.MOVE}' AND (target_now IS NULL
    OR (by_person AND target_now.validation_status <> 'VALID')))
"""
_CHANGED: Final = f"CREATE OR REPLACE TEMP TABLE changed_rows AS {_OLD_ROWS} UNION ALL {_NEW_ROWS}"
_INTERNAL: Final = (
    "row_now, text_now, target_now, refused, is_done, is_applied, by_person, status_after, "
    "seen_status, seen_text"
)
_SHOWN: Final = f"""
SELECT m.* EXCLUDE ({_INTERNAL}),
    m.row_now.validation_status AS status_before, status_after, w.text AS word_text
FROM made m LEFT JOIN words w USING ({WORD_COLUMNS}) ORDER BY correction_id
"""
_REFUSED: Final = f"""
SELECT {LABEL_COLUMNS}, action, to_label, refused AS reason FROM checked
WHERE refused IS NOT NULL ORDER BY {LABEL_COLUMNS}
"""
_RECORDED: Final = f"""
INSERT INTO label_corrections BY NAME
SELECT * EXCLUDE ({_INTERNAL}, merchant_key, merchant_name),
    $operation_id AS operation_id, $now::TIMESTAMPTZ AS corrected_at
FROM made
"""


class Brake:
    """How many labels of one merchant may be retired at once.

    Attributes:
        share: of the merchant's labels, 0..1.
        at_least: this many may be in any case.
    """

    def __init__(self, share: float, at_least: int) -> None:
        self.share = share
        self.at_least = at_least


def apply_corrections(
    warehouse: Warehouse,
    wanted: pa.Table,
    brake: Brake,
    *,
    actor: str,
    note: str | None = None,
    partitions: Sequence[PartitionKey] | None = None,
    commit: bool,
) -> CorrectionReport:
    """Correct labels, or say what would be corrected.

    Args:
        warehouse: holds the labels.
        wanted: the corrections, with the columns of `WANTED`.
        brake: keeps one merchant's labels from being retired in large numbers.
        actor: who applies them, for the record.
        note: why, for the record.
        partitions: only labels of these; None means all.
        commit: whether labels are changed. All are, in one transaction, or none.

    Raises:
        StoreError: the tables cannot be written; nothing was changed.
    """

    def prepare(con: Connection, operation: Operation) -> CorrectionReport:
        _prepare(con, wanted, brake, partitions, operation)
        return _report(con)

    return carry_out(warehouse, "apply", prepare, _record, actor=actor, note=note, commit=commit)


def _prepare(
    con: Connection,
    wanted: pa.Table,
    brake: Brake,
    partitions: Sequence[PartitionKey] | None,
    operation: Operation,
) -> None:
    """Make the tables `checked`, `made` and `changed_rows`."""
    con.register("wanted", wanted.select(WANTED.names).cast(WANTED))
    con.execute(_CHECKED)
    con.unregister("wanted")
    if partitions is not None:
        con.register("chosen_partitions", partition_table(partitions))
        con.execute(_OUTSIDE)
        con.unregister("chosen_partitions")
    con.execute(_COLLIDING)
    con.execute(_CAPPED, {"share": brake.share, "at_least": brake.at_least})
    con.execute(_NUMBERED, {"before": operation.before})
    con.execute(_CHANGED, {**_signature(operation), "added": operation.now.isoformat()})


def _record(con: Connection, operation: Operation) -> None:
    con.execute(_RECORDED, _signature(operation))
    con.execute("INSERT INTO label_row_changes BY NAME FROM changed_rows")


def _signature(operation: Operation) -> dict[str, Any]:
    return {"operation_id": operation.operation_id, "now": operation.now}


def _report(con: Connection) -> CorrectionReport:
    corrections = con.execute(_SHOWN).to_arrow_table().to_pylist()
    refused = con.execute(_REFUSED).to_arrow_table().to_pylist()
    unchanged = con.execute(
        "SELECT count(*) FROM checked WHERE refused IS NULL AND is_done"
    ).fetchall()[0][0]
    return CorrectionReport(
        "",
        corrections,
        [Refusal(**row) for row in refused],
        int(unchanged),
        stale_partitions(con),
        _counted(corrections),
    )


def _counted(corrections: Sequence[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in corrections:
        counts[row["action"]] = counts.get(row["action"], 0) + 1
    return counts
