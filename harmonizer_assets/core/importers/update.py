"""An import that is repeated after its source has changed updates a home, and never doubles.

The label is a part of the key of a label, so one that the source calls otherwise now would stand
beside the one from before. What an earlier import of the same images brought, and the present one
does not, is marked as deleted in the batch. Labels that came in another way stay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import Inbox
from harmonizer_assets.core.ingest.marked import DELETED
from harmonizer_assets.core.records.label import LABEL_KEY, WORD_KEY
from harmonizer_assets.core.store.warehouse import Connection, Warehouse

_KEYS: Final = {"words": WORD_KEY, "labels": LABEL_KEY}
_HELD: Final = """
SELECT {key} FROM {table} SEMI JOIN imported USING (image_id)
WHERE extra->>'imported_by' = $format
"""


def mark_what_is_gone(home: Home, folder: Path, format_name: str) -> tuple[int, int]:
    """Add rows to the tables of an import that delete what is not in its source any more.

    Args:
        home: into which it is imported.
        folder: with `words.parquet` and `labels.parquet`.
        format_name: of the import; what other formats have brought stays.

    Returns:
        The number of words and of labels that are gone.
    """
    counts = [_mark(home, folder / f"{table}.parquet", table, format_name) for table in _KEYS]
    return counts[0], counts[1]


def _mark(home: Home, file: Path, table: str, format_name: str) -> int:
    key = _KEYS[table]
    words = file.with_name("words.parquet")
    images = pq.read_table(words, columns=["image_id"]).group_by("image_id").aggregate([])
    held = _held(home, table, images, format_name)
    if not held.num_rows:
        return 0
    gone = _without(held, pq.read_table(file, columns=[*key]))
    if gone.num_rows:
        _append(file, gone)
    return int(gone.num_rows)


def _held(home: Home, table: str, images: pa.Table, format_name: str) -> pa.Table:
    """Read what earlier imports have brought: what is ingested, and what waits in the inbox."""
    key = _KEYS[table]

    def read(con: Connection) -> pa.Table:
        con.register("imported", images)
        sql = _HELD.format(key=", ".join(key), table=table)
        found = con.execute(sql, {"format": format_name}).to_arrow_table()
        con.unregister("imported")
        return found

    parts = [Warehouse(home).read(read)] if home.database.exists() else []
    for batch in Inbox(home).pending():
        waiting = batch.words if table == "words" else batch.labels
        if batch.submitted and waiting is not None and waiting.suffix == ".parquet":
            parts += _of_batch(waiting, key, images, format_name)
    schema = pa.schema([(name, pa.int64()) for name in key])
    for text in ("image_id", "label"):
        if text in key:
            place = schema.get_field_index(text)
            schema = schema.set(place, pa.field(text, pa.string()))
    return pa.concat_tables([schema.empty_table(), *(part.cast(schema) for part in parts)])


def _of_batch(
    file: Path, key: tuple[str, ...], images: pa.Table, format_name: str
) -> list[pa.Table]:
    if "imported_by" not in pq.read_schema(file).names:
        return []
    rows = pq.read_table(file, columns=[*key], filters=[("imported_by", "=", format_name)])
    return [rows.join(images, "image_id", join_type="left semi")]


def _without(held: pa.Table, new: pa.Table) -> pa.Table:
    return (
        held.join(new, held.column_names, join_type="left anti")
        .group_by(held.column_names)
        .aggregate([])
    )


def _append(file: Path, gone: pa.Table) -> None:
    """Write a table again with rows that are marked as deleted at its end."""
    partial = file.with_suffix(".marked")
    with pq.ParquetFile(file) as old:
        schema = old.schema_arrow.append(pa.field(DELETED, pa.string()))
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for batch in old.iter_batches():
                columns = [*batch.columns, pa.nulls(batch.num_rows, pa.string())]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            writer.write_table(_marked(gone, schema))
    partial.replace(file)


def _marked(gone: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for column in schema:
        if column.name in gone.column_names:
            columns.append(gone[column.name])
        elif column.name == DELETED:
            columns.append(pa.array(["true"] * gone.num_rows, pa.string()))
        else:
            columns.append(pa.nulls(gone.num_rows, column.type))
    return pa.table(columns, schema=schema)
