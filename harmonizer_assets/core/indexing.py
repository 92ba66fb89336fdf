"""Keeps the vector index complete: documents of labelled words, embedded once, with metadata."""

from __future__ import annotations

import time
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from harmonizer_assets.core.documents import build_documents, pending_receipts
from harmonizer_assets.core.embedding import Embedder
from harmonizer_assets.core.progress import Progress, ProgressFn
from harmonizer_assets.core.results import IndexReport
from harmonizer_assets.core.vector_index import VectorIndex
from harmonizer_assets.core.warehouse import Warehouse

STAGE: Final = "word_embeddings"
_DOCUMENTS_PER_CHUNK: Final = 5_000
_MAX_METADATA_MERCHANTS: Final = 32
_METADATA: Final = ("merchants", "label_types", "statuses", "labels")

# `document_metadata` records what Chroma holds: a document without a row is not in the index.
_OUT_OF_DATE = f"""
WITH wanted AS (
    SELECT d.document_id,
        list(DISTINCT l.merchant_key ORDER BY l.merchant_key)[:{_MAX_METADATA_MERCHANTS}]
            AS merchants,
        list(DISTINCT l.label ORDER BY l.label) AS label_types,
        list(DISTINCT l.validation_status ORDER BY l.validation_status) AS statuses,
        count(*) AS labels
    FROM word_documents d JOIN labels l USING (image_id, receipt_id, line_id, word_id)
    GROUP BY d.document_id
)
SELECT wanted.*, stored.document_id IS NULL AS is_new
FROM wanted LEFT JOIN document_metadata stored USING (document_id)
WHERE stored.document_id IS NULL
    OR (wanted.merchants, wanted.label_types, wanted.statuses, wanted.labels)
        IS DISTINCT FROM (stored.merchants, stored.label_types, stored.statuses, stored.labels)
ORDER BY wanted.document_id
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

    def run(self, on_progress: ProgressFn | None = None) -> IndexReport:
        """Embed what is new, rebuild what another embedder made, update metadata."""
        began = time.monotonic()
        rebuilt = self._forget_unusable_index()
        words = self._assign_documents()
        assigned = time.monotonic()
        out_of_date = self._warehouse.query(_OUT_OF_DATE)
        embedded, embed_seconds = 0, 0.0
        for start in range(0, out_of_date.num_rows, _DOCUMENTS_PER_CHUNK):
            chunk = out_of_date.slice(start, _DOCUMENTS_PER_CHUNK)
            new, seconds = self._write_chunk(chunk)
            embedded += new
            embed_seconds += seconds
            if on_progress:
                on_progress(Progress(STAGE, 0, 0, start + chunk.num_rows, out_of_date.num_rows))
        if rebuilt:
            with self._index.session() as session:
                session.drop_other_collections()
        total = self._warehouse.query("SELECT count(*) AS n FROM document_metadata")["n"][0]
        return IndexReport(
            words=words,
            embedded=embedded,
            total=total.as_py(),
            metadata_updated=out_of_date.num_rows - embedded,
            rebuilt=rebuilt,
            embedder=f"{self._embedder.name}/{self._embedder.version}",
            dimensions=self._embedder.dimensions,
            seconds=time.monotonic() - began,
            embed_seconds=embed_seconds,
            index_seconds=time.monotonic() - assigned - embed_seconds,
        )

    def _forget_unusable_index(self) -> bool:
        """Have everything embedded again when the index is lost or was made by another embedder."""
        wanted = (self._embedder.name, self._embedder.version)
        state, recorded = self._warehouse.read(
            lambda con: (
                con.execute("SELECT embedder, embedder_version FROM index_state").fetchall(),
                con.execute("SELECT count(*) FROM document_metadata").fetchall()[0][0],
            )
        )
        if state == [wanted]:
            with self._index.session() as session:
                if session.count() >= recorded:
                    return False

        def forget(con: duckdb.DuckDBPyConnection) -> None:
            con.execute("DELETE FROM document_metadata")
            con.execute("DELETE FROM index_state")
            con.execute(
                "INSERT INTO index_state (embedder, embedder_version, dimensions, updated_at) "
                "VALUES ($1, $2, $3, now())",
                [*wanted, self._embedder.dimensions],
            )

        self._warehouse.write(forget)
        return bool(recorded)

    def _assign_documents(self) -> int:
        """Give each labelled word without a document its document; how many there were."""
        words = 0
        while self._warehouse.read(pending_receipts):
            words += self._warehouse.write(_assign_next)
        return words

    def _write_chunk(self, chunk: pa.Table) -> tuple[int, float]:
        """Bring some documents up to date; how many were embedded, in how many seconds."""
        new = chunk.filter(chunk["is_new"])
        known = chunk.filter(pc.invert(chunk["is_new"]))
        began = time.monotonic()
        vectors = self._embedder.embed(self._documents(new["document_id"].to_pylist()))
        embed_seconds = time.monotonic() - began
        with self._index.session() as session:
            session.add(new["document_id"].to_pylist(), vectors, _metadatas(new))
            session.update_metadata(known["document_id"].to_pylist(), _metadatas(known))
        self._warehouse.write(lambda con: _record(con, chunk.drop_columns(["is_new"])))
        return new.num_rows, embed_seconds

    def _documents(self, ids: list[str]) -> pa.Table:
        return self._warehouse.query(
            "SELECT documents.* FROM documents SEMI JOIN "
            "(SELECT unnest($ids::VARCHAR[]) AS document_id) USING (document_id) "
            "ORDER BY document_id",
            {"ids": ids},
        )


def _assign_next(con: duckdb.DuckDBPyConnection) -> int:
    built = build_documents(con)
    con.register("built", built)
    con.execute(
        "INSERT INTO documents BY NAME "
        "SELECT DISTINCT ON (document_id) * EXCLUDE (image_id, receipt_id, line_id, word_id) "
        "FROM built ANTI JOIN documents USING (document_id)"
    )
    con.execute(
        "INSERT INTO word_documents BY NAME "
        "SELECT image_id, receipt_id, line_id, word_id, document_id FROM built "
        "ANTI JOIN word_documents USING (image_id, receipt_id, line_id, word_id)"
    )
    return int(built.num_rows)


def _metadatas(rows: pa.Table) -> list[dict[str, Any]]:
    return rows.select(_METADATA).to_pylist()


def _record(con: duckdb.DuckDBPyConnection, chunk: pa.Table) -> None:
    con.register("chunk", chunk)
    con.execute(
        "DELETE FROM document_metadata WHERE document_id IN (SELECT document_id FROM chunk)"
    )
    con.execute("INSERT INTO document_metadata BY NAME SELECT * FROM chunk")
