"""Documents: the unit that is embedded, a labelled word seen in its context.

A document is the word's text with digits masked, the words left and right of it on its row, the
row itself, and its coarse place on the receipt. Masking and coarse places make documents repeat
("0.00" right of "total" at the lower right), so far fewer vectors than words are needed.
"""

from __future__ import annotations

from typing import Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.index.layout import ROWED
from harmonizer_assets.core.records.label import WORD_COLUMNS

DOCUMENT_VERSION: Final = "1"
PLACE_BINS: Final = 8
COLUMN_BINS: Final = 4
ROW_START: Final = "^"
ROW_END: Final = "$"
UNKNOWN_PLACE: Final = 255
"""Bin of a word that has no position."""

RECEIPTS_PER_CHUNK: Final = 10_000

_MAX_CONTEXT = 64
_MAX_ROW = 200

_PENDING = f"""
    SELECT DISTINCT l.image_id, l.receipt_id
    FROM labels l
    SEMI JOIN words w USING ({WORD_COLUMNS})
    ANTI JOIN word_documents d USING ({WORD_COLUMNS})
"""

_BUILD = f"""
WITH receipts AS ({_PENDING} ORDER BY ALL LIMIT $receipts),
{ROWED},
placed AS (
    SELECT *,
        row_number() OVER in_row AS position,
        count(*) OVER (PARTITION BY image_id, receipt_id, row_number) AS row_words,
        max(row_number) OVER (PARTITION BY image_id, receipt_id) AS row_count,
        coalesce(lag(mask, 2) OVER in_row || ' ', '')
            || coalesce(lag(mask) OVER in_row, '{ROW_START}') AS left_words,
        coalesce(lead(mask) OVER in_row, '{ROW_END}')
            || coalesce(' ' || lead(mask, 2) OVER in_row, '') AS right_words
    FROM rowed
    WINDOW in_row AS (
        PARTITION BY image_id, receipt_id, row_number ORDER BY x_center, line_id, word_id)
),
row_texts AS (
    SELECT image_id, receipt_id, row_number,
        left(string_agg(mask, ' ' ORDER BY x_center, line_id, word_id), {_MAX_ROW}) AS row_text
    FROM rowed GROUP BY ALL
)
SELECT {WORD_COLUMNS}, mask,
    left(left_words, {_MAX_CONTEXT}) AS left_context,
    left(right_words, {_MAX_CONTEXT}) AS right_context,
    row_text AS row_context,
    coalesce(least({PLACE_BINS - 1},
        floor({PLACE_BINS} * (x_center - x_min) / nullif(x_max - x_min, 0))),
        {UNKNOWN_PLACE})::UTINYINT AS x_bin,
    coalesce(least({PLACE_BINS - 1},
        floor({PLACE_BINS} * (y_center - y_min) / nullif(y_max - y_min, 0))),
        {UNKNOWN_PLACE})::UTINYINT AS y_bin,
    floor({PLACE_BINS} * (row_number - 1) / row_count)::UTINYINT AS row_bin,
    floor({COLUMN_BINS} * (position - 1) / row_words)::UTINYINT AS column_bin,
    md5(concat_ws(chr(31), '{DOCUMENT_VERSION}', mask, left_context, right_context, row_context,
        x_bin, y_bin, row_bin, column_bin)) AS document_id
FROM placed
JOIN row_texts USING (image_id, receipt_id, row_number)
SEMI JOIN labels USING ({WORD_COLUMNS})
ORDER BY document_id, {WORD_COLUMNS}
"""


def pending_receipts(con: duckdb.DuckDBPyConnection) -> int:
    """Count the receipts that hold labelled words without a document."""
    row = con.execute(f"SELECT count(*) FROM ({_PENDING})").fetchone()
    return int(row[0]) if row else 0


def build_documents(con: duckdb.DuckDBPyConnection, receipts: int = RECEIPTS_PER_CHUNK) -> pa.Table:
    """Build the documents of the labelled words of the next receipts that lack them.

    Returns:
        A table with one row per labelled word, ordered by `document_id`: the word's four ids,
        `document_id` and the document's columns (`mask`, `left_context`, `right_context`,
        `row_context`, `x_bin`, `y_bin`, `row_bin`, `column_bin`). Empty when nothing is pending.
    """
    return con.execute(_BUILD, {"receipts": receipts}).to_arrow_table()
