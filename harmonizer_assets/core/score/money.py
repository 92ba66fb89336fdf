"""Money: reading amounts as receipts of many countries print them.

Packages that parse prices (`price-parser`) find a number in any text, times and dates included,
since they are asked about prices only. Here the question is whether a word is an amount at all, so
this is a strict grammar of whole words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

UNITS: Final = 1_000
"""Units of one: amounts are in thousandths, since some currencies and prices by weight have three
decimals."""

_SIGNS: Final = "$¢£¤¥֏؋৳฿៛₠-⃀﷼﹩＄￠￡￥￦"  # noqa: RUF001 - full width signs are meant
_FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
"""Digits, signs and letters as Japanese receipts print them, and the usual ones."""
_SPACES: Final = " \u00a0\u2007\u2009\u202f"
_LETTERS: Final = r"[^\W\d_]"
_GROUPS: Final = (
    rf"\d{{1,3}}(?:[,.{_SPACES}]\d{{3}})+",
    # Swiss and Indian.
    r"\d{1,3}(?:['’]\d{3})+",  # noqa: RUF001 - this apostrophe is meant
    r"\d{1,2}(?:,\d{2})+,\d{3}",
)
_GROUPED: Final = rf"(?:{'|'.join(_GROUPS)})"
_WHOLE: Final = rf"(?:{_GROUPED}|\d{{1,9}})"
_MINUS: Final = r"[-+\u2212]"
_CURRENCY: Final = rf"(?:{_LETTERS}{{1,3}}\.?[{_SIGNS}]?|[{_SIGNS}])"
_UNIT: Final = rf"(?:[{_SIGNS}]|{_LETTERS}{{1,3}}\.?)"
_BEFORE: Final = rf"\**{_MINUS}?\(?(?:{_CURRENCY})?[{_SPACES}]?{_MINUS}?"
_AFTER: Final = rf"(?:[{_SPACES}]?{_UNIT})?\)?-?\**"

_DECIMAL: Final = re.compile(
    rf"{_BEFORE}(?P<whole>{_WHOLE})[.,](?P<decimals>\d{{2}}){_AFTER}"
    rf"|{_BEFORE}(?P<zero>0)[.,](?P<three>\d{{3}}){_AFTER}"
)
# Codes of which one does not doubt that an amount follows, though it has no decimals.
_CODES: Final = (
    r"(?:Rs\.?|Rp\.?|Fr\.?|RM|NT\$?|INR|IDR|JPY|KRW|VND|CLP|COP|PYG|HUF|ISK|TWD|CHF|EUR|USD|GBP|SGD"
    r"|MYR)"
)
_WHOLE_NUMBER: Final = re.compile(
    rf"\**{_MINUS}?\(?(?:{_LETTERS}{{0,3}}[{_SIGNS}]|{_CODES})[{_SPACES}]?{_MINUS}?"
    rf"(?P<signed>{_WHOLE})(?:[.,][-–—]{{1,2}})?\)?-?\**"  # noqa: RUF001 - dashes stand for cents
    rf"|\**{_MINUS}?(?P<unit>{_WHOLE})[{_SPACES}]?(?:[{_SIGNS}]|円|元|원|đ|Ft|kr\.?|Kč)\**"
    rf"|(?P<dashed>{_WHOLE})[.,][-–—]{{1,2}}",  # noqa: RUF001
    re.IGNORECASE,
)
_PLAIN_GROUPED: Final = re.compile(rf"\**{_MINUS}?\(?(?P<whole>{_GROUPED})\)?-?\**")
_PLAIN: Final = re.compile(r"\**(?P<whole>[1-9]\d{2,5})\**")


def parse_amount(text: str) -> int | None:
    """Read an amount, in thousandths; None when the text is not one.

    Currency signs and codes, thousands separators, a decimal comma and whole amounts beside a
    currency are understood. Percentages are no amounts, and neither is what starts with a zero that
    no separator follows, such as a date without a year. The sign is left out: receipts print
    discounts and refunds with and without one.
    """
    stripped = text.strip().translate(_FULL_WIDTH)
    if match := _DECIMAL.fullmatch(stripped):
        if match["zero"]:
            return int(match["three"])
        whole = _digits(match["whole"])
        return None if whole is None else whole * UNITS + int(match["decimals"]) * UNITS // 100
    match = _WHOLE_NUMBER.fullmatch(stripped)
    if match is None:
        return None
    return _units(match["signed"] or match["unit"] or match["dashed"])


def receipt_amounts(
    receipt: npt.NDArray[np.int64], row: npt.NDArray[np.int64], texts: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Read the amounts of receipts.

    Where a receipt prints most of its amounts without decimals, numbers with thousands separators
    are amounts, too, and so are plain numbers of three to six digits that end a row.

    Args:
        receipt: shape (n,), number of the receipt, ascending.
        row: shape (n,), number of the row.
        texts: n texts in reading order.

    Returns:
        Shape (n,): thousandths, -1 where a text is not an amount.
    """
    amounts, grouped, has_decimals = _read(texts)
    whole = (grouped >= 0) | ((amounts >= 0) & ~has_decimals)
    n = int(receipt.max()) + 1 if len(receipt) else 0
    without = np.bincount(receipt[whole], minlength=n)
    with_decimals = np.bincount(receipt[has_decimals], minlength=n)
    here = (without > with_decimals)[receipt]
    last = np.diff(row, append=-1) != 0
    plain = np.flatnonzero(here & last & (amounts < 0) & (grouped < 0))
    for word in plain.tolist():
        if match := _PLAIN.fullmatch(texts[word].strip().translate(_FULL_WIDTH)):
            amounts[word] = int(match["whole"]) * UNITS
    return np.where(here & (amounts < 0), np.maximum(amounts, grouped), amounts)


def _read(
    texts: Sequence[str],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Read n texts: as amounts, as numbers with thousands separators, and which have decimals."""
    known: dict[str, tuple[int, int, bool]] = {}
    for text in texts:
        if text not in known:
            amount = parse_amount(text)
            stripped = text.strip().translate(_FULL_WIDTH)
            match = None if amount is not None else _PLAIN_GROUPED.fullmatch(stripped)
            grouped = _units(match["whole"]) if match else None
            has_decimals = amount is not None and bool(_DECIMAL.fullmatch(stripped))
            known[text] = (
                -1 if amount is None else amount,
                -1 if grouped is None else grouped,
                has_decimals,
            )
    read = np.array([known[text] for text in texts], dtype=np.int64).reshape(-1, 3)
    return read[:, 0].copy(), read[:, 1], read[:, 2].astype(bool)


def _units(whole: str) -> int | None:
    digits = _digits(whole)
    return None if digits is None else digits * UNITS


def _digits(whole: str) -> int | None:
    """Return the number that digits and separators spell; None for too many, or a leading zero."""
    digits = re.sub(r"\D", "", whole)
    if len(digits) > 9 or (digits[0] == "0" and len(digits) > 1):
        return None
    return int(digits)
