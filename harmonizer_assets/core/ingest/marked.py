"""Rows of a batch that are marked as deleted: they remove what earlier batches brought."""

from __future__ import annotations

from typing import Final

import duckdb

from harmonizer_assets.core.records.label import WORD_COLUMNS
from harmonizer_assets.core.store.deletions import Deleted, delete_covered
from harmonizer_assets.core.store.ranks import Rank, compared, outranks

DELETED: Final = "deleted"
"""The column that marks a row of words or labels as deleted."""
IS_MARKED: Final = (
    f"coalesce(lower(trim(extra->>'{DELETED}')) IN ('true', 't', 'yes', 'y', '1', '1.0'), false)"
)

_SCOPES: Final = f"""
CREATE OR REPLACE TEMP TABLE scopes AS
SELECT {WORD_COLUMNS}, NULL::VARCHAR AS label FROM staged.checked_words WHERE {IS_MARKED}
UNION ALL
SELECT {WORD_COLUMNS}, label FROM staged.checked_labels WHERE {IS_MARKED}
"""
_OF_A_LATER_BATCH: Final = f"""
EXISTS (
    FROM batch_ranks r WHERE r.batch_id = t.batch_id AND {outranks("r")}
)
"""


def delete_marked(con: duckdb.DuckDBPyConnection, rank: Rank, source: str) -> Deleted:
    """Delete what a staged batch marks; rows of later batches stay. Used inside `Warehouse.write`.

    A marked word takes its labels with it; a marked label leaves the word and its other labels. A
    mark without a word's last ids covers the whole line, receipt or image.
    """
    con.execute(_SCOPES)
    if not con.execute("SELECT count(*) FROM scopes").fetchall()[0][0]:
        return Deleted(0, 0)
    return delete_covered(
        con,
        rank=rank,
        source=source,
        stays=_OF_A_LATER_BATCH,
        parameters=compared(rank),
    )
