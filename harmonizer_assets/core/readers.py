"""Readers of label and word files: Parquet, CSV and NDJSON, row by row, in bounded memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.errors import InputError

SUFFIXES: Final = (".parquet", ".csv", ".ndjson", ".jsonl")
_ROWS_PER_BATCH: Final = 50_000
_MAX_FIELD: Final = 64 * 1024 * 1024
_OTHER_DELIMITERS: Final = {";": "semicolon", "\t": "tab", "|": "pipe"}


@dataclass(frozen=True)
class TableLayout:
    """The columns that a file of one kind has.

    Attributes:
        name: `words` or `labels`.
        required: columns that the file must have.
        optional: columns that are null where the file lacks them.
        derived: columns of exports that are passed over, since they are computed anew.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the layout."""
        return self.required + self.optional


def check_file(path: Path, layout: TableLayout) -> None:
    """See whether a file can be read at all and has the required columns.

    Raises:
        InputError: it is missing, empty, of another format, or lacks a column; the message names
            the file and the remedy.
    """
    found = _column_names(path)
    missing = [name for name in layout.required if name not in found]
    if not missing:
        return
    hint = ""
    for delimiter, name in _OTHER_DELIMITERS.items():
        if path.suffix.lower() == ".csv" and any(
            column in "".join(found).split(delimiter) for column in layout.required
        ):
            hint = f"; it looks {name}-separated: write it with commas"
    raise InputError(
        f"{path}: not a {layout.name} file: it lacks {', '.join(missing)} "
        f"(found: {', '.join(found)[:200] or 'no columns'}){hint}"
    )


def stage_rows(con: duckdb.DuckDBPyConnection, path: Path, layout: TableLayout) -> int:
    """Copy a file's rows as text into the table `raw_<layout name>` of a private database.

    The table has `row_number` (1-based row of a Parquet file, 1-based line of others), `problem`
    (why the row cannot be split into columns, else null), the layout's columns as text, `extra`
    (the other columns as a JSON object, else null) and `broken` (an unsplittable row as JSON).

    Returns:
        The number of rows, problematic ones included.

    Raises:
        InputError: the file cannot be read.
    """
    columns = ", ".join(f"{_quoted(name)} VARCHAR" for name in layout.columns)
    table = f"raw_{layout.name}"
    con.execute(
        f"CREATE OR REPLACE TABLE {table} "
        f"(row_number BIGINT, problem VARCHAR, {columns}, extra VARCHAR, broken VARCHAR)"
    )
    if path.suffix.lower() == ".parquet":
        _stage_parquet(con, path, layout, table)
    else:
        records = _csv_records if path.suffix.lower() == ".csv" else _ndjson_records
        for batch in _batches(records(path), layout):
            con.register("staged_batch", batch)
            con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM staged_batch")
            con.unregister("staged_batch")
    row = con.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0


def read_table(path: Path, required: Sequence[str]) -> pa.Table:
    """Read a small file as a whole.

    Returns:
        All columns; text where the format knows no types.

    Raises:
        InputError: it cannot be read, lacks a column, or holds a row that cannot be split.
    """
    check_file(path, TableLayout("truth", tuple(required)))
    if path.suffix.lower() == ".parquet":
        return pq.read_table(path)
    records = _csv_records if path.suffix.lower() == ".csv" else _ndjson_records
    rows = []
    for record in records(path):
        if record.problem is not None:
            raise InputError(f"{path}: line {record.row_number}: {record.problem}")
        rows.append(record.values)
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(required)
    return pa.table(
        {
            name: pa.array([_as_text(row.get(name)) or None for row in rows], pa.string())
            for name in names
        }
    )


@dataclass(frozen=True)
class _Record:
    """One row of a text file."""

    row_number: int
    values: dict[str, Any]
    problem: str | None = None
    broken: str | None = None


def _column_names(path: Path) -> list[str]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: the suffix names the format: one of {', '.join(SUFFIXES)}")
    try:
        if not path.is_file():
            kind = "a folder, not a file" if path.is_dir() else "no such file"
            raise InputError(f"{path}: {kind}")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty: write at least a header")
        if suffix == ".parquet":
            return list(pq.read_schema(path).names)
        if suffix == ".csv":
            return _csv_header(path)
        return _ndjson_names(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file, or a damaged one") from error


def _csv_header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header: list[str] = next(_csv_reader(file), [])
    if any(_is_damaged(name) for name in header):
        raise InputError(f"{path}: line 1: the header is not UTF-8: save the file as UTF-8")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path}: line 1: column {twice[0]} stands twice")
    return header


def _ndjson_names(path: Path) -> list[str]:
    """The columns of the first readable line; later lines may lack some."""
    for record in _ndjson_records(path):
        if record.problem is None:
            return list(record.values)
    raise InputError(f"{path}: no line is a JSON object: write one object per line")


def _csv_reader(file: Any) -> Any:
    csv.field_size_limit(_MAX_FIELD)
    return csv.reader(file, strict=True)


def _csv_records(path: Path) -> Iterator[_Record]:
    header = _csv_header(path)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = _csv_reader(file)
        next(reader, None)
        while True:
            number = reader.line_num + 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                yield _Record(number, {}, f"not valid CSV: {error}", "{}")
                continue
            if fields is None:
                return
            if not fields:
                continue
            problem = None
            if len(fields) != len(header):
                problem = f"{len(fields)} columns where the header has {len(header)}"
            elif any(_is_damaged(field) for field in fields):
                problem = "not UTF-8: save the file as UTF-8"
            if problem is None:
                yield _Record(number, dict(zip(header, fields, strict=True)))
            else:
                yield _Record(number, {}, problem, _as_json(_repaired(fields)))


def _ndjson_records(path: Path) -> Iterator[_Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                text = line.decode("utf-8", "replace").rstrip("\n")
                yield _Record(number, {}, "not UTF-8: save the file as UTF-8", _as_json([text]))
                continue
            except (ValueError, RecursionError) as error:
                text = line.decode("utf-8").rstrip("\n")
                yield _Record(number, {}, f"not valid JSON: {error}", _as_json([text]))
                continue
            if isinstance(values, dict):
                if b"\\u" in line and _is_damaged(_as_json(values)):
                    yield _Record(number, {}, "holds half of a surrogate pair", "{}")
                else:
                    yield _Record(number, values)
            else:
                yield _Record(number, {}, "not a JSON object", _as_json([values]))


def _batches(records: Iterator[_Record], layout: TableLayout) -> Iterator[pa.Table]:
    names = ("row_number", "problem", *layout.columns, "extra", "broken")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    own = frozenset((*layout.columns, *layout.derived))
    for record in records:
        columns["row_number"].append(record.row_number)
        columns["problem"].append(record.problem)
        columns["broken"].append(record.broken)
        for name in layout.columns:
            columns[name].append(_as_text(record.values.get(name)))
        extra = {
            name: value
            for name, value in record.values.items()
            if name not in own and value is not None
        }
        columns["extra"].append(_as_json(extra) if extra else None)
        if len(columns["row_number"]) >= _ROWS_PER_BATCH:
            yield _table(columns)
            columns = {name: [] for name in names}
    if columns["row_number"]:
        yield _table(columns)


def _table(columns: dict[str, list[Any]]) -> pa.Table:
    return pa.table(
        {
            name: pa.array(values, pa.int64() if name == "row_number" else pa.string())
            for name, values in columns.items()
        }
    )


def _stage_parquet(
    con: duckdb.DuckDBPyConnection, path: Path, layout: TableLayout, table: str
) -> None:
    names = _column_names(path)
    own = [name for name in layout.columns if name in names]
    passed_over = {*layout.columns, *layout.derived, "file_row_number"}
    extra = [name for name in names if name not in passed_over]
    fields = ", ".join(f"{_quoted(name)} := {_quoted(name)}" for name in extra)
    extra_json = f"to_json(struct_pack({fields}))::VARCHAR" if extra else "NULL"
    columns = ", ".join(f"{_quoted(name)}::VARCHAR AS {_quoted(name)}" for name in own)
    try:
        con.execute(
            f"INSERT INTO {table} BY NAME SELECT file_row_number + 1 AS row_number, {columns}, "
            f"{extra_json} AS extra FROM read_parquet($1, file_row_number = true)",
            [str(path)],
        )
    except (duckdb.InvalidInputException, duckdb.IOException, duckdb.ConversionException) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: a damaged Parquet file ({first})") from error


def _is_damaged(text: str) -> bool:
    """Whether the text holds surrogates: undecodable bytes, or half of a JSON escape pair."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _repaired(fields: list[str]) -> list[str]:
    return [field.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for field in fields]


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return _as_json(value)


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
