"""The vector index: document vectors in Chroma, one process at a time."""

from __future__ import annotations

import contextlib
import hashlib
import math
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.files import sync_to_disk
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.locks import Lock
from harmonizer_assets.core.base.settings import WaitSettings
from harmonizer_assets.core.index.embedders import Embedder, Vectors
from harmonizer_assets.core.index.segments import clear_unused_space
from harmonizer_assets.core.index.vector_files import read_pages

if TYPE_CHECKING:
    from chromadb.api.collection_configuration import CreateHNSWConfiguration
    from chromadb.api.models.Collection import Collection
    from chromadb.config import Settings

WRITE_BATCH: Final = 5_000
QUERY_BATCH: Final = 1_000

GRAPH_WRITTEN_FROM: Final = 100
"""Changes from which Chroma writes its graph to the home's files.

Every process that opens the index adds to the graph what it finds in the log alone, at about half a
millisecond for each change.
"""

COLLECTIONS: Final = "documents-"
"""What the names of our collections begin with."""
HNSW: Final[CreateHNSWConfiguration] = {
    "space": "cosine",
    "ef_construction": 100,
    "ef_search": 100,
    "max_neighbors": 16,
    "batch_size": 1_000,
    "sync_threshold": 10_000,
}
"""Of a server's collections, and of those in homes from before; see `GRAPH_WRITTEN_FROM`."""


_LOGGED: Final = "SELECT count(*) FROM embeddings_queue"
"""The SQL of how many changes are in Chroma's log; the last one that the graph has may be too."""
_IDS: Final = """
SELECT e.embedding_id
FROM collections c
JOIN segments s ON s.collection = c.id AND s.scope = 'METADATA'
JOIN embeddings e ON e.segment_id = s.id
WHERE c.name = ?
"""
"""The SQL of the ids that Chroma's `get` returns."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest documents of each query.

    Attributes:
        ids: shape (n, k), document ids; empty strings where fewer than k exist.
        similarities: shape (n, k), cosine similarity, descending; -1 where there is none.
    """

    ids: npt.NDArray[np.str_]
    similarities: npt.NDArray[np.float32]


