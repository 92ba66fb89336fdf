"""Quarantined rows leave when a later batch mends them."""

from __future__ import annotations

from typing import Final

import duckdb

from harmonizer_assets.core.ingest.entries import InboxBatch
from harmonizer_assets.core.records.label import WORD_KEY
from harmonizer_assets.core.store.ranks import Rank, compared, outranks

_NUMBERS: Final = WORD_KEY[1:]
_FIELDS: Final = ", ".join(
    f"TRY_CAST(TRY_CAST(row->>'$.{column}' AS DOUBLE) AS BIGINT) AS {column}" for column in _NUMBERS
)
_SAME_WORD: Final = " AND ".join(f"q.{column} = s.{column}" for column in WORD_KEY)

_EARLIER: Final = f"""
batch_id <> $batch_id
AND batch_id NOT IN (SELECT batch_id FROM batch_ranks r WHERE {outranks("r")})
"""

# A word is mended by a row about it; a label by one with the same type, or by any label of the word
# where the type itself was missing or unknown. A row that comes again as it was takes the place of
# its predecessor.
_MENDED: Final = f"""
DELETE FROM quarantine WHERE rowid IN (
    WITH q AS (
        SELECT rowid AS place, table_name, reason, row->>'$.image_id' AS image_id, {_FIELDS},
            trim(row->>'$.label') AS label, row::VARCHAR AS row
        FROM quarantine WHERE json_type(row) = 'OBJECT' AND {_EARLIER}
    )
    SELECT q.place FROM q JOIN staged.checked_words s ON {_SAME_WORD}
    WHERE q.table_name = 'words'
    UNION
    SELECT q.place FROM q JOIN staged.checked_labels s ON {_SAME_WORD}
    WHERE q.table_name = 'labels' AND (q.label = s.label
        OR q.reason LIKE 'unknown label%' OR q.reason LIKE 'label is missing%')
    UNION
    SELECT q.place FROM q JOIN staged.rejected s ON q.row = s.row AND q.table_name = s.table_name
)
"""

# What an import has left out leaves when the same files are imported again, or from the same paths.
_IMPORTED_AGAIN: Final = f"""
DELETE FROM quarantine WHERE source_row IS NOT NULL AND {_EARLIER} AND (
    file IN (FROM staged.imported_files)
    OR batch_id IN (SELECT batch_id FROM batches WHERE source = $source)
)
"""

# A row without a key, or a file that could not be read at all, leaves with the next batch that is
# made of the same file.
_SENT_AGAIN: Final = f"""
DELETE FROM quarantine
WHERE {_EARLIER} AND CASE WHEN table_name IS NULL THEN file = $source
    ELSE json_type(row) IS DISTINCT FROM 'OBJECT' AND list_contains($files, file) END
"""


def mend(con: duckdb.DuckDBPyConnection, batch: InboxBatch, batch_id: str, rank: Rank) -> None:
    """Remove what a batch mends from `quarantine`; used inside `Warehouse.write`.

    Args:
        con: the connection that `write` gave, with the staging database attached as `staged`.
        batch: the batch, whose own rows stay.
        batch_id: the hash of its content.
        rank: its place among the other batches: a later one is not mended.
    """
    parameters = {"batch_id": batch_id, **compared(rank)}
    con.execute(_MENDED, parameters)
    con.execute(_IMPORTED_AGAIN, {**parameters, "source": batch.source})
    files = list(batch.origins.values())
    con.execute(_SENT_AGAIN, {**parameters, "source": batch.source, "files": files})
