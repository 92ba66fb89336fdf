"""The index step: embeds the documents of labelled words once, with their metadata."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from harmonizer_assets.core.base.preload import preload
from harmonizer_assets.core.base.progress import Progress, ProgressFn
from harmonizer_assets.core.base.sql import text_list, texts_in
from harmonizer_assets.core.index.documents import (
    DOCUMENT_VERSION,
    build_documents,
    pending_receipts,
)
from harmonizer_assets.core.index.embedders import Embedder
from harmonizer_assets.core.index.meter import Meter
from harmonizer_assets.core.index.upkeep import compared, forget_lost, remove_documents, rewrite
from harmonizer_assets.core.index.vectors import VectorIndex
from harmonizer_assets.core.records.label import WORD_COLUMNS
from harmonizer_assets.core.records.reports import IndexReport
from harmonizer_assets.core.store.warehouse import Warehouse

_log = logging.getLogger(__name__)

STAGE: Final = "word_embeddings"
_DOCUMENTS_PER_CHUNK: Final = 5_000
"""Documents that are embedded and written in one go, at least."""
_SHARE_PER_CHUNK: Final = 0.1
"""The same, as a share of those in the index. Each chunk has the index copied as a whole, so with
chunks of one size copying would grow with the square of the documents."""
_MAX_METADATA_MERCHANTS: Final = 32
_METADATA: Final = ("merchants", "label_types", "statuses")

# `document_metadata` mirrors Chroma: a document without a row there is not in the index.
_OUT_OF_DATE = f"""
WITH wanted AS (
    SELECT d.document_id,
        list(DISTINCT l.merchant_key ORDER BY l.merchant_key)[:{_MAX_METADATA_MERCHANTS}]
            AS merchants,
        list(DISTINCT l.label ORDER BY l.label) AS label_types,
        list(DISTINCT l.validation_status ORDER BY l.validation_status) AS statuses
    FROM word_documents d JOIN labels l USING ({WORD_COLUMNS})
    GROUP BY d.document_id
)
SELECT coalesce(wanted.document_id, stored.document_id) AS document_id,
    wanted.* EXCLUDE (document_id),
    stored.document_id IS NULL AS is_new, wanted.document_id IS NULL AS is_orphan
FROM wanted FULL JOIN document_metadata stored ON stored.document_id = wanted.document_id
WHERE stored.document_id IS NULL OR wanted.document_id IS NULL
    OR (wanted.merchants, wanted.label_types, wanted.statuses)
        IS DISTINCT FROM (stored.merchants, stored.label_types, stored.statuses)