class VectorIndex:
    """Document vectors of one embedder in the Chroma folder of a home.

    Chroma's embedded client is not safe for several processes, so every use goes through
    `session`, which holds a file lock and opens and closes the client. Sessions are short;
    a process that waits for one sees the lock's holder change.
    """

    def __init__(
        self,
        home: Home,
        embedder: Embedder,
        wait_seconds: float = WaitSettings().vector_index_seconds,
    ) -> None:
        """Bind to the vectors of one embedder in a home; nothing is opened yet.

        Args:
            home: the home folder.
            embedder: whose vectors they are.
            wait_seconds: how long to wait for another process that uses the index.
        """
        self._folder = home.chroma
        self._restored = home.restored_vectors
        self._fresh, self._old = home.new_chroma, home.old_chroma
        self._lock = Lock(
            home.locks / "chroma.lock",
            f"using the vector index in {home.chroma}",
            timeout=wait_seconds,
            per_holder=True,
            poll_seconds=0.01,
        )
        identity = f"{embedder.name}/{embedder.version}"
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        self.collection_name = f"{COLLECTIONS}{embedder.name}-{digest}"
        self.dimensions = embedder.dimensions

    def ids(self) -> set[str]:
        """Read the ids of the documents in the index.

        Read Chroma's own table where that is possible: importing and opening Chroma takes seconds,
        and a run that finds nothing to do needs nothing else of it.

        Raises:
            StoreError: see `session`.
        """
        self._take_up()
        file = (self._folder / "chroma.sqlite3").as_uri()
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"{file}?mode=ro", uri=True, timeout=1.0)) as con,
        ):
            return {document_id for (document_id,) in con.execute(_IDS, [self.collection_name])}
        with self.session() as session:
            return session.ids()

    def rewrite(self) -> None:
        """Write the index anew from its own vectors, in a folder that takes the place of the old.

        What Chroma deletes stays in its files until they are overwritten. A process that is killed
        leaves the old index or the new one.

        Raises:
            StoreError: see `session`.
        """
        self._take_up()
        with self.held():
            if self._logged() >= GRAPH_WRITTEN_FROM:
                # Reading would have the graph written in place.
                with self._open() as now:
                    now.update_graph()
            with self._opened(self._folder, 0) as now, self._opened(self._fresh, None) as then:
                for ids, vectors, metadatas in now.everything():
                    then.add(ids, vectors, metadatas)
            self._replace()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from the index, for whoever copies its files.

        Raises:
            StoreBusyError: see `session`.
        """
        with self._lock.held():
            self._finish_replacing()
            # A process that was killed has not got further with it.
            shutil.rmtree(self._fresh, ignore_errors=True)
            yield

    def _replace(self) -> None:
        """Let the new folder take the place of the index; the caller holds the lock."""
        sync_to_disk(self._fresh, *self._fresh.rglob("*"))
        self._folder.rename(self._old)
        self._finish_replacing()

    def _finish_replacing(self) -> None:
        """Put the new index in place of the old one, where a process has set the old one aside."""
        if not self._old.exists():
            return
        if self._fresh.exists():
            # Opening a home makes the folder.
            shutil.rmtree(self._folder, ignore_errors=True)
            self._fresh.rename(self._folder)
            sync_to_disk(self._folder.parent)
        shutil.rmtree(self._old)

    @contextlib.contextmanager
    def session(self, writes: int = 0) -> Iterator[IndexSession]:
        """Open the index for a short while.

        Args:
            writes: how many documents are added, changed or removed, at most; the session refuses
                more. Many take effect at the end of the session, and not at all where it ends with
                an error.

        Raises:
            StoreBusyError: one other process has held the index for longer than the settings allow.
            StoreError: Chroma cannot open its folder.
        """
        self._take_up()
        with self.held(), self._open(writes) as session:
            yield session

    def copy_from_server(self, folder: Path) -> None:
        """Write the vectors that are not in the home to files, for a backup; here there are none.

        Raises:
            StoreError: the server cannot be used.
        """

    def _take_up(self) -> None:
        """Add the vectors that a restored home has in files, unless the index has them.

        A process that is killed leaves the files to the next one.
        """
        if not self._restored.exists():
            return
        with self.held():
            with self._open(None) as session:
                present = session.ids()
                for ids, vectors, metadatas in read_pages(self._restored, self.collection_name):
                    new = [row for row, document_id in enumerate(ids) if document_id not in present]
                    session.add(
                        [ids[row] for row in new], vectors[new], [metadatas[row] for row in new]
                    )
            shutil.rmtree(self._restored, ignore_errors=True)

    @contextlib.contextmanager
    def _open(self, writes: int | None = 0) -> Iterator[IndexSession]:
        """Open the index, see `session`, None for any number; the caller holds the lock.

        Chroma writes its graph over the one that is there, and a process that is killed meanwhile
        leaves none that can be read. So a copy is written to where that may happen.
        """
        if writes is not None and self._logged() + writes < GRAPH_WRITTEN_FROM:
            with self._opened(self._folder, writes) as session:
                yield session
            return
        try:
            shutil.copytree(self._folder, self._fresh)
        except OSError as error:
            raise StoreError(
                f"the vector index in {self._folder} cannot be copied, and only a copy is written "
                f"to: make room for another one of its size ({error})"
            ) from error
        with self._opened(self._fresh, writes) as session:
            session.write_graph_from(GRAPH_WRITTEN_FROM)
            yield session
        self._replace()

    def _logged(self) -> int:
        """Count the changes in Chroma's log that the graph in the files may lack."""
        file = self._folder / "chroma.sqlite3"
        if not file.exists():
            return 0
        try:
            with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as con:
                return int(con.execute(_LOGGED).fetchone()[0])
        except sqlite3.Error:
            # Chroma says itself what it cannot read.
            return 0

    @contextlib.contextmanager
    def _opened(self, folder: Path, writes: int | None) -> Iterator[IndexSession]:
        """Open Chroma on a folder, see `_open`; the caller holds the lock."""
        # Importing Chroma takes longer than a run that finds nothing to do.
        import chromadb

        # A process that was killed in a session did not get to do it.
        clear_unused_space(folder)
        try:
            # The declared type of the client lacks `close`.
            client = cast(
                Any,
                chromadb.PersistentClient(
                    path=str(folder),
                    # The client writes into what it is given.
                    settings=_chroma_settings().model_copy(),
                ),
            )
        except Exception as error:
            raise StoreError(
                f"the vector index in {folder} cannot be opened: {error}. "
                "Delete that folder to have it rebuilt from the database"
            ) from error
        try:
            collection = client.get_or_create_collection(
                self.collection_name,
                configuration={"hnsw": {**HNSW, "sync_threshold": GRAPH_WRITTEN_FROM}},
                embedding_function=None,
            )
            yield IndexSession(client, collection, self.dimensions, writes)
        finally:
            client.close()
            clear_unused_space(folder)


@cache
def _chroma_settings() -> Settings:
    """Make Chroma's settings: reading them from the environment takes as long as opening it."""
    from chromadb.config import Settings

    return Settings(anonymized_telemetry=False)


