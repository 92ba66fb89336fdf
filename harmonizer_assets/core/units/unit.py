"""Units: chunks of whole merchants at one stage, each a bundle that is named by its input."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.errors import StoreError

_META: Final = b"harmonizer"
_NAME: Final = "unit"
"""What is said in a bundle that holds more than its name depends on: that name."""
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
        texts = [
            f"{name}.list.element.{field.name}"
            for name, table in self.tables.items()
            for field in table.schema
            if pa.types.is_string(field.type)
        ]
        pq.write_table(
            file,
            sink,
            compression="lz4",
            # Whoever reads a bundle reads all of it, and numbers hardly repeat themselves.
            use_dictionary=texts,
            write_statistics=False,
            write_page_checksum=True,
        )
        return sink.getvalue()

    def named(self, apart: Collection[str] = ()) -> tuple[str, bytes]:
        """Name the bundle, and write it with its name.

        Args:
            apart: tables that the name does not depend on: answers of an approximate index, which
                differ a little each time, to questions that follow from the rest.

        Returns:
            The name, a hash of what the unit's result depends on, and the bundle's bytes.
        """
        rest = {name: table for name, table in self.tables.items() if name not in apart}
        content = Bundle(rest, self.meta).to_bytes()
        name = name_of(content)
        if len(rest) < len(self.tables):
            content = Bundle(self.tables, {**self.meta, _NAME: name}).to_bytes()
        return name, content

    @classmethod
    def of_unit(cls, name: str, content: bytes) -> Bundle:
        """Read the bundle that `named` has given this name.

        Raises:
            StoreError: it is damaged, or that of another unit.
        """
        bundle = cls.from_bytes(content)
        if bundle.meta.get(_NAME) != name and name_of(content) != name:
            raise StoreError(f"the bundle of unit {name[:12]} is that of another one")
        return bundle

    @classmethod
    def from_bytes(cls, content: bytes) -> Bundle:
        """Read a bundle that `to_bytes` has written.

        Raises:
            StoreError: it is damaged.
        """
        try:
            file = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
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
