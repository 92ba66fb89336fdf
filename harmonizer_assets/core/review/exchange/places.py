"""Which word is at a place that a person has drawn on an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa

from harmonizer_assets.core.records.label import WORD_COLUMNS, WordKey
from harmonizer_assets.core.review.exchange.base import Corner, Drawn
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.warehouse import Warehouse

_Box = tuple[float, float, float, float]
_WORDS: Final = f"""
SELECT {WORD_COLUMNS}, x, y, width, height FROM words SEMI JOIN drawn USING (image_id, receipt_id)
WHERE x IS NOT NULL AND y IS NOT NULL AND width IS NOT NULL AND height IS NOT NULL
ORDER BY ALL
"""


def words_at(warehouse: Warehouse, drawn: Sequence[Drawn]) -> dict[Drawn, WordKey | str]:
    """Find the words at the places that people have drawn.

    Returns:
        For each place its word, or the end of a sentence that says why it has none.
    """
    if not drawn:
        return {}
    receipts = {one.near.key[:2] for one in drawn}
    columns = {"image_id": [key[0] for key in receipts], "receipt_id": [key[1] for key in receipts]}
    boxes: dict[tuple[str, int], dict[WordKey, _Box]] = defaultdict(dict)

    def read(con: Connection) -> list[tuple]:
        con.register("drawn", pa.table(columns))
        return con.execute(_WORDS).fetchall()

    for *ids, x, y, width, height in warehouse.read(read):
        word = WordKey(*ids)
        boxes[word[:2]][word] = (x, y, width, height)
    return {one: _word_at(one.corners, boxes[one.near.key[:2]]) for one in drawn}


def _word_at(corners: Sequence[Corner], boxes: Mapping[WordKey, _Box]) -> WordKey | str:
    """Return the word whose middle is within the corners, or that has their middle within it."""
    inside = [word for word, box in boxes.items() if _holds(corners, _middle(_corners(box)))]
    middle = _middle(corners)
    around = [word for word, box in boxes.items() if _holds(_corners(box), middle)]
    found = inside or around
    if len(found) == 1:
        return found[0]
    return f"{len(found)} words are: draw it around one" if found else "no word is"


def _corners(box: _Box) -> tuple[Corner, ...]:
    x, y, width, height = box
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def _middle(corners: Sequence[Corner]) -> Corner:
    return (
        sum(x for x, _ in corners) / len(corners),
        sum(y for _, y in corners) / len(corners),
    )


def _holds(corners: Sequence[Corner], point: Corner) -> bool:
    """Return whether a point is within a polygon, by the even-odd rule.

    Source: W. R. Franklin, PNPOLY, https://wrfranklin.org/Research/Short_Notes/pnpoly.html
    """
    px, py = point
    is_inside = False
    for (ax, ay), (bx, by) in zip(corners, (*corners[1:], *corners[:1]), strict=True):
        if (ay > py) != (by > py) and px < (bx - ax) * (py - ay) / (by - ay) + ax:
            is_inside = not is_inside
    return is_inside