class IndexSession:
    """An open vector index; valid inside `VectorIndex.session` only."""

    def __init__(
        self, client: Any, collection: Collection, dimensions: int, writes: int | None
    ) -> None:
        self._client = client
        self._collection = collection
        self._dimensions = dimensions
        self._writes_left = math.inf if writes is None else writes

    def add(
        self, ids: Sequence[str], vectors: Vectors, metadatas: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add documents or overwrite them.

        Args:
            ids: n document ids.
            vectors: shape (n, dimensions), unit rows.
            metadatas: n mappings of metadata.

        Raises:
            ValueError: see `_count`.
        """
        self._count(len(ids))
        for start in range(0, len(ids), WRITE_BATCH):
            chunk = slice(start, start + WRITE_BATCH)
            self._collection.upsert(
                ids=list(ids[chunk]),
                embeddings=vectors[chunk],
                metadatas=[dict(metadata) for metadata in metadatas[chunk]],
            )

    def update_metadata(self, ids: Sequence[str], metadatas: Sequence[Mapping[str, Any]]) -> None:
        """Replace the metadata of n documents that are in the index.

        Raises:
            ValueError: see `_count`.
        """
        self._count(len(ids))
        for start in range(0, len(ids), WRITE_BATCH):
            chunk = slice(start, start + WRITE_BATCH)
            self._collection.update(
                ids=list(ids[chunk]),
                metadatas=[dict(metadata) for metadata in metadatas[chunk]],
            )

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents; those that are not in the index are passed over.

        Raises:
            ValueError: see `_count`.
        """
        self._count(len(ids))
        for start in range(0, len(ids), WRITE_BATCH):
            self._collection.delete(ids=list(ids[start : start + WRITE_BATCH]))

    def _count(self, writes: int) -> None:
        """Count what is about to be written.

        Raises:
            ValueError: the session was opened for less: it may be one that writes in place, which
                many writes must not.
        """
        if writes > self._writes_left:
            raise ValueError(
                f"{writes} documents are to be written in a session of the vector index that was "
                f"opened for {self._writes_left} more"
            )
        self._writes_left -= writes

    def write_graph_from(self, changes: int) -> None:
        """Have the graph written to the files from so many changes on, in homes from before too."""
        from chromadb.errors import InternalError

        hnsw = self._collection.configuration["hnsw"]
        if hnsw and hnsw.get("sync_threshold") != changes:
            # Another connection of Chroma's own may have its database; a later session does it.
            with contextlib.suppress(InternalError):
                self._collection.modify(configuration={"hnsw": {"sync_threshold": changes}})

    def update_graph(self) -> None:
        """Add to the graph what is in the log alone."""
        self._collection.get(limit=1, include=["embeddings"])

    def ids(self) -> set[str]:
        """Read the ids of the documents in the index."""
        return set(self._collection.get(include=[])["ids"])

    def everything(self) -> Iterator[tuple[list[str], Vectors, list[Mapping[str, Any]]]]:
        """Read all documents in the order of their ids, in batches: ids, vectors, metadatas."""
        ids = sorted(self.ids())
        for start in range(0, len(ids), WRITE_BATCH):
            chunk = ids[start : start + WRITE_BATCH]
            found = self._collection.get(ids=chunk, include=["embeddings", "metadatas"])
            vectors = np.asarray(found["embeddings"], dtype=np.float32)
            yield found["ids"], vectors, [dict(row) for row in found["metadatas"] or []]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """Fetch vectors.

        Args:
            ids: n distinct document ids.

        Returns:
            Array of shape (n, dimensions) in the order of `ids`.

        Raises:
            StoreError: a document is not in the index.
        """
        vectors = np.empty((len(ids), self._dimensions), dtype=np.float32)
        for start in range(0, len(ids), WRITE_BATCH):
            chunk = list(ids[start : start + WRITE_BATCH])
            answer = self._collection.get(ids=chunk, include=["embeddings"])
            row_of = {document_id: row for row, document_id in enumerate(chunk)}
            if len(answer["ids"]) != len(chunk):
                raise StoreError(
                    f"{len(chunk) - len(answer['ids'])} documents are missing from the vector "
                    "index: run again, or materialize word_embeddings, which completes it"
                )
            rows = [start + row_of[document_id] for document_id in answer["ids"]]
            vectors[rows] = np.asarray(answer["embeddings"], dtype=np.float32)
        return vectors

    def nearest(self, vectors: Vectors, k: int) -> Neighbours:
        """Find the approximately nearest documents of each vector.

        Args:
            vectors: shape (n, dimensions), unit rows.
            k: neighbours wanted per vector.
        """
        ids = np.full((len(vectors), k), "", dtype="<U32")
        similarities = np.full((len(vectors), k), -1.0, dtype=np.float32)
        for start in range(0, len(vectors), QUERY_BATCH):
            answer = self._collection.query(
                query_embeddings=vectors[start : start + QUERY_BATCH],
                n_results=k,
                include=["distances"],
            )
            distances = answer["distances"] or []
            for row, (found, distance) in enumerate(zip(answer["ids"], distances, strict=True)):
                ids[start + row, : len(found)] = found
                similarities[start + row, : len(found)] = 1.0 - np.asarray(distance)
        return Neighbours(ids, similarities)

    def drop_other_collections(self) -> list[str]:
        """Delete the collections of embedders no longer in use; return their names."""
        others = [
            collection.name
            for collection in self._client.list_collections()
            if collection.name != self._collection.name and collection.name.startswith(COLLECTIONS)
        ]
        for name in others:
            self._client.delete_collection(name)
        return others
