"""Boxes: where words stand on their images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Box:
    """Where a word is: its top left corner and size, in 0..1 of the image; y is 0 at the top."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, word: Mapping[str, Any]) -> Box | None:
        """Return the box of a row of words; None where a part of it is missing."""
        sides = [word[part.name] for part in fields(cls)]
        return None if None in sides else cls(*sides)
