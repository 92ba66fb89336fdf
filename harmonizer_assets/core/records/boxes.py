"""Boxes: the one place where coordinates of any source become ours.

Ours are shares of the image, 0..1, with y = 0 at the top: an upright box for every word, and beside
it the four corners where the word is turned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from harmonizer_assets.core.records.box import Box

Point = tuple[Any, Any]
Points = Sequence[Point]
"""Corners from any of them, in either direction; two opposite ones make an upright box. A missing
coordinate is None."""

SLIGHTLY: Final = 0.05
"""How far outside of the image, as a share of it, a box may reach to be clipped."""
_UPRIGHT: Final = 1e-3
"""How far corners may be from those of the upright box, as a share of the image."""
_FEWEST, _MOST = 2, 64
_DECIMALS: Final = 9
"""Of the shares of a box that was clipped."""


@dataclass(frozen=True)
class Normalised:
    """A position in shares of the image.

    Attributes:
        box: the smallest upright box around the word, within the image.
        quad: the corners of a turned word, x and y by turns, clockwise from the one that is nearest
            to the top left; None for an upright one.
        is_clipped: whether a part outside of the image was cut off.
    """

    box: Box
    quad: tuple[float, ...] | None
    is_clipped: bool


def rectangle(left: Any, top: Any, right: Any, bottom: Any) -> Points:
    """Return two opposite corners."""
    return ((left, top), (right, bottom))


def sized(left: Any, top: Any, width: Any, height: Any) -> Points:
    """Return two opposite corners of a box that is given by one and its size.

    Raises:
        TypeError: a value is no number.
    """
    if None in (left, top, width, height):
        return ((left, top), (None, None))
    return ((left, top), (left + width, top + height))


def flat(numbers: Sequence[Any]) -> Points:
    """Return corners that are given as x and y by turns.

    Raises:
        ValueError: a y is missing.
    """
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def normalise(points: Points, width: Any, height: Any) -> Normalised:
    """Bring corners into shares of the image.

    Args:
        points: the corners.
        width: of the image, in the unit of the corners.
        height: of the image, likewise.

    Raises:
        ValueError: a coordinate is missing, no number or not finite, or the box is far outside of
            the image; or the image has no size.
    """
    across, down = _side("width", width), _side("height", height)
    if not _FEWEST <= len(points) <= _MOST:
        raise ValueError(f"the box has {len(points)} corners, two or four are usual")
    given = [
        (_number(x, f"x of corner {n}"), _number(y, f"y of corner {n}"))
        for n, (x, y) in enumerate(points, start=1)
    ]
    _check_near([(x / across, y / down) for x, y in given])
    clipped = [(_clip(x, across), _clip(y, down)) for x, y in given]
    left, right = _ends([x for x, _ in clipped])
    top, bottom = _ends([y for _, y in clipped])
    # Sizes are taken in the unit of the source: differences of shares are off in the last digit.
    sides = (left / across, top / down, (right - left) / across, (bottom - top) / down)
    is_clipped = clipped != given
    # What is left of a clipped box is the same to the last digit, whatever the source counts in.
    box = Box(*(round(side, _DECIMALS) for side in sides)) if is_clipped else Box(*sides)
    corners = [(x / across, y / down) for x, y in clipped]
    return Normalised(box, _quad(corners, box), is_clipped)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _side(name: str, value: Any) -> float:
    side = _number(value, f"{name} of the image")
    if side <= 0:
        raise ValueError(f"{name} of the image is {value}")
    return side


def _number(value: Any, what: str) -> float:
    if value is None:
        raise ValueError(f"{what} is missing")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{what} is no number: {str(value)[:40]!r}")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{what} is no number: {str(value)[:40]!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{what} is not finite")
    return number


def _check_near(shares: Sequence[tuple[float, float]]) -> None:
    for x, y in shares:
        if not (-SLIGHTLY <= x <= 1 + SLIGHTLY and -SLIGHTLY <= y <= 1 + SLIGHTLY):
            raise ValueError(
                f"the box is outside of the image: {x:.3g} of its width, {y:.3g} of its height"
            )


def _clip(coordinate: float, side: float) -> float:
    return min(max(coordinate, 0.0), side)


def _quad(points: Sequence[tuple[float, float]], box: Box) -> tuple[float, ...] | None:
    """Return the corners of a turned word in one order, whatever corner the source began with."""
    if len(points) != 4 or _is_upright(points, box):
        return None
    middle_x = sum(x for x, _ in points) / 4
    middle_y = sum(y for _, y in points) / 4
    # With y down, growing angles go clockwise.
    around = sorted(points, key=lambda p: (math.atan2(p[1] - middle_y, p[0] - middle_x), p))
    start = min(range(4), key=lambda n: (around[n][0] + around[n][1], around[n][1]))
    return tuple(value for point in (*around[start:], *around[:start]) for value in point)


def _is_upright(points: Sequence[tuple[float, float]], box: Box) -> bool:
    corners = [(x, y) for x in (box.x, box.x + box.width) for y in (box.y, box.y + box.height)]
    return all(min(math.dist(point, corner) for point in points) <= _UPRIGHT for corner in corners)
