"""Positions that reach slightly out of their image are clipped, as those of imports are.

Both go through `normalise`, so the same words have the same scores whichever way they come.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from harmonizer_assets.core.records.box import Box
from harmonizer_assets.core.records.boxes import normalise, sized
from harmonizer_assets.core.store.database import Connection

_AT_ONCE: Final = 50_000
_NEGLIGIBLE: Final = 1e-6
"""What sums of shares may be off by rounding."""
OUTSIDE: Final = (
    f"(x < 0 OR y < 0 OR x + width > 1 + {_NEGLIGIBLE} OR y + height > 1 + {_NEGLIGIBLE})"
)
"""SQL: whether a word reaches out of its image."""

_REACHING: Final = f"""
SELECT row_number_in_file, x, y, width, height FROM checked_words
WHERE {OUTSIDE} AND x + y + width + height IS NOT NULL
"""
_CLIP: Final = """
UPDATE checked_words w SET x = c.x, y = c.y, width = c.width, height = c.height
FROM clipped c WHERE w.row_number_in_file = c.row_number
"""


def clip_positions(con: Connection) -> None:
    """Clip the boxes of checked words that reach slightly out of their image.

    Those that reach further out stay as they came.

    Args:
        con: a staging database, see `validate.check_rows`.
    """
    found = con.execute(_REACHING).to_arrow_reader(_AT_ONCE)
    clipped = [_clipped(batch) for batch in found]
    if clipped:
        con.register("clipped", pa.concat_tables(clipped))
        con.execute(_CLIP)
        con.unregister("clipped")


def _clipped(batch: pa.RecordBatch) -> pa.Table:
    rows = []
    for number, *sides in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        box = _within(Box(*sides))
        if box is not None:
            rows.append({"row_number": number, **vars(box)})
    shares = ((name, pa.float64()) for name in ("x", "y", "width", "height"))
    return pa.Table.from_pylist(rows, pa.schema([("row_number", pa.int64()), *shares]))


def _within(box: Box) -> Box | None:
    """Return a box within its image; None where it is further outside."""
    try:
        return normalise(sized(box.x, box.y, box.width, box.height), 1.0, 1.0).box
    except ValueError:
        return None
