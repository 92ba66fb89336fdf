"""Amounts of money: how those of one receipt add up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.score.money import receipt_amounts

RELATIONS: Final = (
    "largest",
    "repeated",
    "sum_of_two",
    "part_of_sum",
    "sum_of_column",
    "product_on_row",
    "factor_on_row",
)
"""Relations between an amount and others of its receipt; see `amount_relations`."""

_COUNT: Final = re.compile(r"[xX@]?(?P<count>\d{1,3})[xX@]?")
_MOST_AMOUNTS: Final = 40
"""Distinct amounts per receipt whose sums are looked at; longer receipts are cut off."""
_MOST: Final = 1 << 42
"""More than the sum of any two amounts, in their units."""


def _parse_counts(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    known: dict[str, int] = {}
    for text in texts:
        if text not in known:
            match = _COUNT.fullmatch(text.strip())
            known[text] = int(match["count"]) if match else -1
    return np.array([known[text] for text in texts], dtype=np.int64)


def amount_relations(
    receipt: npt.NDArray[np.int64], row: npt.NDArray[np.int64], texts: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Find the relations of n words' amounts on their receipts.

    - `largest`: no amount of the receipt is greater.
    - `repeated`: the amount stands on another row, too, as a total does beside what was paid.
    - `sum_of_two`: two other amounts add up to it, as subtotal and tax do, or total and change.
    - `part_of_sum`: it adds up with another amount to a third.
    - `sum_of_column`: the last amounts of all rows above it, from the first, add up to it.
    - `product_on_row`: a count and an amount on its row multiply to it.
    - `factor_on_row`: it is that count or that amount.

    Args:
        receipt: shape (n,), number of the receipt, ascending.
        row: shape (n,), number of the row within the receipt, ascending within it.
        texts: n texts in reading order.

    Returns:
        Array of shape (n, len(RELATIONS)).
    """
    found = np.zeros((len(texts), len(RELATIONS)), dtype=bool)
    amounts = receipt_amounts(receipt, row, texts)
    at = np.flatnonzero(amounts > 0)
    if len(at) == 0:
        return found
    of, value = receipt[at], amounts[at]
    key = of * _MOST + value
    keys, first = np.unique(key, return_index=True)

    greatest = np.full(int(of.max()) + 1, -1, dtype=np.int64)
    np.maximum.at(greatest, of, value)
    found[at, 0] = value == greatest[of]

    on_row = np.unique(np.stack([key, row[at]], axis=1), axis=0)[:, 0]
    rows_with = np.searchsorted(on_row, key, side="right") - np.searchsorted(on_row, key)
    found[at, 1] = rows_with > 1

    sums, parts = _sums_of_two(of[first], value[first], keys)
    place = np.searchsorted(keys, key)
    found[at, 2], found[at, 3] = sums[place], parts[place]
    found[at, 4] = _sums_of_columns(of, row[at], value)
    found[:, 5:] = _products(receipt, row, amounts, _parse_counts(texts))
    return found


def _sums_of_two(
    receipt: npt.NDArray[np.int64], value: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return per distinct amount, ascending in its receipt, whether it is a sum or part of one."""
    sums = np.zeros(len(keys), dtype=bool)
    parts = np.zeros(len(keys), dtype=bool)
    starts = np.flatnonzero(np.diff(receipt, prepend=-1))
    sizes = np.minimum(np.diff(starts, append=len(receipt)), _MOST_AMOUNTS)
    for step in range(1, int(sizes.max())):
        # All pairs whose places in their receipts' lists are `step` apart.
        pairs = np.maximum(sizes - step, 0)
        left = np.repeat(starts - np.cumsum(pairs) + pairs, pairs) + np.arange(pairs.sum())
        right = left + step
        total = receipt[left] * _MOST + value[left] + value[right]
        place = np.minimum(np.searchsorted(keys, total), len(keys) - 1)
        hit = keys[place] == total
        sums[place[hit]] = True
        parts[left[hit]] = True
        parts[right[hit]] = True
    return sums, parts


def _sums_of_columns(
    receipt: npt.NDArray[np.int64], row: npt.NDArray[np.int64], value: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return per amount in reading order whether the last amounts of the rows above sum to it."""
    last = np.flatnonzero((np.diff(receipt, append=-1) != 0) | (np.diff(row, append=-1) != 0))
    running = np.cumsum(value[last])
    new = np.diff(receipt[last], prepend=-1) != 0
    base = np.maximum.accumulate(np.where(new, running - value[last], 0))
    above = running - value[last] - base
    count = np.arange(len(last)) - np.maximum.accumulate(np.where(new, np.arange(len(last)), 0))
    is_sum = np.zeros(len(value), dtype=bool)
    is_sum[last] = (above == value[last]) & (count >= 2)
    return is_sum


def _products(
    receipt: npt.NDArray[np.int64],
    row: npt.NDArray[np.int64],
    amounts: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Return whether n words are product or factor of `count x amount = amount`: (n, 2)."""
    found = np.zeros((len(amounts), 2), dtype=bool)
    n_rows = int(row.max()) + 1
    line = receipt * n_rows + row
    count_at = np.flatnonzero((counts > 1) & (amounts < 0))
    money_at = np.flatnonzero(amounts > 0)
    if len(count_at) == 0 or len(money_at) == 0:
        return found
    for ahead in range(2):
        # The amounts of the count's row, from its first on: unit price, then line total.
        start = np.searchsorted(line[money_at], line[count_at]) + ahead
        for further in (1, 2):
            inside = start + further < len(money_at)
            count, price = count_at[inside], money_at[start[inside]]
            total = money_at[start[inside] + further]
            hit = (
                (line[price] == line[count])
                & (line[total] == line[count])
                & (counts[count] * amounts[price] == amounts[total])
            )
            found[total[hit], 0] = True
            found[count[hit], 1] = True
            found[price[hit], 1] = True
    return found
