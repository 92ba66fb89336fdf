"""Keeps the vector index complete: documents of labelled words, embedded once, with metadata."""

from __future__ import annotations

import time
from typing import Any, Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.documents import build_documents, pending_receipts
from harmonizer_assets.core.embedding import Embedder
from harmonizer_assets.core.progress import Progress, ProgressFn
from harmonizer_assets.core.results import IndexReport
from harmonizer_assets.core.vector_index import VectorIndex
from harmonizer_assets.core.warehouse import Warehouse

STAGE: Final = "word_embeddings"
_DOCUMENTS_PER_CHUNK: Final = 5_000
_MAX_METADATA_MERCHANTS: Final = 32

_DOCUMENT_COLUMNS: Final = (
    "document_id",
    "mask",
    "left_context",
    "right_context",
    "row_context",
    "x_bin",
    "y_bin",
    "row_bin",
    "column_bin",
)

_CHANGED_METADATA = f"""
WITH current AS (
    SELECT d.document_id,
        list(DISTINCT l.merchant_key ORDER BY l.merchant_key)[:{_MAX_METADATA_MERCHANTS}]
            AS merchants,
        list(DISTINCT l.label ORDER BY l.label) AS label_types,
        list(DISTINCT l.validation_status ORDER BY l.validation_status) AS statuses,
        count(*) AS labels
    FROM word_documents d JOIN labels l USING (image_id, receipt_id, line_id, word_id)
    GROUP BY d.document_id
)
SELECT current.* FROM current
LEFT JOIN document_metadata stored USING (document_id)
WHERE stored.document_id IS NULL
    OR (current.merchants, current.label_types, current.statuses, current.labels)
        IS DISTINCT FROM (stored.merchants, stored.label_types, stored.statuses, stored.labels)
ORDER BY current.document_id
"""


