"""What an import has left out of its source, quarantined with the batch that the import has made.

The file lies beside the tables of a submitted batch. It also names the files that were read, since
what was left out of them before leaves the quarantine when they come again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.records.label import WORD_KEY
from harmonizer_assets.core.store.database import Connection

FILE: Final = "problems.parquet"
SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("file", "row", "reason", "remedy", "content")),
        ("is_left_out", pa.bool_()),
        ("image_id", pa.string()),
        *((name, pa.int64()) for name in WORD_KEY[1:]),
        ("label", pa.string()),
    ]
)
SOURCES: Final = "source_files"
"""Key of the metadata with the paths of all files that were read, as a JSON list."""

_LONGEST: Final = 1_000
"""Characters of a value."""
_KEY: Final = ", ".join(f"{name} := {name}" for name in (*WORD_KEY, "label"))
# Rows are JSON objects with the ids, as those of our own tables are: so they are deleted with their
# words, and leave when a later batch brings what was missing.
_QUARANTINE: Final = f"""
INSERT INTO rejected BY NAME
SELECT file, row AS source_row, left(reason, {_LONGEST}) AS reason, remedy,
    CASE WHEN label IS NOT NULL THEN 'labels' WHEN word_id IS NOT NULL THEN 'words'
        ELSE 'source' END AS table_name,
    to_json(struct_pack({_KEY}, content := left(content, {_LONGEST})))::VARCHAR AS row
FROM read_parquet($path) WHERE is_left_out
"""


def stage_left_out(con: Connection, path: Path | None) -> None:
    """Add what an import has left out to the rejected rows of a staging database.

    Makes the table `imported_files`, with the paths of the files that the import has read.

    Args:
        con: a database with the table `rejected`; see `validate.check_rows`.
        path: the file; None for a batch that no import has made.
    """
    con.execute("CREATE TABLE imported_files (file VARCHAR)")
    if path is None:
        return
    con.execute(_QUARANTINE, {"path": str(path)})
    found = (pq.read_metadata(path).metadata or {}).get(SOURCES.encode(), b"[]")
    con.execute("INSERT INTO imported_files SELECT unnest($1::VARCHAR[])", [json.loads(found)])
