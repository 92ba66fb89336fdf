"""Readers of label and word files, row by row, in bounded memory.

A format is a module with a `Reader` and an entry in `_READERS`; the file's suffix chooses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.settings import LimitSettings
from harmonizer_assets.core.base.sql import quoted
from harmonizer_assets.core.ingest.readers.base import ColumnTypes, Reader
from harmonizer_assets.core.ingest.readers.csv_files import CsvReader
from harmonizer_assets.core.ingest.readers.errors import readable
from harmonizer_assets.core.ingest.readers.layout import TableLayout
from harmonizer_assets.core.ingest.readers.lines import bounded_lines
from harmonizer_assets.core.ingest.readers.names import problem_of
from harmonizer_assets.core.ingest.readers.ndjson_files import NdjsonReader
from harmonizer_assets.core.ingest.readers.parquet_files import ParquetReader

__all__ = [
    "SUFFIXES",
    "ColumnTypes",
    "StagedFile",
    "TableLayout",
    "bounded_lines",
    "check_file",
    "column_names",
    "make_raw_table",
    "read_objects",
    "read_table",
    "readable",
    "stage_rows",
]

_READERS: Final[Mapping[str, Reader]] = {
    ".parquet": ParquetReader(),
    ".csv": CsvReader(),
    ".ndjson": NdjsonReader(),
    ".jsonl": NdjsonReader(),
}

SUFFIXES: Final = tuple(_READERS)

_LIMITS: Final = LimitSettings()


@dataclass(frozen=True)
class StagedFile:
    """What was read of a file.

    Attributes:
        rows: problematic ones included.
        types: DuckDB's types of the columns that pass through, where the file has types.
    """

    rows: int
    types: ColumnTypes


def check_file(path: Path, layout: TableLayout, limits: LimitSettings = _LIMITS) -> None:
    """Check that a file can be read at all and has the required columns.

    Raises:
        InputError: it is missing, empty, of another format, lacks a column, or has names of
            columns that cannot be told apart; the message names the file and the remedy.
    """
    reader = _reader(path)
    with readable(path):
        found = _column_names(reader, path, limits)
    missing = [name for name in layout.required if name not in found]
    if missing:
        raise InputError(
            f"{path}: not a {layout.name} file: it lacks {', '.join(missing)} "
            f"(found: {', '.join(found)[:200] or 'no columns'})"
            f"{reader.hint(found, layout.required)}"
        )
    problem = problem_of(found, layout)
    if problem is not None:
        raise InputError(f"{path}: {problem}")


def column_names(path: Path, limits: LimitSettings = _LIMITS) -> list[str]:
    """Read the names of a file's columns.

    Raises:
        InputError: it cannot be read.
    """
    with readable(path):
        return _column_names(_reader(path), path, limits)


def stage_rows(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    layout: TableLayout,
    limits: LimitSettings = _LIMITS,
) -> StagedFile:
    """Copy a file's rows as text into the table `raw_<layout name>` of a private database.

    Raises:
        InputError: the file cannot be read.
        FileNotFoundError: there is no such file.
    """
    table = make_raw_table(con, layout)
    with readable(path):
        types = _reader(path).stage(con, path, layout, table, limits)
    row = con.execute(f"SELECT count(*) FROM {table}").fetchone()
    return StagedFile(int(row[0]) if row else 0, types)


def make_raw_table(con: duckdb.DuckDBPyConnection, layout: TableLayout) -> str:
    """Make the empty table `raw_<layout name>`.

    It has `row_number` (1-based row of a Parquet file, 1-based line of others), `problem` (why
    the row cannot be split into columns, else null), the layout's columns as text, `extra` (the
    other columns as a JSON object, else null) and `broken` (an unsplittable row as JSON).

    Returns:
        The table's name.
    """
    columns = ", ".join(f"{quoted(name)} VARCHAR" for name in layout.columns)
    table = f"raw_{layout.name}"
    con.execute(
        f"CREATE OR REPLACE TABLE {table} "
        f"(row_number BIGINT, problem VARCHAR, {columns}, extra VARCHAR, broken VARCHAR)"
    )
    return table


def read_table(path: Path, required: Sequence[str]) -> pa.Table:
    """Read a small file as a whole.

    Returns:
        All columns; text where the format knows no types.

    Raises:
        InputError: it cannot be read, lacks a column, or holds a row that cannot be split.
    """
    layout = TableLayout("truth", tuple(required))
    check_file(path, layout)
    with readable(path):
        return _reader(path).read_table(path, layout, _LIMITS)


def read_objects(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Read a file with one JSON object per line, whatever its suffix.

    Yields:
        The 1-based number of the line, and the object.

    Raises:
        InputError: it cannot be read, or a line is no JSON object.
    """
    _require_content(path)
    with readable(path):
        for record in NdjsonReader().records(path, TableLayout("objects", ()), _LIMITS):
            if record.problem is not None:
                raise InputError(f"{path}: line {record.row_number}: {record.problem}")
            yield record.row_number, record.values


def _reader(path: Path) -> Reader:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: the suffix names the format: one of {', '.join(SUFFIXES)}")
    return reader


def _column_names(reader: Reader, path: Path, limits: LimitSettings) -> list[str]:
    _require_content(path)
    return reader.column_names(path, limits)


def _require_content(path: Path) -> None:
    if not path.is_file():
        kind = "a folder, not a file" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {kind}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty: write at least a header")
