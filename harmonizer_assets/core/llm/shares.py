"""Dividing what a call took among its words."""

from __future__ import annotations


def split_evenly(total: int, parts: int) -> list[int]:
    """Divide a number into whole parts that differ by one at most and add up to it."""
    each, rest = divmod(total, parts)
    return [each + (index < rest) for index in range(parts)]
