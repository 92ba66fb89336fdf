"""Readers: Parquet, CSV and NDJSON files as rows of text, whatever is wrong with single rows.

Values are read as text and judged later, so that a bad value costs its row and never the file.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import duckdb
import pyarrow as pa

from harmonizer_assets.core.errors import InputError

SUFFIXES: Final = (".parquet", ".csv", ".ndjson", ".jsonl")

_ROWS_PER_CHUNK: Final = 50_000
_CHARACTERS_PER_CHUNK: Final = 1 << 24
_MAX_LINE: Final = 1 << 25
_MAX_LINES_PER_RECORD: Final = 1_000
_LINES_INSPECTED: Final = 1_000
_DELIMITERS: Final = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SHOWN_COLUMNS: Final = 30
_UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_NOT_UTF_8: Final = "not valid UTF-8: save the file as UTF-8"

# The limit of the standard library is global and, at 131,072 characters, would make a long text
# break its record instead of being quarantined as too long.
csv.field_size_limit(_MAX_LINE)


class Columns(NamedTuple):
    """What a table expects of its files.

    Attributes:
        required: columns that a file must have.
        optional: columns that are null where a file does not have them.
        derived: columns that are dropped since they are computed anew.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """Required and optional columns."""
        return self.required + self.optional


def check_file(path: Path, columns: Columns) -> tuple[str, ...]:
    """Check what can be told about a file without reading it all.

    Returns:
        The names of the columns found; of NDJSON, those in the first 1,000 lines.

    Raises:
        InputError: the file is missing, empty, of another format than its suffix says, or lacks a
            required column.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: the suffix names the format: one of {', '.join(SUFFIXES)}")
    with _readable(path):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give a file")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty (0 bytes); it needs at least its column names")
        if suffix == ".parquet":
            found = tuple(name for name, _ in _parquet_columns(path))
        elif suffix == ".csv":
            found = _csv_header(path, columns.required)
        else:
            found = _ndjson_keys(path)
    _require(path, columns.required, found)
    return found


def load_rows(
    con: duckdb.DuckDBPyConnection, path: Path, table: str, columns: Columns
) -> Iterator[int]:
    """Read a file into a new table of `con`; yields the number of rows so far.

    The table has the columns `row_number` (Parquet: 1-based row, else the line of the file),
    `broken` (why the row cannot be taken apart, else null), `line` (the text of a broken row), the
    known columns as text, and `extra` (a JSON object of all other columns, null when there are
    none). Memory is bounded whatever the size of the file.

    Raises:
        InputError: see `check_file`; or the file is damaged beyond its header.
    """
    found = check_file(path, columns)
    known = "".join(f", {quoted(name)} VARCHAR" for name in columns.known)
    con.execute(
        f"CREATE TABLE {quoted(table)} "
        f"(row_number BIGINT, broken VARCHAR, line VARCHAR{known}, extra JSON)"
    )
    with _readable(path):
        if path.suffix.lower() == ".parquet":
            yield _load_parquet(con, path, table, columns)
        elif path.suffix.lower() == ".csv":
            yield from _load_csv(con, path, table, columns, found)
        else:
            yield from _load_ndjson(con, path, table, columns)


def read_table(path: Path, required: Sequence[str]) -> pa.Table:
    """Read a whole file of which every row must be sound.

    Args:
        path: Parquet, CSV or NDJSON, by its suffix.
        required: columns that it must have.

    Returns:
        All columns; of CSV and NDJSON as text, empty CSV values as nulls.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds a broken row.
    """
    found = check_file(path, Columns(tuple(required)))
    with duckdb.connect() as con:
        if path.suffix.lower() == ".parquet":
            with _readable(path):
                return con.execute(_SELECT_PARQUET, [str(path)]).to_arrow_table()
        for _ in load_rows(
            con, path, "rows_read", Columns(tuple(required), _others(found, required))
        ):
            pass
        broken = con.execute(
            "SELECT row_number, broken FROM rows_read WHERE broken IS NOT NULL ORDER BY 1 LIMIT 1"
        ).fetchone()
        if broken:
            raise InputError(f"{path}: line {broken[0]}: {broken[1]}")
        empty = "''" if path.suffix.lower() == ".csv" else "NULL"
        selected = ", ".join(f"nullif({quoted(n)}, {empty}) AS {quoted(n)}" for n in found)
        return con.execute(f"SELECT {selected} FROM rows_read").to_arrow_table()


def quoted(identifier: str) -> str:
    """Quote an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors of reading a file into the user's terms; errors of writing pass."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read it") from error


