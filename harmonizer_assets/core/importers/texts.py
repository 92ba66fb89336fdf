"""Words of running text: where they stand in it, and which labels cover them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harmonizer_assets.core.records.boxes import Points

_WORD: Final = re.compile(r"\S+")


@dataclass(frozen=True)
class Token:
    """A word of a text.

    Attributes:
        text: the word.
        start, end: offsets in the text, in characters.
        line: number of the line of the text, from 0.
    """

    text: str
    start: int
    end: int
    line: int


def tokens(text: str) -> list[Token]:
    """Split a text at blanks and line ends."""
    found = []
    offset = 0
    for number, line in enumerate(text.splitlines(keepends=True)):
        for word in _WORD.finditer(line):
            found.append(Token(word[0], offset + word.start(), offset + word.end(), number))
        offset += len(line)
    return found


def covered(found: Sequence[Token], start: Any, end: Any) -> list[int]:
    """Return the places of the words that a span of characters covers at least half.

    Raises:
        ValueError: the offsets are none, or the span is empty.
    """
    if isinstance(start, bool) or not isinstance(start, int) or not isinstance(end, int):
        raise ValueError(f"its offsets are {str(start)[:20]} and {str(end)[:20]}, no whole numbers")
    if not 0 <= start < end:
        raise ValueError(f"its offsets, {start} and {end}, enclose nothing")
    return [
        place
        for place, token in enumerate(found)
        if 2 * (min(token.end, end) - max(token.start, start)) >= token.end - token.start
    ]


def split_line(text: str, points: Points | None) -> Iterator[tuple[str, Points | None]]:
    """Split the text of a line into words, each with its share of the line's box.

    Letters are taken as equally wide. Of a box with four corners, the words lie along its upper and
    lower side, which join the first two and the last two corners.
    """
    words = [*_WORD.finditer(text)]
    if points is None or len(words) < 2 or not text.strip():
        yield from ((word[0], points) for word in words)
        return
    first, last = words[0].start(), words[-1].end()
    for word in words:
        start, end = (word.start() - first) / (last - first), (word.end() - first) / (last - first)
        yield word[0], _part(points, start, end)


def _part(points: Points, start: float, end: float) -> Points:
    numbers = [value for point in points for value in point]
    if len(points) not in (2, 4) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in numbers
    ):
        return points
    if len(points) == 2:
        (left, top), (right, bottom) = points
        points = ((left, top), (right, top), (right, bottom), (left, bottom))
    upper_left, upper_right, lower_right, lower_left = points
    return (
        _between(upper_left, upper_right, start),
        _between(upper_left, upper_right, end),
        _between(lower_left, lower_right, end),
        _between(lower_left, lower_right, start),
    )


def _between(first: tuple[Any, Any], second: tuple[Any, Any], share: float) -> tuple[Any, Any]:
    return (
        first[0] + share * (second[0] - first[0]),
        first[1] + share * (second[1] - first[1]),
    )