ORDER BY document_id
"""

_LIBRARIES: Final = ("sklearn.feature_extraction.text", "chromadb")


def load_libraries() -> None:
    """Import what the step needs, in a thread: while a batch is ingested, the database works."""
    preload(_LIBRARIES)


class Indexing:
    """Brings documents, vectors and metadata up to date with words and labels.

    Chroma is written before the database; after a crash between the two, the same vectors are
    written again under the same ids. What no labelled word has any more is removed, so that an
    index that grew equals one made at once.

    Attributes:
        vectors: the vector index.
    """

    def __init__(self, warehouse: Warehouse, vectors: VectorIndex, embedder: Embedder) -> None:
        self._warehouse = warehouse
        self.vectors = vectors
        self._embedder = embedder

    @property
    def embedder_version(self) -> str:
        """Return name and version of the embedder."""
        return f"{self._embedder.name}/{self._embedder.version}"

    @property
    def version(self) -> str:
        """Return the version of documents and embedder; equal versions are comparable."""
        return f"{DOCUMENT_VERSION}/{self.embedder_version}"

    def lost(self) -> int:
        """Count the documents that the tables know as embedded and the vector index lacks."""
        return len(compared(self._warehouse, self.vectors).lost)

    def purge(self) -> int:
        """Remove what no labelled word has, and every trace of it from the index's files.

        Returns:
            How many documents were removed.
        """
        found = self._warehouse.query(_OUT_OF_DATE)
        orphans = found.filter(found["is_orphan"])["document_id"].to_pylist()
        strays = compared(self._warehouse, self.vectors).strays
        remove_documents(self._warehouse, self.vectors, orphans, strays)
        # Metadata of what stays names the merchants of all labels.
        self._write_metadata(found.filter(_is_stored(found)))
        rewrite(self._warehouse, self.vectors)
        return len(orphans) + len(strays)

    def run(self, on_progress: ProgressFn | None = None, meter: Meter | None = None) -> IndexReport:
        """Embed new documents and lost ones, or all for a new embedder; remove those of no word.

        Args:
            on_progress: called with the progress of the work.
            meter: is told of what costs something.

        Raises:
            BudgetReached: the meter allows no further call; what is embedded is kept.
        """
        began = time.monotonic()
        rebuilt = self._forget_other_embedder()
        words = self._assign_documents()
        index = forget_lost(self._warehouse, self.vectors)
        assigned = time.monotonic()
        found = self._warehouse.query(_OUT_OF_DATE)
        out_of_date = found.filter(pc.invert(found["is_orphan"])).drop_columns(["is_orphan"])
        orphans = found.filter(found["is_orphan"])["document_id"].to_pylist()
        embedded, embed_seconds = 0, 0.0
        done = 0
        while done < out_of_date.num_rows:
            indexed = index.recorded + embedded
            most = max(_DOCUMENTS_PER_CHUNK, int(_SHARE_PER_CHUNK * indexed))
            chunk = out_of_date.slice(done, most)
            new, seconds = self._write_chunk(chunk, meter)
            embedded += new
            embed_seconds += seconds
            done += chunk.num_rows
            if on_progress:
                on_progress(Progress(STAGE, 0, 0, done, out_of_date.num_rows))
        if embedded:
            _log.info("embedded %d documents in %.1f s", embedded, embed_seconds)
        if rebuilt:
            with self.vectors.session() as session:
                session.drop_other_collections()
        remove_documents(self._warehouse, self.vectors, orphans, index.strays)
        total = self._warehouse.query("SELECT count(*) AS n FROM document_metadata")["n"][0]
        return IndexReport(
            words=words,
            embedded=embedded,
            total=total.as_py(),
            metadata_updated=out_of_date.num_rows - embedded,
            removed=len(orphans) + len(index.strays),
            rebuilt=rebuilt or bool(index.lost),
            embedder=self.embedder_version,
            dimensions=self._embedder.dimensions,
            seconds=time.monotonic() - began,
            embed_seconds=embed_seconds,
            index_seconds=time.monotonic() - assigned - embed_seconds,
        )

    def _forget_other_embedder(self) -> bool:
        """Mark all documents as not embedded when another embedder has made the index.

        Returns:
            Whether any document was marked.
        """
        wanted = (self._embedder.name, self._embedder.version)
        state, recorded = self._warehouse.read(
            lambda con: (
                con.execute("SELECT embedder, embedder_version FROM index_state").fetchall(),
                con.execute("SELECT count(*) FROM document_metadata").fetchall()[0][0],
            )
        )
        if state == [wanted]:
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
        if recorded:
            _log.info(
                "rebuilding the vector index of %d documents: another embedder made it", recorded
            )
        return bool(recorded)

    def _assign_documents(self) -> int:
        """Assign a document to each labelled word without one; return how many there were."""
        words = 0
        while self._warehouse.read(pending_receipts):
            words += self._warehouse.write(_assign_next)
        return words

    def _write_chunk(self, chunk: pa.Table, meter: Meter | None) -> tuple[int, float]:
        """Bring some documents up to date; return how many were embedded, and the seconds."""
        new = chunk.filter(chunk["is_new"])
        known = chunk.filter(pc.invert(chunk["is_new"]))
        if meter is not None and new.num_rows:
            meter.begin()
            # Whoever was waited for may have embedded them.
            new = self._still_new(new)
            chunk = pa.concat_tables([known, new])
        began = time.monotonic()
        vectors = self._embedder.embed(self._documents(new["document_id"].to_pylist()), meter)
        embed_seconds = time.monotonic() - began
        with self.vectors.session(writes=chunk.num_rows) as session:
            session.add(new["document_id"].to_pylist(), vectors, _metadatas(new))
            session.update_metadata(known["document_id"].to_pylist(), _metadatas(known))
        self._warehouse.write(lambda con: _record(con, chunk.drop_columns(["is_new"])))
        return new.num_rows, embed_seconds

    def _write_metadata(self, documents: pa.Table) -> None:
        with self.vectors.session(writes=documents.num_rows) as session:
            session.update_metadata(documents["document_id"].to_pylist(), _metadatas(documents))
        self._warehouse.write(
            lambda con: _record(con, documents.drop_columns(["is_new", "is_orphan"]))
        )

    def _still_new(self, documents: pa.Table) -> pa.Table:
        indexed = self._warehouse.query(
            f"SELECT document_id FROM document_metadata WHERE document_id IN {texts_in('$ids')}",
            {"ids": text_list(documents["document_id"].to_pylist())},
        )
        return documents.filter(
            pc.invert(pc.is_in(documents["document_id"], indexed["document_id"]))
        )

    def _documents(self, ids: list[str]) -> pa.Table:
        return self._warehouse.query(
            f"SELECT * FROM documents WHERE document_id IN {texts_in('$ids')} ORDER BY document_id",
            {"ids": text_list(ids)},
        )


def _assign_next(con: duckdb.DuckDBPyConnection) -> int:
    built = build_documents(con)
    con.register("built", built)
    con.execute(
        "INSERT INTO documents BY NAME "
        f"SELECT DISTINCT ON (document_id) * EXCLUDE ({WORD_COLUMNS}) "
        "FROM built ANTI JOIN documents USING (document_id)"
    )
    con.execute(
        "INSERT INTO word_documents BY NAME "
        f"SELECT {WORD_COLUMNS}, document_id FROM built "
        f"ANTI JOIN word_documents USING ({WORD_COLUMNS})"
    )
    return int(built.num_rows)


def _is_stored(found: pa.Table) -> pa.ChunkedArray:
    return pc.invert(pc.or_(found["is_new"], found["is_orphan"]))


def _metadatas(rows: pa.Table) -> list[dict[str, Any]]:
    return rows.select(_METADATA).to_pylist()


def _record(con: duckdb.DuckDBPyConnection, chunk: pa.Table) -> None:
    con.register("chunk", chunk)
    con.execute(
        "DELETE FROM document_metadata WHERE document_id IN (SELECT document_id FROM chunk)"
    )
    con.execute("INSERT INTO document_metadata BY NAME SELECT * FROM chunk")
