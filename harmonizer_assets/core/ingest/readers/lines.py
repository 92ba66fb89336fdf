"""Lines of text files, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, AnyStr, Generic


@dataclass(frozen=True)
class Line(Generic[AnyStr]):
    """One line with its end.

    Attributes:
        number: from 1.
        text: the line, or its beginning when it is too long.
        is_whole: False for a line that is too long.
    """

    number: int
    text: AnyStr
    is_whole: bool


def bounded_lines(file: IO[AnyStr], limit: int) -> Iterator[Line[AnyStr]]:
    """Read lines of at most `limit` characters or bytes; of longer ones only the beginning."""
    number = 0
    while text := file.readline(limit):
        number += 1
        is_whole = len(text) < limit or _ends(text)
        yield Line(number, text, is_whole)
        while not is_whole:
            rest = file.readline(limit)
            is_whole = not rest or len(rest) < limit or _ends(rest)


def _ends(text: str | bytes) -> bool:
    return text[-1:] in ("\n", "\r", b"\n", b"\r")
