"""Rows of `labels` that corrections change: written, read back, and compared.

All of it happens in one transaction, so that a word is corrected as a whole or not at all.
"""

from __future__ import annotations

from typing import Final

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LABEL_KEY
from harmonizer_assets.core.store.database import Connection

VALUES: Final = ("validation_status", "merchant_name", "extra", "batch_id", "batch_time")
"""Columns of `labels` that a correction may change. The merchant's key is none of them: it follows
the name."""


def row_of(alias: str) -> str:
    """Write the SQL of the values of a row of `labels`; null where there is no row."""
    values = ", ".join(f"{name} := {alias}.{name}" for name in VALUES)
    return f"CASE WHEN {alias}.image_id IS NOT NULL THEN struct_pack({values}) END"


def same_label(one: str, other: str) -> str:
    """Write the condition under which two rows say the same of a label, whatever said it.

    A batch that brings a label as it is already changes only where it comes from.
    """
    said = ", ".join(f"{{row}}.{name}" for name in VALUES[:3])
    return (
        f"(({one}) IS NULL) = (({other}) IS NULL) AND "
        f"({said.format(row=f'({one})')}) IS NOT DISTINCT FROM ({said.format(row=f'({other})')})"
    )


_SAME: Final = " AND ".join(f"l.{name} = c.{name}" for name in LABEL_KEY)
_REMOVED: Final = f"DELETE FROM labels l USING changed_rows c WHERE {_SAME}"
# A name may have come to another merchant since; its labels have gone with it.
_WRITTEN: Final = f"""
INSERT INTO labels BY NAME
SELECT {", ".join(f"c.{name}" for name in LABEL_KEY)},
    {", ".join(f"c.row_after.{name} AS {name}" for name in VALUES)},
    coalesce(m.merchant_key, c.merchant_key) AS merchant_key
FROM changed_rows c LEFT JOIN merchant_names m ON m.name = c.row_after.merchant_name
WHERE c.row_after IS NOT NULL
"""
_DIFFERENT: Final = f"""
SELECT count(*) FROM changed_rows c LEFT JOIN labels l USING ({LABEL_COLUMNS})
WHERE {row_of("l")} IS DISTINCT FROM c.row_after
"""
# Documents hold the labels around a word, and metadata of the index their statuses.
_OUTDATED_DOCUMENTS: Final = """
DELETE FROM word_documents WHERE (image_id, receipt_id) IN
    (SELECT (image_id, receipt_id) FROM changed_rows)
"""
_STALE: Final = """
SELECT count(*) FROM label_partitions WHERE merchant_key IN
    (SELECT merchant_key FROM labels SEMI JOIN changed_rows USING (image_id, receipt_id)
     UNION SELECT merchant_key FROM changed_rows)
"""


def write_rows(con: Connection) -> None:
    """Bring the labels in the table `changed_rows` to what it says; used inside `Warehouse.write`.

    The table has a label's key, `merchant_key`, and `row_after`, null where the row is to go.

    Raises:
        StoreError: a row that was read back is not what was written; the transaction must end.
    """
    con.execute(_REMOVED)
    con.execute(_WRITTEN)
    con.execute(_OUTDATED_DOCUMENTS)
    differing = con.execute(_DIFFERENT).fetchall()[0][0]
    if differing:
        raise StoreError(
            f"{differing:,} labels are not what was written when they are read back: nothing was "
            "changed"
        )


def stale_partitions(con: Connection) -> int:
    """Count the partitions whose merchants the labels in `changed_rows` belong to."""
    return int(con.execute(_STALE).fetchall()[0][0])
