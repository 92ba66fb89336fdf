"""The vector index: document vectors in Chroma, one process at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import chromadb
import chromadb.config
import filelock
import numpy as np
import numpy.typing as npt
from chromadb.api.collection_configuration import CreateHNSWConfiguration
from chromadb.api.models.Collection import Collection

from harmonizer_assets.core.embedding import Embedder, Vectors
from harmonizer_assets.core.errors import StoreBusyError, StoreError
from harmonizer_assets.core.home import Home

LOCK_WAIT_SECONDS: Final = 30.0
WRITE_BATCH: Final = 5_000
QUERY_BATCH: Final = 1_000

_HNSW: Final[CreateHNSWConfiguration] = {
    "space": "cosine",
    "ef_construction": 100,
    "ef_search": 100,
    "max_neighbors": 16,
    "batch_size": 1_000,
    "sync_threshold": 10_000,
}


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
    a process that waits for one sees the lock change hands.
    """

    def __init__(self, home: Home, embedder: Embedder) -> None:
        self._folder = home.chroma
        self._lock_file = home.locks / "chroma.lock"
        self._holder_file = home.locks / "chroma.holder"
        identity = f"{embedder.name}/{embedder.version}"
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        self.collection_name = f"documents-{embedder.name}-{digest}"
        self.dimensions = embedder.dimensions

    @contextlib.contextmanager
    def session(self) -> Iterator[IndexSession]:
        """Open the index for a short while.

        Raises:
            StoreBusyError: one other process has held the index for 30 seconds.
            StoreError: Chroma cannot open its folder.
        """
        with self._locked():
            try:
                # The declared type of the client lacks `close`.
                client = cast(
                    Any,
                    chromadb.PersistentClient(
                        path=str(self._folder),
                        settings=chromadb.config.Settings(anonymized_telemetry=False),
                    ),
                )
            except Exception as error:
                raise StoreError(
                    f"the vector index in {self._folder} cannot be opened: {error}. "
                    "Delete that folder to have it rebuilt from the database"
                ) from error
            try:
                collection = client.get_or_create_collection(
                    self.collection_name,
                    configuration={"hnsw": _HNSW},
                    embedding_function=None,
                )
                yield IndexSession(client, collection, self.dimensions)
            finally:
                client.close()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self._lock_file)
        holder, since = self._read_holder(), time.monotonic()
        while True:
            try:
                lock.acquire(timeout=0.25, poll_interval=0.01)
                break
            except filelock.Timeout:
                current = self._read_holder()
                if current != holder:
                    holder, since = current, time.monotonic()
                elif time.monotonic() - since > LOCK_WAIT_SECONDS:
                    pid = holder.partition(" ")[0] or "unknown"
                    raise StoreBusyError(
                        f"the vector index in {self._folder} has been held by process {pid} for "
                        f"over {LOCK_WAIT_SECONDS:.0f} s: wait for it or stop it, then run again"
                    ) from None
        try:
            self._holder_file.write_text(f"{os.getpid()} {time.time_ns()}")
            yield
        finally:
            lock.release()

    def _read_holder(self) -> str:
        with contextlib.suppress(OSError):
            return Path(self._holder_file).read_text()
        return ""


class IndexSession:
    """An open vector index; valid inside `VectorIndex.session` only."""

    def __init__(self, client: Any, collection: Collection, dimensions: int) -> None:
        self._client = client
        self._collection = collection
        self._dimensions = dimensions

    def count(self) -> int:
        """Count the documents in the index."""
        return self._collection.count()

    def add(
        self, ids: Sequence[str], vectors: Vectors, metadatas: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add documents or overwrite them.

        Args:
            ids: n document ids.
            vectors: shape (n, dimensions), unit rows.
            metadatas: n mappings of metadata.
        """
        for start in range(0, len(ids), WRITE_BATCH):
            chunk = slice(start, start + WRITE_BATCH)
            self._collection.upsert(
                ids=list(ids[chunk]),
                embeddings=vectors[chunk],
                metadatas=[dict(metadata) for metadata in metadatas[chunk]],
            )

    def update_metadata(self, ids: Sequence[str], metadatas: Sequence[Mapping[str, Any]]) -> None:
        """Replace the metadata of n documents that are in the index."""
        for start in range(0, len(ids), WRITE_BATCH):
            chunk = slice(start, start + WRITE_BATCH)
            self._collection.update(
                ids=list(ids[chunk]),
                metadatas=[dict(metadata) for metadata in metadatas[chunk]],
            )

    def existing(self, ids: Sequence[str]) -> set[str]:
        """Say which of these documents are in the index."""
        found: set[str] = set()
        for start in range(0, len(ids), WRITE_BATCH):
            chunk = list(ids[start : start + WRITE_BATCH])
            found.update(self._collection.get(ids=chunk, include=[])["ids"])
        return found

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
                    "index: materialize word_embeddings, which completes it"
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
        """Delete the collections of embedders no longer in use; their names."""
        others = [
            collection.name
            for collection in self._client.list_collections()
            if collection.name != self._collection.name and collection.name.startswith("documents-")
        ]
        for name in others:
            self._client.delete_collection(name)
        return others
