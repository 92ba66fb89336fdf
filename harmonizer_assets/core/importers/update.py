"""An import that is repeated after its source has changed updates a home, and never doubles.

The label is a part of the key of a label, so one that the source calls otherwise now would stand
beside the one from before. What an earlier import of the same images brought, and the present one
does not, is marked as deleted in the batch. Labels that came in another way stay, and so do those
that were corrected in the home.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import Inbox
from harmonizer_assets.core.ingest.marked import DELETED
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LABEL_KEY, WORD_KEY
from harmonizer_assets.core.records.status import Status
from harmonizer_assets.core.store.warehouse import Connection, Warehouse

_STATUSES: Final = f"""
SELECT {LABEL_COLUMNS}, validation_status FROM labels SEMI JOIN imported USING (image_id)
WHERE validation_status <> $status
"""
_KEYS: Final = {"words": WORD_KEY, "labels": LABEL_KEY}
_HELD: Final = """
SELECT {key} FROM {table} SEMI JOIN imported USING (image_id)
{corrected} WHERE extra->>'imported_by' = $format
"""
# What people have corrected in the home is not the source's any more: neither the label that they
# have retired, nor the one that they have given.
_NOT_CORRECTED: Final = f"ANTI JOIN label_row_changes USING ({LABEL_COLUMNS})"


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


def keep_statuses(home: Home, folder: Path) -> None:
    """Give labels that come again the statuses that they have in the home by now.

    A source without statuses says nothing about them, so a label that a person has validated stays
    `VALID` when its source is imported again.

    Args:
        home: into which it is imported.
        folder: with `words.parquet` and `labels.parquet`, whose labels are `PENDING` where the
            source says nothing else.
    """
    file = folder / "labels.parquet"
    if not home.database.exists() or not pq.read_metadata(file).num_rows:
        return
    images = _images(folder / "words.parquet")

    def read(con: Connection) -> list[tuple]:
        con.register("imported", images)
        found = con.execute(_STATUSES, {"status": Status.PENDING.value}).fetchall()
        con.unregister("imported")
        return found

    held = {tuple(key): status for *key, status in Warehouse(home).read(read)}
    if held:
        _rewrite(file, lambda batch: _with_statuses(batch, held))


def _with_statuses(batch: pa.RecordBatch, held: Mapping[tuple, str]) -> pa.RecordBatch:
    keys = zip(*(batch[name].to_pylist() for name in LABEL_KEY), strict=True)
    given = batch["validation_status"].to_pylist()
    statuses = [
        held.get(key, status) if status == Status.PENDING else status
        for key, status in zip(keys, given, strict=True)
    ]
    place = batch.schema.get_field_index("validation_status")
    columns = [*batch.columns]
    columns[place] = pa.array(statuses, pa.string())
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _images(words: Path) -> pa.Table:
    return pq.read_table(words, columns=["image_id"]).group_by("image_id").aggregate([])


def _rewrite(file: Path, change: Callable[[pa.RecordBatch], pa.RecordBatch]) -> None:
    partial = file.with_suffix(".rewritten")
    with pq.ParquetFile(file) as old, pq.ParquetWriter(partial, old.schema_arrow) as writer:
        for batch in old.iter_batches():
            writer.write_batch(change(batch))
    partial.replace(file)


def _mark(home: Home, file: Path, table: str, format_name: str) -> int:
    key = _KEYS[table]
    held = _held(home, table, _images(file.with_name("words.parquet")), format_name)
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
        corrected = _NOT_CORRECTED if table == "labels" else ""
        sql = _HELD.format(key=", ".join(key), table=table, corrected=corrected)
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
