"""What readers have in common: the interface, and staging of text records."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.settings import LimitSettings
from harmonizer_assets.core.ingest.readers.layout import TableLayout
from harmonizer_assets.core.ingest.readers.names import MAX_COLUMNS, problem_of

NOT_UTF8: Final = "not UTF-8: save the file as UTF-8"
_ROWS_PER_CHUNK: Final = 50_000
_SHOWN: Final = 1_000
"""Characters of a broken row that are kept."""

ColumnTypes = Mapping[str, str]
"""DuckDB's types of the columns that pass through, where the file has types."""


class Reader(ABC):
    """Reads the files of one format."""

    @abstractmethod
    def column_names(self, path: Path, limits: LimitSettings) -> list[str]:
        """Read the names of a file's columns.

        Raises:
            InputError: the file is not of this format.
            OSError: the file cannot be read.
        """

    @abstractmethod
    def stage(
        self,
        con: duckdb.DuckDBPyConnection,
        path: Path,
        layout: TableLayout,
        table: str,
        limits: LimitSettings,
    ) -> ColumnTypes:
        """Insert a file's rows as text into a table with the columns of `stage_rows`.

        Raises:
            InputError: the file is damaged.
        """

    @abstractmethod
    def read_table(self, path: Path, layout: TableLayout, limits: LimitSettings) -> pa.Table:
        """Read a small file as a whole; see `readers.read_table`."""

    def hint(self, found: Sequence[str], required: Sequence[str]) -> str:
        """Describe what may be wrong with a file that lacks required columns; empty if unknown."""
        del found, required
        return ""


@dataclass(frozen=True)
class Record:
    """One row of a text file.

    Attributes:
        row_number: the 1-based line on which the row begins.
        values: column names and values; empty for a row with a problem.
        problem: why the row cannot be split into columns, or None.
        broken: a row with a problem, as JSON.
        size: about how many bytes it takes.
    """

    row_number: int
    values: Mapping[str, Any]
    problem: str | None = None
    broken: str | None = None
    size: int = 0


class TextReader(Reader):
    """Reads the files of one text format, record by record, in bounded memory."""

    @abstractmethod
    def records(self, path: Path, layout: TableLayout, limits: LimitSettings) -> Iterator[Record]:
        """Read a file's rows, broken ones included."""

    def stage(
        self,
        con: duckdb.DuckDBPyConnection,
        path: Path,
        layout: TableLayout,
        table: str,
        limits: LimitSettings,
    ) -> ColumnTypes:
        """Insert a file's rows, as many at a time as may be in flight."""
        for chunk in _chunks(self.records(path, layout, limits), layout, limits):
            con.register("staged_chunk", chunk)
            con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM staged_chunk")
            con.unregister("staged_chunk")
        return {}

    def read_table(self, path: Path, layout: TableLayout, limits: LimitSettings) -> pa.Table:
        """Read a small file as a whole; all columns are text."""
        rows = []
        for record in self.records(path, layout, limits):
            if record.problem is not None:
                raise InputError(f"{path}: line {record.row_number}: {record.problem}")
            rows.append(record.values)
        names = list(dict.fromkeys(name for row in rows for name in row)) or list(layout.required)
        return pa.table(
            {
                name: pa.array([_as_text(row.get(name)) or None for row in rows], pa.string())
                for name in names
            }
        )


def is_damaged(text: str) -> bool:
    """Return whether a text holds surrogates: undecodable bytes, or half of a JSON escape pair."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def as_json(value: Any) -> str:
    """Write a value as JSON, without escaping other scripts."""
    return json.dumps(value, ensure_ascii=False)


def shown(text: str) -> str:
    """Repair and shorten the text of a broken row, so that it can be quarantined."""
    return text[:_SHOWN].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class _Names:
    """The names of a file's columns, which may differ from row to row."""

    def __init__(self, layout: TableLayout) -> None:
        self._layout = layout
        self._own = frozenset((*layout.columns, *layout.derived))
        self._problems: dict[tuple[str, ...], str | None] = {}
        self._all: set[str] = set()

    def problem(self, names: tuple[str, ...]) -> str | None:
        """Describe what is wrong with the names of one row; None where nothing is."""
        if names not in self._problems:
            found = problem_of(names, self._layout)
            if found is None and len(self._all.union(names)) > MAX_COLUMNS:
                found = f"the file's rows have more than {MAX_COLUMNS} different columns"
            if found is not None:
                return found
            self._all.update(names)
            self._problems[names] = None
        return None

    def extra(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of a row that only pass through."""
        return {
            name: value
            for name, value in values.items()
            if name not in self._own and value is not None
        }


def _chunks(
    records: Iterator[Record], layout: TableLayout, limits: LimitSettings
) -> Iterator[pa.Table]:
    names = ("row_number", "problem", *layout.columns, "extra", "broken")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    known, size = _Names(layout), 0
    for record in records:
        _append(columns, _bounded(record, known, limits), layout, known)
        size += record.size
        if size >= limits.max_bytes_in_flight or len(columns["broken"]) >= _ROWS_PER_CHUNK:
            yield _table(columns)
            columns, size = {name: [] for name in names}, 0
    if columns["row_number"]:
        yield _table(columns)


def _bounded(record: Record, names: _Names, limits: LimitSettings) -> Record:
    """Check a row's names and the size of its values; what is too large is left out."""
    problem = record.problem or names.problem(tuple(record.values))
    if problem is None and record.size > limits.max_value_bytes:
        problem = _oversized(record.values, limits.max_value_bytes)
    if problem is None or problem == record.problem:
        return record
    small = {
        name: value
        for name, value in record.values.items()
        if isinstance(value, str | int | float) and len(str(value)) <= _SHOWN
    }
    return replace(record, values=small, problem=problem)


def _oversized(values: Mapping[str, Any], limit: int) -> str | None:
    for name, value in values.items():
        size = len((_as_text(value) or "").encode())
        if size > limit:
            return too_large(name, size, limit)
    return None


def too_large(name: str, size: int, limit: int) -> str:
    """Describe a value that is over the limit."""
    return f"{name} is {size:,} bytes; the limit is {limit:,} ([limits] max_value_bytes)"


def too_long(limit: int) -> str:
    """Describe a row that is over the limit."""
    return f"the row is over {limit:,} bytes ([limits] max_row_bytes)"


def _append(
    columns: dict[str, list[Any]], record: Record, layout: TableLayout, names: _Names
) -> None:
    problem, values, extra = record.problem, record.values, None
    try:
        if problem is None and (passed := names.extra(values)):
            extra = as_json(passed)
        texts = {name: _as_text(values.get(name)) for name in layout.columns}
    except RecursionError:
        problem, texts = "nested too deeply", dict.fromkeys(layout.columns)
    columns["row_number"].append(record.row_number)
    columns["problem"].append(problem)
    columns["broken"].append(record.broken)
    columns["extra"].append(extra)
    for name, text in texts.items():
        columns[name].append(text)


def _table(columns: dict[str, list[Any]]) -> pa.Table:
    return pa.table(
        {
            name: pa.array(values, pa.int64() if name == "row_number" else pa.string())
            for name, values in columns.items()
        }
    )


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return as_json(value)
