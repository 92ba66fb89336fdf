"""Parquet files, read in slices of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.settings import LimitSettings
from harmonizer_assets.core.base.sql import literal, quoted
from harmonizer_assets.core.ingest.readers.base import (
    NOT_UTF8,
    ColumnTypes,
    Reader,
    as_json,
    too_large,
    too_long,
)
from harmonizer_assets.core.ingest.readers.layout import TableLayout
from harmonizer_assets.core.ingest.readers.names import named
from harmonizer_assets.core.ingest.readers.sizes import Sizes, value_bytes
from harmonizer_assets.core.store.typed_json import json_of

_BUFFER: Final = 1 << 20
_ROWS_PER_BATCH: Final = 16_384


class ParquetReader(Reader):
    """Reads Parquet files; row numbers are those within the file, from 1."""

    def column_names(self, path: Path, limits: LimitSettings) -> list[str]:
        """Read the names of the schema.

        Raises:
            InputError: the file is not Parquet or is damaged.
        """
        del limits
        try:
            return named(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, FileNotFoundError | PermissionError):
                raise
            raise InputError(f"{path}: not a Parquet file, or a damaged one") from error

    def stage(
        self,
        con: duckdb.DuckDBPyConnection,
        path: Path,
        layout: TableLayout,
        table: str,
        limits: LimitSettings,
    ) -> ColumnTypes:
        """Insert a file's rows, as many at a time as may be in flight."""
        names = self.column_names(path, limits)
        statement: _Statement | None = None
        row = 0
        for batch in _batches(path, names, limits):
            slices = _Slices.of(batch, layout, limits)
            statement = statement or _Statement.of(con, slices.columns, layout, table)
            for place in slices.places():
                statement.insert(con, slices.chunk(place, row))
            row += batch.num_rows
        return statement.types if statement else {}

    def read_table(self, path: Path, layout: TableLayout, limits: LimitSettings) -> pa.Table:
        """Read a small file as a whole, with its types."""
        del layout, limits
        return pq.read_table(path)


def _batches(path: Path, names: Sequence[str], limits: LimitSettings) -> Iterator[pa.RecordBatch]:
    """Read a file in batches of rows, with equal texts once per batch.

    A dictionary takes little however often its values are used, so what is too large is found
    before it is made.
    """
    metadata = pq.read_metadata(path)
    leaves = [metadata.schema.column(place) for place in range(len(metadata.schema))]
    for group in range(metadata.num_row_groups):
        _check_row_group(path, metadata.row_group(group), limits.max_column_chunk_bytes)
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    with pq.ParquetFile(path, read_dictionary=texts, buffer_size=_BUFFER) as file:
        for batch in file.iter_batches(batch_size=_rows_per_batch(metadata, limits)):
            yield pa.RecordBatch.from_arrays(batch.columns, names=list(names))


def _check_row_group(path: Path, group: Any, limit: int) -> None:
    for place in range(group.num_columns):
        column = group.column(place)
        if column.total_uncompressed_size > limit:
            raise InputError(
                f"{path}: column {column.path_in_schema} takes "
                f"{column.total_uncompressed_size:,} bytes in one row group; the limit is "
                f"{limit:,}: write smaller row groups, or raise [limits] max_column_chunk_bytes"
            )