class Indexing:
    """Brings documents, vectors and metadata up to date with words and labels.

    Chroma is written before the database says so; after a crash between the two the same vectors
    are written again under the same ids.
    """

    def __init__(self, warehouse: Warehouse, index: VectorIndex, embedder: Embedder) -> None:
        self._warehouse = warehouse
        self._index = index
        self._embedder = embedder
        self._embed_seconds = 0.0
        self._index_seconds = 0.0
        self._embedded = 0

    def run(self, on_progress: ProgressFn | None = None) -> IndexReport:
        """Embed what is new, rebuild what another embedder made, update metadata."""
        began = time.monotonic()
        rebuilt = self._rebuild_if_needed(on_progress)
        words = self._index_new_words(on_progress)
        updated = self._update_metadata()
        total = self._warehouse.query("SELECT count(*) AS n FROM documents")["n"][0].as_py()
        return IndexReport(
            words=words,
            embedded=self._embedded,
            total=total,
            metadata_updated=updated,
            rebuilt=rebuilt,
            embedder=f"{self._embedder.name}/{self._embedder.version}",
            dimensions=self._embedder.dimensions,
            seconds=time.monotonic() - began,
            embed_seconds=self._embed_seconds,
            index_seconds=self._index_seconds,
        )

    def _rebuild_if_needed(self, on_progress: ProgressFn | None) -> bool:
        """Embed all known documents again when the index is another embedder's or incomplete."""
        state, known = self._warehouse.read(
            lambda con: (
                con.execute("SELECT embedder, embedder_version FROM index_state").fetchall(),
                con.execute("SELECT count(*) FROM documents").fetchall()[0][0],
            )
        )
        current = (self._embedder.name, self._embedder.version)
        with self._index.session() as session:
            complete = session.count() >= known
        if state == [current] and complete:
            return False
        last = ""
        done = 0
        while known:
            documents = self._warehouse.query(
                f"SELECT {', '.join(_DOCUMENT_COLUMNS)} FROM documents "
                "WHERE document_id > $last ORDER BY document_id LIMIT $limit",
                {"last": last, "limit": _DOCUMENTS_PER_CHUNK},
            )
            if documents.num_rows == 0:
                break
            last = documents["document_id"][-1].as_py()
            self._embed_and_add(documents, skip_existing=True)
            done += documents.num_rows
            if on_progress:
                on_progress(Progress(STAGE, 0, 0, done, known))

        def record(con: duckdb.DuckDBPyConnection) -> None:
            con.execute("DELETE FROM index_state")
            con.execute(
                "INSERT INTO index_state (embedder, embedder_version, dimensions, updated_at) "
                "VALUES ($1, $2, $3, now())",
                [*current, self._embedder.dimensions],
            )
            # The new collection holds no metadata yet.
            con.execute("DELETE FROM document_metadata")

        self._warehouse.write(record)
        with self._index.session() as session:
            session.drop_other_collections()
        return bool(known)

    def _index_new_words(self, on_progress: ProgressFn | None) -> int:
        words = 0
        receipts = self._warehouse.read(pending_receipts)
        done = 0
        while done < receipts or receipts == 0:
            built = self._warehouse.read(build_documents)
            if built.num_rows == 0:
                break
            documents = _distinct(built)
            known = self._warehouse.query(
                "SELECT document_id FROM documents SEMI JOIN "
                "(SELECT unnest($ids::VARCHAR[]) AS document_id) USING (document_id)",
                {"ids": documents["document_id"].to_pylist()},
            )["document_id"]
            is_new = pa.compute.invert(
                pa.compute.is_in(documents["document_id"], value_set=known.combine_chunks())
            )
            new = documents.filter(is_new)
            self._embed_and_add(new, skip_existing=False)
            self._warehouse.write(lambda con, built=built, new=new: _record(con, built, new))
            words += built.num_rows
            done += len(built.group_by(["image_id", "receipt_id"]).aggregate([]))
            if on_progress:
                on_progress(Progress(STAGE, 0, 0, done, receipts))
        return words

    def _embed_and_add(self, documents: pa.Table, *, skip_existing: bool) -> None:
        for start in range(0, documents.num_rows, _DOCUMENTS_PER_CHUNK):
            chunk = documents.slice(start, _DOCUMENTS_PER_CHUNK)
            if skip_existing:
                with self._index.session() as session:
                    existing = session.existing(chunk["document_id"].to_pylist())
                chunk = chunk.filter(
                    pa.array([id_ not in existing for id_ in chunk["document_id"].to_pylist()])
                )
            began = time.monotonic()
            vectors = self._embedder.embed(chunk)
            embedded = time.monotonic()
            if chunk.num_rows:
                ids = chunk["document_id"].to_pylist()
                metadatas = [{"text": text} for text in chunk["mask"].to_pylist()]
                with self._index.session() as session:
                    session.add(ids, vectors, metadatas)
            self._embedded += chunk.num_rows
            self._embed_seconds += embedded - began
            self._index_seconds += time.monotonic() - embedded

    def _update_metadata(self) -> int:
        changed = self._warehouse.query(_CHANGED_METADATA)
        for start in range(0, changed.num_rows, _DOCUMENTS_PER_CHUNK):
            chunk = changed.slice(start, _DOCUMENTS_PER_CHUNK)
            began = time.monotonic()
            with self._index.session() as session:
                session.update_metadata(
                    chunk["document_id"].to_pylist(), [_metadata(row) for row in chunk.to_pylist()]
                )
            self._index_seconds += time.monotonic() - began
            self._warehouse.write(lambda con, chunk=chunk: _record_metadata(con, chunk))
        return int(changed.num_rows)


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("merchants", "label_types", "statuses", "labels")}


def _distinct(built: pa.Table) -> pa.Table:
    """The distinct documents of a table that is sorted by document."""
    ids = built["document_id"].combine_chunks()
    first = pa.compute.index_in(pa.compute.unique(ids), value_set=ids)
    return built.select(_DOCUMENT_COLUMNS).take(first)


def _record(con: duckdb.DuckDBPyConnection, built: pa.Table, new: pa.Table) -> None:
    con.register("built", built)
    con.register("new", new)
    con.execute(
        "INSERT INTO documents BY NAME SELECT * FROM new ANTI JOIN documents USING (document_id)"
    )
    con.execute(
        "INSERT INTO word_documents BY NAME "
        "SELECT image_id, receipt_id, line_id, word_id, document_id FROM built "
        "ANTI JOIN word_documents USING (image_id, receipt_id, line_id, word_id)"
    )


def _record_metadata(con: duckdb.DuckDBPyConnection, chunk: pa.Table) -> None:
    con.register("chunk", chunk)
    con.execute(
        "DELETE FROM document_metadata WHERE document_id IN (SELECT document_id FROM chunk)"
    )
    con.execute("INSERT INTO document_metadata BY NAME SELECT * FROM chunk")
