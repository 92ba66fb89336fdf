"""Labels of a batch that were corrected after another one had brought them.

Who sends all labels every day must not undo corrections that the sender knows nothing about, so a
row that says again what was corrected does not count. A row that agrees with the correction does:
the label comes from its batch then, and whatever a later one says is new.
"""

from __future__ import annotations

import json
from typing import Final

import duckdb

from harmonizer_assets.core.records.correction import PROVENANCE
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LABEL_KEY, qualified

_SIGNED_LABELS: Final = f"""
CREATE OR REPLACE TEMP VIEW signed_labels AS
WITH signed AS (
    SELECT {qualified("t", LABEL_KEY)}, t.validation_status, t.merchant_name, t.extra
    FROM corrected_labels c JOIN labels t USING ({LABEL_COLUMNS})
    WHERE {{as_corrected}}
)
SELECT s.* REPLACE (CASE WHEN t.label IS NULL THEN s.extra ELSE t.extra END AS extra)
FROM {{source}} s LEFT JOIN signed t
    ON ({qualified("s", LABEL_KEY)}) = ({qualified("t", LABEL_KEY)}) AND {{agrees}}
"""


def _same(one: str, other: str, *, provenance: bool = True) -> str:
    """Write the condition under which two rows say the same of a label, whatever said it.

    Args:
        one: a row in SQL.
        other: another one.
        provenance: whether the columns about where a label comes from count.
    """
    return f"({_said(one, provenance)}) IS NOT DISTINCT FROM ({_said(other, provenance)})"


def _said(row: str, provenance: bool) -> str:
    nothing = json.dumps(dict.fromkeys(PROVENANCE))
    unsigned = f"json_merge_patch(coalesce({row}.extra, '{{}}'), '{nothing}')"
    extra = f"{row}.extra" if provenance else unsigned
    return f"{row}.validation_status, {row}.merchant_name, {extra}"


REPEATS_CORRECTED: Final = f"""
EXISTS (
    FROM corrected_labels c
    WHERE ({qualified("c", LABEL_KEY)}) = ({qualified("s", LABEL_KEY)})
        AND c.row_after.batch_id = t.batch_id
        AND c.row_before IS NOT NULL AND {_same("c.row_before", "s")}
)
"""
"""SQL of whether a row `s` of a batch says again what has been corrected in the row `t`."""


def repeated_later(than: str) -> str:
    """Write the condition under which a batch has said again later what was corrected in a row `s`.

    Args:
        than: the condition that a batch's rank `p` is the higher one.
    """
    return f"""
EXISTS (
    FROM label_repeats l JOIN batch_ranks p USING (batch_id)
    WHERE ({qualified("l", LABEL_KEY)}) = ({qualified("s", LABEL_KEY)}) AND {than}
)
"""


def note_repeats(con: duckdb.DuckDBPyConnection, compared: str, batch_id: str) -> None:
    """Note the labels of which a batch says again what was corrected; used in `Warehouse.write`.

    Otherwise an earlier batch that is ingested after it would win, as only the earlier one is known
    from which the corrected row came.

    Args:
        con: the connection that `write` gave.
        compared: the batch's labels, with `is_repeated`, `is_outdated` and `is_withheld`.
        batch_id: the batch.
    """
    counts = f"FROM {compared} WHERE is_repeated AND NOT is_outdated AND NOT is_withheld"
    con.execute(
        f"DELETE FROM label_repeats WHERE ({LABEL_COLUMNS}) IN (SELECT ({LABEL_COLUMNS}) {counts})"
    )
    con.execute(
        f"INSERT INTO label_repeats BY NAME SELECT {LABEL_COLUMNS}, $1 AS batch_id {counts}",
        [batch_id],
    )


def keep_provenance(con: duckdb.DuckDBPyConnection, source: str) -> str:
    """Complete the labels of a batch that agree with a correction; used inside `Warehouse.write`.

    A table that corrections were pushed to sends them back, perhaps without who has made them.

    Args:
        con: the connection that `write` gave.
        source: a view of the batch's labels.

    Returns:
        A view of the same labels, each with what is known of where it comes from.
    """
    con.execute(
        _SIGNED_LABELS.format(
            source=source,
            as_corrected=_same("c.row_after", "t"),
            agrees=_same("s", "t", provenance=False),
        )
    )
    return "signed_labels"