def _others(found: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """The found columns that are not known; SQL does not tell upper from lower case."""
    folded = {name.lower() for name in known}
    return tuple(name for name in found if name.lower() not in folded)


def _require(path: Path, required: Sequence[str], found: Sequence[str], hint: str = "") -> None:
    missing = [name for name in required if name not in found]
    if not missing:
        return
    shown = ", ".join(found[:_SHOWN_COLUMNS]) + (", ..." if len(found) > _SHOWN_COLUMNS else "")
    raise InputError(
        f"{path}: column{'s' if len(missing) > 1 else ''} {', '.join(missing)} "
        f"missing; it has: {shown or 'none'}{hint}"
    )


# Parquet

_SELECT_PARQUET: Final = "SELECT * FROM read_parquet($1, hive_partitioning = false)"
_SCALAR_FREE: Final = ("STRUCT", "MAP", "UNION", "LIST")


def _parquet_columns(path: Path) -> list[tuple[str, str]]:
    with duckdb.connect() as con, _parquet_errors(path):
        description = con.execute(f"{_SELECT_PARQUET} LIMIT 0", [str(path)]).description
    return [(str(column[0]), str(column[1])) for column in description or ()]


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.FatalException):
        raise
    except duckdb.Error as error:
        # Only what the file is to blame for: a full disk is not its fault.
        if is_out_of_space(error):
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable Parquet file ({reason})") from error


def is_out_of_space(error: Exception) -> bool:
    """Whether DuckDB could not write for want of disk space."""
    text = str(error).lower()
    return any(
        phrase in text
        for phrase in ("no space", "disk full", "could not write", "max_temp_directory_size")
    )


def _load_parquet(con: duckdb.DuckDBPyConnection, path: Path, table: str, columns: Columns) -> int:
    types = dict(_parquet_columns(path))
    nested = [
        name
        for name in columns.known
        if types.get(name, "").endswith("]") or types.get(name, "").startswith(_SCALAR_FREE)
    ]
    if nested:
        raise InputError(f"{path}: column {nested[0]} holds {types[nested[0]]}, not single values")
    values = [
        f"CAST({quoted(name)} AS VARCHAR)" if name in types else "NULL" for name in columns.known
    ]
    extra, parameters = _extra_object(
        {name: quoted(name) for name in _others(types, columns.known + columns.derived)}
    )
    with _parquet_errors(path):
        con.execute(
            f"INSERT INTO {quoted(table)} "
            f"SELECT row_number() OVER (), NULL, NULL, {', '.join(values)}, {extra} "
            "FROM read_parquet($path, hive_partitioning = false)",
            {"path": str(path), **parameters},
        )
    return _count(con, table)


def _extra_object(expressions: dict[str, str]) -> tuple[str, dict[str, str]]:
    """SQL for a JSON object of these expressions, and the parameters that hold its keys."""
    if not expressions:
        return "NULL", {}
    parameters = {f"key{index}": name for index, name in enumerate(expressions)}
    members = ", ".join(
        f"${key}, {expression}"
        for key, expression in zip(parameters, expressions.values(), strict=True)
    )
    return f"json_object({members})", parameters


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone()
    return int(row[0]) if row else 0


# Lines of text