def _rows_per_batch(metadata: Any, limits: LimitSettings) -> int:
    """Return how many rows may be in memory at once, by what the file says of its sizes."""
    widest = max((leaf.length for leaf in _leaves(metadata)), default=0)
    for place in range(metadata.num_row_groups):
        group = metadata.row_group(place)
        widest = max(widest, group.total_byte_size // max(1, group.num_rows))
    return max(1, min(_ROWS_PER_BATCH, limits.max_bytes_in_flight // max(1, widest)))


def _leaves(metadata: Any) -> list[Any]:
    return [metadata.schema.column(place) for place in range(len(metadata.schema))]


@dataclass(frozen=True)
class _Slices:
    """A batch of rows with what is wrong with each of them.

    Attributes:
        columns: the columns by name.
        problems: n reasons, or None where a row can be used.
        sizes: n sizes in bytes.
        limit: bytes in flight.
    """

    columns: Mapping[str, pa.Array]
    problems: list[str | None]
    sizes: Sizes
    limit: int

    @classmethod
    def of(cls, batch: pa.RecordBatch, layout: TableLayout, limits: LimitSettings) -> _Slices:
        """Check the values of a batch; what is too large or not UTF-8 is left out.

        Raises:
            ArrowInvalid: the batch is damaged.
        """
        problems: list[str | None] = [None] * batch.num_rows
        columns = {}
        sizes = np.zeros(batch.num_rows, np.int64)
        for name, raw in zip(batch.schema.names, batch.columns, strict=True):
            column, damaged = _readable(raw, name in layout.columns)
            _note(problems, damaged, f"{name} is {NOT_UTF8}")
            taken = value_bytes(column)
            over = taken > limits.max_value_bytes
            for row in np.flatnonzero(over):
                _note_one(
                    problems, int(row), too_large(name, int(taken[row]), limits.max_value_bytes)
                )
            columns[name] = _without(column, over)
            sizes += np.where(over, 0, taken)
        over = sizes > limits.max_row_bytes
        _note(problems, over, too_long(limits.max_row_bytes))
        if over.any():
            columns = {
                name: column if name in layout.columns else _without(column, over)
                for name, column in columns.items()
            }
        return cls(columns, problems, sizes, limits.max_bytes_in_flight)

    def places(self) -> Iterator[slice]:
        """Cut the rows so that each part is as large as may be in flight."""
        begin, upto = 0, np.cumsum(self.sizes)
        while begin < len(upto):
            before = upto[begin - 1] if begin else 0
            end = max(begin + 1, int(np.searchsorted(upto, before + self.limit, side="right")))
            yield slice(begin, end)
            begin = end

    def chunk(self, place: slice, before: int) -> pa.Table:
        """Return some of the rows; `before` rows of the file come before the batch."""
        count = place.stop - place.start
        numbers = np.arange(before + place.start + 1, before + place.stop + 1)
        arrays = {
            name: _plain(column.slice(place.start, count)) for name, column in self.columns.items()
        }
        problems = pa.array(self.problems[place], pa.string())
        return _numbered(arrays, pa.array(numbers), problems)


def _plain(column: pa.Array) -> pa.Array:
    """Spell out the dictionaries in lists and structures: DuckDB fails on some of them."""
    if not pa.types.is_nested(column.type):
        return column
    kind = _without_dictionaries(column.type)
    return column if kind == column.type else pa.array(column.to_pylist(), kind)


def _without_dictionaries(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_dictionaries(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_without_dictionaries(kind.key_type), _without_dictionaries(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_without_dictionaries(kind.value_type), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_without_dictionaries(kind.value_type))
    return kind


def _numbered(columns: Mapping[str, pa.Array], numbers: pa.Array, problems: pa.Array) -> pa.Table:
    """Name columns by their places, so that no name of a file meets one of ours."""
    return pa.table(
        [*columns.values(), numbers, problems],
        names=[*(f"c{place}" for place in range(len(columns))), "row_number", "problem"],
    )


def _note(problems: list[str | None], rows: npt.NDArray[np.bool_], problem: str) -> None:
    for row in np.flatnonzero(rows):
        _note_one(problems, int(row), problem)


def _note_one(problems: list[str | None], row: int, problem: str) -> None:
    problems[row] = problems[row] or problem


def _without(column: pa.Array, rows: npt.NDArray[np.bool_]) -> pa.Array:
    """Replace values by null."""
    if not rows.any():
        return column
    return column.take(pa.array(np.arange(len(column)), mask=rows))


def _readable(column: pa.Array, is_own: bool) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """Bring a column into a type that DuckDB knows.

    Args:
        column: as it was read.
        is_own: whether it is one of the layout, which holds text, numbers as text included.

    Returns:
        The column, and for each row whether its text is not UTF-8.

    Raises:
        ArrowInvalid: the column is damaged.
    """
    none = np.zeros(len(column), np.bool_)
    kind = column.type
    if pa.types.is_dictionary(kind) and (is_own or not pa.types.is_binary(kind.value_type)):
        return _as_text(column)
    column.validate(full=True)
    if is_own and (pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind)):
        return _as_text(column.cast(pa.binary()).dictionary_encode())
    if pa.types.is_float16(kind):
        return column.cast(pa.float32()), none
    if pa.types.is_decimal256(kind):
        return column.cast(pa.string()), none
    return column, none


def _as_text(column: pa.DictionaryArray) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    values = column.dictionary.cast(pa.binary())
    damaged = np.zeros(len(column), np.bool_)
    try:
        texts = values.cast(pa.string())
    except pa.ArrowInvalid:
        decoded = [None if value is None else _decoded(value) for value in values.to_pylist()]
        texts = pa.array(decoded, pa.string())
        bad = np.append([text is None for text in decoded], False)
        damaged = bad[column.indices.fill_null(len(bad) - 1).to_numpy(zero_copy_only=False)]
    return pa.DictionaryArray.from_arrays(column.indices, texts), damaged


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True)
class _Statement:
    """The statement that inserts chunks of one file.

    Attributes:
        sql: inserts the rows of `staged_chunk`.
        types: DuckDB's types of the columns that pass through.
    """

    sql: str
    types: ColumnTypes

    @classmethod
    def of(
        cls,
        con: duckdb.DuckDBPyConnection,
        columns: Mapping[str, pa.Array],
        layout: TableLayout,
        table: str,
    ) -> _Statement:
        """Write the statement for columns of these names and types."""
        empty = [_plain(column.slice(0, 0)) for column in columns.values()]
        con.register("staged_chunk", _numbered(dict(zip(columns, empty, strict=True)), *_NOTHING))
        described = con.execute("DESCRIBE staged_chunk").fetchall()
        types = dict(zip(columns, (row[1] for row in described), strict=False))
        con.unregister("staged_chunk")
        places = {name: f"c{place}" for place, name in enumerate(columns)}
        own = [name for name in layout.columns if name in places]
        extra = [name for name in places if name not in {*layout.columns, *layout.derived}]
        casts = "".join(f", {places[name]}::VARCHAR AS {quoted(name)}" for name in own)
        members = ", ".join(_member(name, places[name], types[name]) for name in extra)
        json = f"'{{' || nullif(concat_ws(',', {members}), '') || '}}'" if extra else "NULL"
        return cls(
            f"INSERT INTO {table} BY NAME SELECT row_number, problem{casts}, "
            f"CASE WHEN problem IS NULL THEN {json} END AS extra FROM staged_chunk",
            {name: types[name] for name in extra},
        )

    def insert(self, con: duckdb.DuckDBPyConnection, chunk: pa.Table) -> None:
        """Insert the rows of a chunk."""
        con.register("staged_chunk", chunk)
        con.execute(self.sql)
        con.unregister("staged_chunk")


_NOTHING: Final = (pa.array([], pa.int64()), pa.array([], pa.string()))


def _member(name: str, column: str, type_name: str) -> str:
    """Write the SQL of a member of a JSON object; null, so that it is left out, for null."""
    return f"{literal(as_json(name) + ':')} || {json_of(column, type_name)}::VARCHAR"
