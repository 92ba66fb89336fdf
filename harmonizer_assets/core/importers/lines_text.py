"""Changes of single lines of a text file that leave every other byte as it is."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.json_text import replaced
from harmonizer_assets.core.ingest.readers import readable

_MARK = b"\xef\xbb\xbf"


def lines_replaced(path: Path, values: Mapping[int, Mapping[tuple, Any]]) -> bytes:
    """Replace values in the JSON of some lines; see `json_text.replaced`.

    Args:
        path: of the file.
        values: the new values by line, from 1.

    Raises:
        InputError: the file is not what was imported.
    """

    def change(number: int, line: str) -> str:
        return replaced(line, values[number]) if number in values else line

    return lines_changed(path, change)


def lines_changed(path: Path, change: Callable[[int, str], str]) -> bytes:
    """Change lines one by one, without their ends.

    Args:
        path: of the file.
        change: gets the number of a line, from 1, and its text; returns the new text.

    Raises:
        InputError: the file cannot be read.
    """
    with readable(path):
        lines = io.BytesIO(path.read_bytes())
    return b"".join(_changed(path, number, line, change) for number, line in enumerate(lines, 1))


def _changed(path: Path, number: int, line: bytes, change: Callable[[int, str], str]) -> bytes:
    mark = _MARK if number == 1 and line.startswith(_MARK) else b""
    body = line.removeprefix(mark).rstrip(b"\r\n")
    end = line[len(mark) + len(body) :]
    try:
        return mark + change(number, body.decode()).encode() + end
    except UnicodeDecodeError:
        raise InputError(f"{path}: line {number}: not UTF-8") from None
