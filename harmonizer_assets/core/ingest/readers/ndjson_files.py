"""NDJSON files: one JSON object per line, UTF-8."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.settings import LimitSettings
from harmonizer_assets.core.ingest.readers.base import (
    NOT_UTF8,
    Record,
    TextReader,
    as_json,
    is_damaged,
    shown,
    too_long,
)
from harmonizer_assets.core.ingest.readers.layout import TableLayout
from harmonizer_assets.core.ingest.readers.lines import bounded_lines
from harmonizer_assets.core.ingest.readers.names import named


class NdjsonReader(TextReader):
    """Reads NDJSON files; the columns are the names in each object."""

    def column_names(self, path: Path, limits: LimitSettings) -> list[str]:
        """Read the names in the first readable line; later lines may lack some.

        Raises:
            InputError: no line is a JSON object.
        """
        first = None
        for record in _records(path, limits):
            if record.problem is None:
                return list(record.values)
            first = first or f" (line {record.row_number}: {record.problem})"
        raise InputError(
            f"{path}: no line is a JSON object: write one object per line{first or ''}"
        )

    def records(self, path: Path, layout: TableLayout, limits: LimitSettings) -> Iterator[Record]:
        """Read the objects; empty lines are skipped."""
        del layout
        return _records(path, limits)


def _records(path: Path, limits: LimitSettings) -> Iterator[Record]:
    with path.open("rb") as file:
        for line in bounded_lines(file, limits.max_row_bytes):
            if not line.is_whole:
                problem, broken = too_long(limits.max_row_bytes), as_json([_shown(line.text)])
                yield Record(line.number, {}, problem, broken, len(line.text))
            elif line.text.strip():
                yield _record(line.number, line.text)


def _record(number: int, line: bytes) -> Record:
    size = len(line)
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        return Record(number, {}, NOT_UTF8, as_json([_shown(line)]), size)
    try:
        values = json.loads(text, object_pairs_hook=_object)
        written = as_json(values) if b"\\u" in line or not isinstance(values, dict) else ""
    except (ValueError, RecursionError) as error:
        return Record(number, {}, f"not valid JSON: {error}", as_json([_shown(line)]), size)
    if not isinstance(values, dict):
        return Record(number, {}, "not a JSON object", as_json([_shown(line)]), size)
    if is_damaged(written):
        return Record(number, {}, "holds half of a surrogate pair", as_json([_shown(line)]), size)
    return Record(number, dict(zip(named(list(values)), values.values(), strict=True)), size=size)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members.

    Raises:
        ValueError: a name stands in it twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice} stands twice")
    return found


def _shown(line: bytes) -> str:
    return shown(line.decode("utf-8", "replace").rstrip("\r\n"))
