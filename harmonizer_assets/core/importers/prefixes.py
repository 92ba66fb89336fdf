"""Prefixes of tags: B-, I- and the others that say where a phrase begins and ends.

Source: Ramshaw and Marcus 1995, "Text chunking using transformation-based learning".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

OUTSIDE: Final = "O"
"""The tag of a word without a label."""
_PREFIX: Final = re.compile(r"[BIESLU]-(?=\S)")


def unprefixed(tag: str, *, keeps: bool = False) -> str | None:
    """Return the label of a tag; None where it says that there is none.

    Args:
        tag: such as `B-DATE`, `DATE` or `O`.
        keeps: whether the prefix stays.
    """
    if tag in ("", OUTSIDE):
        return None
    return tag if keeps else _PREFIX.sub("", tag, count=1)


def prefixed(before: str, name: str | None, *, opening: str = "") -> str:
    """Return a tag with another label and the prefix that it had.

    Args:
        before: the tag as it is.
        name: the label; None for none.
        opening: the prefix of a word that had no label.
    """
    if name is None:
        return OUTSIDE
    found = _PREFIX.match(before)
    return f"{found[0] if found else opening if before == OUTSIDE else ''}{name}"


def opening_of(tags: Iterable[str]) -> str:
    """Return the prefix with which the labels of a file begin; empty where they have none."""
    return "B-" if any(_PREFIX.match(tag) for tag in tags) else ""
