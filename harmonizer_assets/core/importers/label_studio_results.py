"""Results of Label Studio, as both imports of annotations and reviews read them.

Format: https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Corner = tuple[float, float]
"""A point of an image, x and y in 0..1, y = 0 at the top."""

LABEL_KINDS: Final = ("labels", "rectanglelabels", "polygonlabels")
"""Types of results that hold labels, and the names of their values."""


def annotator_of(completed_by: Any) -> str | None:
    """Return who has submitted an annotation; None where it does not tell."""
    if isinstance(completed_by, Mapping):
        completed_by = completed_by.get("email") or completed_by.get("id")
    if completed_by is None or isinstance(completed_by, str):
        return completed_by
    return f"Label Studio user {completed_by}"


def labels_of(results: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the labels of a region, from all its results."""
    found = [
        label
        for result in results
        for kind in LABEL_KINDS
        for label in (result.get("value") or {}).get(kind) or ()
    ]
    return tuple(dict.fromkeys(found))


def corners_of(results: Sequence[Mapping[str, Any]]) -> tuple[Corner, ...]:
    """Return the corners of a region, in 0..1 of the image.

    A rectangle is turned about its top left corner, in pixels: on an image that is not square, its
    percentages are of two lengths.

    Args:
        results: of the region.

    Raises:
        ValueError: it is neither a rectangle nor a polygon, or is turned on an image whose size is
            not told.
    """
    for result in results:
        value = result.get("value") or {}
        if result.get("image_rotation"):
            raise ValueError("the image is turned")
        if "points" in value:
            return tuple((float(x) / 100, float(y) / 100) for x, y in value["points"])
        if "width" in value:
            return _corners_of_rectangle(value, result)
    raise ValueError("it is neither a rectangle nor a polygon")


def _corners_of_rectangle(
    value: Mapping[str, Any], result: Mapping[str, Any]
) -> tuple[Corner, ...]:
    turn = math.radians(float(value.get("rotation") or 0))
    columns, rows = result.get("original_width"), result.get("original_height")
    if turn and not (columns and rows):
        raise ValueError("it is turned, and the size of the image is not told")
    across, down = (float(columns), float(rows)) if columns and rows else (1.0, 1.0)
    left, top = float(value["x"]) / 100 * across, float(value["y"]) / 100 * down
    width, height = float(value["width"]) / 100 * across, float(value["height"]) / 100 * down
    to_right = (width * math.cos(turn), width * math.sin(turn))
    to_bottom = (-height * math.sin(turn), height * math.cos(turn))
    steps = ((0, 0), (1, 0), (1, 1), (0, 1))
    return tuple(
        (
            (left + right * to_right[0] + below * to_bottom[0]) / across,
            (top + right * to_right[1] + below * to_bottom[1]) / down,
        )
        for right, below in steps
    )
