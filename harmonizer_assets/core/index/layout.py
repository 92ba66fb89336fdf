"""Layout: which words stand on one row of a receipt, and where.

Words are on one row when their vertical centres are within half a median word height of the
previous word's centre; OCR splits "TOTAL      12.50" into two lines, the row puts them together.
Words without positions are on the row of their OCR line.
"""

from __future__ import annotations

from typing import Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.records.label import WORD_COLUMNS
from harmonizer_assets.core.records.mask import MASK

ROWED: Final = f"""
page_words AS (
    SELECT {WORD_COLUMNS}, text,
        {MASK} AS mask,
        x + coalesce(width, 0) / 2 AS x_center,
        y + coalesce(height, 0) / 2 AS y_center,
        height
    FROM words SEMI JOIN receipts USING (image_id, receipt_id)
),
measured AS (
    SELECT *,
        median(height) OVER receipt AS median_height,
        min(x_center) OVER receipt AS x_min, max(x_center) OVER receipt AS x_max,
        min(y_center) OVER receipt AS y_min, max(y_center) OVER receipt AS y_max
    FROM page_words
    WINDOW receipt AS (PARTITION BY image_id, receipt_id)
),
gaps AS (
    SELECT *,
        CASE WHEN y_center IS NULL
            THEN line_id IS DISTINCT FROM lag(line_id) OVER reading
            ELSE coalesce(
                y_center - lag(y_center) OVER reading > 0.5 * coalesce(median_height, 0.01), true)
        END AS starts_row
    FROM measured
    WINDOW reading AS (
        PARTITION BY image_id, receipt_id
        ORDER BY y_center NULLS LAST, line_id, x_center, word_id)
),
rowed AS (
    SELECT *,
        sum(starts_row::INTEGER) OVER (
            PARTITION BY image_id, receipt_id
            ORDER BY y_center NULLS LAST, line_id, x_center, word_id
            ROWS UNBOUNDED PRECEDING) AS row_number
    FROM gaps
)
"""
"""Common table expressions from `receipts` (image_id, receipt_id) to `rowed`, one row per word."""

# Positions are relative to the words' own extent: scans have margins of all widths.
_LAYOUT = f"""
WITH {ROWED}
SELECT {WORD_COLUMNS}, text,
    dense_rank() OVER (ORDER BY image_id, receipt_id) - 1 AS receipt,
    row_number - 1 AS "row",
    (x_center - x_min) / nullif(x_max - x_min, 0) AS x,
    (y_center - y_min) / nullif(y_max - y_min, 0) AS y,
    height / nullif(median_height, 0) AS height
FROM rowed
ORDER BY image_id, receipt_id, row_number, x_center, line_id, word_id
"""


def read_layout(con: duckdb.DuckDBPyConnection, receipts: pa.Table) -> pa.Table:
    """Read all words of some receipts in reading order.

    Args:
        con: a connection inside a transaction.
        receipts: columns `image_id` and `receipt_id`, without doubles.

    Returns:
        One row per word: its four ids, `text`, `receipt` (0, 1, ... in the order of the ids),
        `row` (0, 1, ... within the receipt from the top), `x` and `y` (centre, 0..1 of what the
        words cover, null without positions) and `height` (in median heights of the receipt).
    """
    con.register("receipts", receipts)
    table = con.execute(_LAYOUT).to_arrow_table()
    con.unregister("receipts")
    return table
