"""CSV files: UTF-8, comma-separated, with a header."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.formulas import restored, restored_names
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
from harmonizer_assets.core.ingest.readers.lines import Line, bounded_lines
from harmonizer_assets.core.ingest.readers.names import named

_OTHER_DELIMITERS: Final = {";": "semicolon", "\t": "tab", "|": "pipe"}


class CsvReader(TextReader):
    """Reads CSV files; the columns are those of the header."""

    def column_names(self, path: Path, limits: LimitSettings) -> list[str]:
        """Read the header; that of an export, as it was before formulas were escaped.

        Raises:
            InputError: it is not UTF-8, not valid CSV, or names a column twice.
        """
        with _opened(path) as file:
            lines = _Lines(bounded_lines(file, limits.max_row_bytes), limits)
            return restored_names(_header(path, lines))

    def records(self, path: Path, layout: TableLayout, limits: LimitSettings) -> Iterator[Record]:
        """Read the rows below the header; empty lines are skipped.

        A quote that is never closed costs its own line only: see `_Rows`.
        """
        with _opened(path) as file:
            lines = _Lines(bounded_lines(file, limits.max_row_bytes), limits)
            rows = _Rows(lines, _header(path, lines), layout)
            while (record := rows.next()) is not None:
                yield record

    def hint(self, found: Sequence[str], required: Sequence[str]) -> str:
        """Name the delimiter of a file whose header is one column only because of it."""
        header = "".join(found)
        for delimiter, name in _OTHER_DELIMITERS.items():
            if any(column in header.split(delimiter) for column in required):
                return f"; it looks {name}-separated: write it with commas"
        return ""


def _opened(path: Path) -> Any:
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


@dataclass
class _Lines:
    """Lines that can be put back."""

    unread: Iterator[Line[str]]
    limits: LimitSettings
    put_back: deque[Line[str]] = field(default_factory=deque)

    def next(self) -> Line[str] | None:
        """Read the next line; None at the end."""
        return self.put_back.popleft() if self.put_back else next(self.unread, None)

    def return_to_front(self, lines: Sequence[Line[str]]) -> None:
        """Put lines back, so that they are read next."""
        self.put_back.extendleft(reversed(lines))


class _Gathering:
    """The lines of one record, which end where its quotes are closed."""

    def __init__(self, first: Line[str], lines: _Lines) -> None:
        self.taken = [first]
        self._lines = lines
        self._size = len(first.text)

    def fields(self) -> list[str] | None:
        """Split the record into fields.

        Returns:
            None where its quotes are not closed within the limit of a row.

        Raises:
            csv.Error: it is not valid CSV.
        """
        csv.field_size_limit(self._lines.limits.max_row_bytes)
        found: list[str] = next(csv.reader(self._texts(), strict=True), [])
        return found

    def _texts(self) -> Iterator[str]:
        yield self.taken[0].text
        while self._size < self._lines.limits.max_row_bytes:
            line = self._lines.next()
            if line is None:
                return
            self.taken.append(line)
            self._size += len(line.text)
            if not line.is_whole:
                return
            yield line.text


def _header(path: Path, lines: _Lines) -> list[str]:
    first = lines.next()
    if first is None:
        return []
    try:
        header = _Gathering(first, lines).fields() if first.is_whole else None
    except csv.Error as error:
        raise InputError(f"{path}: line 1: the header is not valid CSV: {error}") from error
    if header is None:
        raise InputError(f"{path}: line 1: the header is too long")
    if any(is_damaged(name) for name in header):
        raise InputError(f"{path}: line 1: the header is {NOT_UTF8}")
    return named(header)


class _Rows:
    """The rows of a CSV file below its header.

    Where a quote opens a field and is not closed as it should be, or only after lines that are rows
    themselves, it was meant as a sign of the text (an inch, for example). Its line alone is broken
    then, and reading goes on with the next line.
    """

    def __init__(self, lines: _Lines, header: Sequence[str], layout: TableLayout) -> None:
        self._lines = lines
        self._header = header
        self._extra = [name for name in header if name not in layout.columns]
        self._numbers = [header.index(name) for name in layout.whole_numbers if name in header]

    def next(self) -> Record | None:
        """Read the next row that is not empty; None at the end."""
        while (line := self._lines.next()) is not None:
            if not line.is_whole:
                return _broken(line, too_long(self._lines.limits.max_row_bytes))
            text = line.text.rstrip("\r\n")
            if text:
                return self._quoted(line) if '"' in text else self._record([line], text.split(","))
        return None

    def _quoted(self, line: Line[str]) -> Record:
        gathering = _Gathering(line, self._lines)
        try:
            fields, problem = gathering.fields() or [], None
        except csv.Error as error:
            fields, problem = [], f"not valid CSV: {error}"
        following = gathering.taken[1:]
        if problem is None and any(self._is_row(other) for other in following):
            problem = "not valid CSV: its quote is closed only after other rows"
        if problem is None:
            return self._record(gathering.taken, fields)
        self._lines.return_to_front(following)
        return _broken(line, f"{problem} (write a quote within a text twice)")

    def _is_row(self, line: Line[str]) -> bool:
        """Return whether a line is a row by itself: as many columns, and numbers where due."""
        try:
            fields: list[str] = next(csv.reader([line.text], strict=True), [])
        except csv.Error:
            return False
        return len(fields) == len(self._header) and all(
            fields[place].strip().isdecimal() for place in self._numbers
        )

    def _record(self, lines: Sequence[Line[str]], fields: list[str]) -> Record:
        number, size = lines[0].number, sum(len(line.text) for line in lines)
        problem = None
        if len(fields) != len(self._header):
            problem = f"{len(fields)} columns where the header has {len(self._header)}"
        elif any(is_damaged(text) for text in fields):
            problem = NOT_UTF8
        if problem is None:
            values = dict(zip(self._header, fields, strict=True))
            for name in self._extra:
                if not values[name]:
                    del values[name]  # null and an empty text look alike
            return Record(number, restored(values), size=size)
        return Record(number, {}, problem, as_json([shown(text) for text in fields]), size)


def _broken(line: Line[str], problem: str) -> Record:
    text = as_json([shown(line.text.rstrip("\r\n"))])
    return Record(line.number, {}, problem, text, len(line.text))
