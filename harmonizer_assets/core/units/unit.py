"""Units: chunks of whole merchants at one stage, each a bundle that is named by its content."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.errors import StoreError

_META: Final = b"harmonizer"
NAME_IN_TEXT: Final = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Bundle:
    """Tables that travel together as one Parquet file, and what is said about them.

    The file has one row, and each table is a column in it: a list of structures. So one atomic
    write stores them all, and any reader of Parquet can unnest them.

    Attributes:
        tables: by name.
        meta: JSON data about them.
    """

    tables: Mapping[str, pa.Table]
    meta: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """Write the bundle; equal bundles give equal bytes."""
        columns = {name: _nested(table) for name, table in sorted(self.tables.items())}
        file = pa.table(columns).replace_schema_metadata(
            {_META: json.dumps(self.meta, sort_keys=True).encode()}
        )
        sink = io.BytesIO()
        pq.write_table(file, sink, compression="lz4")
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Bundle:
        """Read a bundle that `to_bytes` has written.

        Raises:
            StoreError: it is damaged.
        """
        try:
            file = pq.read_table(pa.BufferReader(content))
            meta = json.loads((file.schema.metadata or {})[_META])
            tables = {name: _flat(file[name]) for name in file.column_names}
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise StoreError(f"a bundle of a unit is damaged: {error}") from error
        return cls(tables, meta)


def name_of(content: bytes) -> str:
    """Name content by its hash: 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def is_name(text: object) -> bool:
    """Say whether something has the form of a unit's name."""
    return isinstance(text, str) and NAME_IN_TEXT.fullmatch(text) is not None


def _nested(table: pa.Table) -> pa.ListArray:
    [batch] = table.combine_chunks().to_batches() or [
        pa.RecordBatch.from_pylist([], schema=table.schema)
    ]
    offsets = pa.array([0, batch.num_rows], pa.int32())
    return pa.ListArray.from_arrays(offsets, batch.to_struct_array())


def _flat(column: pa.ChunkedArray) -> pa.Table:
    rows = column.combine_chunks().flatten()
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(rows)])