class _Lines:
    """Numbered lines of a text file; a record's lines can be given back to be read again."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self.taken: list[str] = []
        self.number = 0
        """The line that was read last, 1-based."""
        self.characters = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if len(self.taken) >= _MAX_LINES_PER_RECORD:
            raise csv.Error(f"a quoted value runs over {_MAX_LINES_PER_RECORD} lines")
        line = self._again.popleft() if self._again else self._file.readline(_MAX_LINE)
        if not line:
            raise StopIteration
        self.number += 1
        self.characters += len(line)
        self.taken.append(line)
        if len(line) == _MAX_LINE and not line.endswith("\n"):
            while (rest := self._file.readline(_MAX_LINE)) and not rest.endswith("\n"):
                pass
            raise csv.Error(f"a line is longer than {_MAX_LINE:,} characters")
        return line

    def start_record(self) -> int:
        """Forget the lines of the record before; the number of the next line."""
        self.taken.clear()
        return self.number + 1

    def give_back(self) -> None:
        """Have all lines of the record but its first read again."""
        self._again.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1


@contextmanager
def _open_text(path: Path, newline: str) -> Iterator[TextIO]:
    with path.open("rb") as start:
        if start.read(2) in _UTF_16_MARKS:
            raise InputError(f"{path}: is UTF-16; save it as UTF-8")
    # Bytes that are not UTF-8 become surrogates, which are found when a chunk is encoded.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline) as file:
        yield file


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str) -> str:
    """A line as it may be stored, its bytes that are not UTF-8 read as Latin-1."""
    if _is_utf8(text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


# CSV


class _Record(NamedTuple):
    line_number: int
    fields: Sequence[str]
    broken: str | None
    line: str | None


def _csv_records(lines: _Lines, width: int | None) -> Iterator[_Record]:
    """Take lines apart; of a broken record only the first line is lost.

    A stray quote swallows lines until the next quote. They are given back and read as records of
    their own, so a broken line never takes sound ones with it.
    """
    reader = csv.reader(lines, strict=True)
    while True:
        line_number = lines.start_record()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            broken = f"broken CSV: {error}"
        else:
            if not fields:
                continue
            if width is None or len(fields) == width:
                yield _Record(line_number, fields, None, None)
                continue
            broken = f"{len(fields)} columns instead of {width}"
        yield _Record(line_number, (), broken, lines.taken[0].rstrip("\r\n"))
        lines.give_back()


def _csv_header(path: Path, required: Sequence[str]) -> tuple[str, ...]:
    with _open_text(path, newline="") as file:
        header = next(_csv_records(_Lines(file), None), None)
    if header is None:
        raise InputError(f"{path}: holds nothing but empty lines; it needs its column names")
    if header.broken or not all(_is_utf8(name) for name in header.fields):
        raise InputError(f"{path}: line {header.line_number}: {header.broken or _NOT_UTF_8}")
    names = tuple(header.fields)
    for delimiter, name in _DELIMITERS.items():
        split = [part.strip().strip('"') for part in delimiter.join(names).split(delimiter)]
        if len(set(required) & set(split)) > len(set(required) & set(names)):
            hint = f"; its columns seem to be separated by {name}: save it with commas"
            _require(path, required, names, hint)
    _require(path, required, names)
    folded = [name.lower() for name in names]
    doubled = sorted({name for name in names if folded.count(name.lower()) > 1})
    if doubled:
        raise InputError(f"{path}: column {doubled[0]!r} stands more than once: rename one of them")
    return names


def _load_csv(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    table: str,
    columns: Columns,
    header: tuple[str, ...],
) -> Iterator[int]:
    cells = {name: f"c{index}" for index, name in enumerate(header)}
    extra, parameters = _extra_object(
        {
            name: f"nullif({cells[name]}, '')"
            for name in _others(header, columns.known + columns.derived)
        }
    )
    values = ", ".join(cells.get(name, "NULL") for name in columns.known)
    insert = (
        f"INSERT INTO {quoted(table)} SELECT row_number, broken, line, {values}, "
        f"CASE WHEN broken IS NULL THEN {extra} END FROM chunk"
    )
    done = 0
    with _open_text(path, newline="") as file:
        lines = _Lines(file)
        records = _csv_records(lines, len(header))
        next(records)
        while chunk := _next_chunk(records, lines):
            con.register("chunk", _csv_table(chunk, tuple(cells.values())))
            con.execute(insert, parameters)
            con.unregister("chunk")
            done += len(chunk)
            yield done


def _next_chunk(records: Iterator[_Record], lines: _Lines) -> list[_Record]:
    lines.characters = 0
    chunk: list[_Record] = []
    for record in islice(records, _ROWS_PER_CHUNK):
        chunk.append(record)
        if lines.characters > _CHARACTERS_PER_CHUNK:
            break
    return chunk


def _csv_table(chunk: list[_Record], cells: tuple[str, ...]) -> pa.Table:
    try:
        return _csv_arrays(chunk, cells)
    except UnicodeEncodeError:
        return _csv_arrays([_checked(record) for record in chunk], cells)


def _checked(record: _Record) -> _Record:
    if record.line is not None:
        return record._replace(line=_shown(record.line))
    if all(_is_utf8(field) for field in record.fields):
        return record
    line = ",".join(_shown(field) for field in record.fields)
    return _Record(record.line_number, (), _NOT_UTF_8, line)


def _csv_arrays(chunk: list[_Record], cells: tuple[str, ...]) -> pa.Table:
    nothing = (None,) * len(cells)
    transposed = zip(*(record.fields or nothing for record in chunk), strict=True)
    return pa.table(
        {
            "row_number": pa.array([record.line_number for record in chunk], pa.int64()),
            "broken": pa.array([record.broken for record in chunk], pa.string()),
            "line": pa.array([record.line for record in chunk], pa.string()),
            **{
                cell: pa.array(values, pa.string())
                for cell, values in zip(cells, transposed, strict=True)
            },
        }
    )


# NDJSON

_PARSED: Final = """
SELECT row_number, broken, line,
    CASE WHEN broken IS NULL AND json_type(document) = 'OBJECT' THEN document END AS document
