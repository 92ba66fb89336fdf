"""Layout: which words stand on one row of a receipt, and where.

Words are on one row when their vertical centres are within half a median word height of the
previous word's centre; OCR splits "TOTAL      12.50" into two lines, the row puts them together.
Words without positions are on the row of their OCR line.
"""

from __future__ import annotations

from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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
    SELECT *
    FROM page_words JOIN (
        SELECT image_id, receipt_id, median(height) AS median_height,
            min(x_center) AS x_min, max(x_center) AS x_max,
            min(y_center) AS y_min, max(y_center) AS y_max
        FROM page_words GROUP BY ALL
    ) USING (image_id, receipt_id)
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
    table = con.execute(_LAYOUT).to_arrow_table().combine_chunks()
    con.unregister("receipts")
    return table.append_column("receipt", pa.array(_numbered_receipts(table)))


def _numbered_receipts(words: pa.Table) -> npt.NDArray[np.int64]:
    """Number the receipts of words that are in their order: shape (w,)."""
    starts = np.zeros(words.num_rows, dtype=np.int64)
    for name in ("image_id", "receipt_id"):
        ids = words[name]
        starts[1:] |= pc.not_equal(ids[1:], ids[:-1]).to_numpy()
    return np.cumsum(starts)
