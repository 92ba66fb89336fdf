"""Masks: the text of a word in lower case with its digits masked, so that amounts look alike.

`MASK` and `mask_of` are one function, in SQL for documents and in Python for features. They agree
on texts of up to `MASK_LENGTH` characters, except for two capitals (the Greek sigma, whose lower
case depends on its neighbours, and the dotted I, whose lower case is two characters), and for
control characters and line ends at either end, which only Python strips.
"""

from __future__ import annotations

import re
from typing import Final

MASK_LENGTH: Final = 64
"""Characters of a mask that documents keep."""

MASK: Final = f"left(regexp_replace(lower(trim(text)), '[0-9]', '0', 'g'), {MASK_LENGTH})"
"""SQL for the mask of the column `text`."""

_DIGIT: Final = re.compile(r"[0-9]")


def mask_of(text: str) -> str:
    """Mask a text of any length."""
    return _DIGIT.sub("0", text.strip().lower())
