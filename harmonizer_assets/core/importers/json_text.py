"""Changes of single values in JSON text that leave every other byte as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping
from json.decoder import scanstring  # type: ignore[attr-defined]
from pathlib import Path as File
from typing import Any, Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.files import MAX_DEPTH, read_text

Path = tuple[str | int, ...]
"""Names and numbers of the members that lead to a value."""

_Span = tuple[Path, int, int]
_BLANKS: Final = re.compile(r"[ \t\r\n]*")
_PLAIN: Final = re.compile(r"[^,\]}\s]+")


def replaced(text: str, values: Mapping[Path, Any]) -> str:
    """Replace values by others.

    Args:
        text: valid JSON.
        values: the new value at each path.

    Raises:
        InputError: a path leads nowhere, or the text is no JSON.
    """
    parts, done = [], 0
    missing = set(values)
    for path, start, end in _spans(text, _skipped(text, 0), ()):
        if path in values:
            parts += [text[done:start], json.dumps(values[path], ensure_ascii=text.isascii())]
            done = end
            missing.discard(path)
    if missing:
        raise InputError(f"there is nothing at {next(iter(missing))}: was the file changed?")
    return "".join([*parts, text[done:]])


def written(file: File, values: Mapping[Path, Any]) -> bytes:
    """Replace values of a JSON file.

    Raises:
        InputError: the file is not what was imported.
    """
    mark = file.read_bytes()[:3] == b"\xef\xbb\xbf"
    changed = replaced(read_text(file), values).encode()
    return b"\xef\xbb\xbf" + changed if mark else changed


def _spans(text: str, start: int, path: Path) -> Iterator[_Span]:
    """Yield the path, start and end of each value, those of an outer one after the inner ones."""
    if len(path) > MAX_DEPTH:
        raise InputError("not usable: nested too deeply")
    opening = text[start : start + 1]
    if opening == "{":
        end = yield from _members(text, start, path)
    elif opening == "[":
        end = yield from _items(text, start, path)
    else:
        end = _end_of_scalar(text, start)
    yield path, start, end


def _members(text: str, start: int, path: Path) -> Generator[_Span, None, int]:
    place = _skipped(text, start + 1)
    while text[place] != "}":
        name, place = scanstring(text, place + 1)
        place = _skipped(text, _skipped(text, place) + 1)
        place = yield from _inner(text, place, (*path, name))
    return place + 1


def _items(text: str, start: int, path: Path) -> Generator[_Span, None, int]:
    place, number = _skipped(text, start + 1), 0
    while text[place] != "]":
        place = yield from _inner(text, place, (*path, number))
        number += 1
    return place + 1


def _inner(text: str, start: int, path: Path) -> Generator[_Span, None, int]:
    """Yield the spans of one value; return where the next one or the end of the outer one is."""
    end = start
    for span in _spans(text, start, path):
        yield span
        end = span[2]
    end = _skipped(text, end)
    return _skipped(text, end + 1) if text[end] == "," else end


def _end_of_scalar(text: str, start: int) -> int:
    if text[start] == '"':
        return scanstring(text, start + 1)[1]
    found = _PLAIN.match(text, start)
    if found is None:
        raise InputError(f"not valid JSON at character {start}")
    return found.end()


def _skipped(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    return found.end() if found else place