FROM (SELECT row_number, broken, line, TRY_CAST(line AS JSON) AS document FROM chunk)
"""


def _ndjson_keys(path: Path) -> tuple[str, ...]:
    with _open_text(path, newline="\n") as file, duckdb.connect() as con:
        chunk = _next_lines(_Lines(file), _LINES_INSPECTED)
        con.register("chunk", _line_table(chunk))
        keys, objects = con.execute(
            "SELECT list(DISTINCT key ORDER BY key), count(*) FROM "
            f"(SELECT unnest(json_keys(document)) AS key FROM ({_PARSED}))"
        ).fetchall()[0]
    if chunk and not objects:
        raise InputError(
            f"{path}: not NDJSON: none of its first lines is a JSON object (one object per line; "
            "one JSON array over the whole file is another format)"
        )
    return tuple(keys or ())


def _load_ndjson(
    con: duckdb.DuckDBPyConnection, path: Path, table: str, columns: Columns
) -> Iterator[int]:
    paths = [_pointer(name) for name in columns.known]
    values = ", ".join(f"values_read[{i + 1}]" for i in range(len(paths)))
    # RFC 7396: a null in the patch removes the member, which leaves the extra columns.
    known = "{" + ", ".join(f'"{name}": null' for name in columns.known + columns.derived) + "}"
    insert = f"""
        INSERT INTO {quoted(table)}
        SELECT row_number,
            CASE WHEN broken IS NOT NULL THEN broken
                WHEN document IS NULL THEN 'not a JSON object'
                WHEN list_has_any(kinds, ['OBJECT', 'ARRAY']) THEN
                    $names[list_position(list_transform(kinds, lambda kind:
                        coalesce(kind IN ('OBJECT', 'ARRAY'), false)), true)]
                    || ' is not a single value' END AS broken,
            CASE WHEN broken IS NOT NULL THEN line END,
            {values}, nullif(json_merge_patch(document, $known::JSON)::VARCHAR, '{{}}')::JSON
        FROM (
            SELECT *, json_extract_string(document, $paths) AS values_read,
                json_type(document, $paths) AS kinds
            FROM ({_PARSED})
        )
    """
    parameters: dict[str, Any] = {"names": list(columns.known), "paths": paths, "known": known}
    done = 0
    with _open_text(path, newline="\n") as file:
        lines = _Lines(file)
        while chunk := _next_lines(lines, _ROWS_PER_CHUNK):
            con.register("chunk", _line_table(chunk))
            con.execute(insert, parameters)
            con.unregister("chunk")
            done += len(chunk)
            yield done


def _next_lines(lines: _Lines, limit: int) -> list[_Record]:
    lines.characters = 0
    chunk: list[_Record] = []
    while len(chunk) < limit and lines.characters <= _CHARACTERS_PER_CHUNK:
        number = lines.start_record()
        try:
            line = next(lines)
        except StopIteration:
            break
        except csv.Error as error:
            chunk.append(_Record(number, (), str(error), lines.taken[0]))
        else:
            if line.strip():
                chunk.append(_Record(number, (), None, line.rstrip("\r\n")))
    return chunk


def _line_table(chunk: list[_Record]) -> pa.Table:
    try:
        return _csv_arrays(chunk, ())
    except UnicodeEncodeError:
        return _csv_arrays(
            [
                record._replace(
                    line=_shown(record.line or ""),
                    broken=record.broken or (None if _is_utf8(record.line or "") else _NOT_UTF_8),
                )
                for record in chunk
            ],
            (),
        )


def _pointer(name: str) -> str:
    """The JSON pointer (RFC 6901) of a member."""
    return "/" + name.replace("~", "~0").replace("/", "~1")
