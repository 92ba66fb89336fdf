"""Receipts as they are printed in different parts of the world, row by row.

Not every amount has evidence of its own: an item may add up only with all others of its column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.score.amounts import RELATIONS, amount_relations
from harmonizer_assets.core.score.money import receipt_amounts

_NO_ARITHMETIC: Final = ("largest", "repeated")
"""Relations that hold without anything adding up."""

EUROPEAN = [
    ["Kaffee", "2", "x", "1,60", "3,20"],
    ["Brot", "4,80"],
    ["Sekt", "1\u202f196,00 €"],
    ["Summe", "1\u202f204,00 €"],
    ["Bar", "1\u202f250,00 €"],
    ["Rückgeld", "46,00 €"],
    ["MwSt", "7,00%", "01.02"],
]
SWISS = [
    ["Fondue", "2", "29.50", "59.00"],
    ["Uhr", "CHF", "1'234.50"],
    ["Total", "CHF", "1'293.50"],
    ["Bar", "1'300.-"],
    ["Rückgeld", "6.50"],
]
INDIAN = [
    ["Saree", "Rs.1,23,456.00"],
    ["Dosa", "3", "Rs.120.00", "Rs.360.00"],
    ["Subtotal", "₹1,23,816.00"],
    ["CGST", "₹3,095.40"],
    ["Total", "₹1,26,911.40"],
]
JAPANESE = [
    ["おにぎり", "2", "¥128", "¥256"],
    ["お茶", "¥1,234"],
    ["小計", "¥1,490"],
    ["消費税", "¥149"],
    ["合計", "1,639円"],
    ["お預り", "2,000円"],
    ["お釣り", "361"],
]
INDONESIAN = [
    ["Nasi", "2", "25.000", "50.000"],
    ["Teh", "7.500"],
    ["Subtotal", "57.500"],
    ["Pajak", "5.750"],
    ["Total", "63.250"],
]

RECEIPTS: Final = {
    "European": EUROPEAN,
    "Swiss": SWISS,
    "Indian": INDIAN,
    "Japanese": JAPANESE,
    "Indonesian": INDONESIAN,
}


def laid_out(rows: Sequence[Sequence[str]]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Number the row of each text of one receipt; return numbers and texts in reading order."""
    numbers = np.array([number for number, row in enumerate(rows) for _ in row], dtype=np.int64)
    return numbers, [text for row in rows for text in row]


def arithmetic_evidence(
    receipt: npt.NDArray[np.int64], row: npt.NDArray[np.int64], texts: Sequence[str]
) -> tuple[int, int]:
    """Count the amounts on receipts, and those of them that add up or multiply with others.

    Arguments are those of `amount_relations`.
    """
    is_amount = receipt_amounts(receipt, row, texts) >= 0
    counts = [name not in _NO_ARITHMETIC for name in RELATIONS]
    adds_up = amount_relations(receipt, row, texts)[:, counts].any(axis=1)
    return int(is_amount.sum()), int((is_amount & adds_up).sum())
