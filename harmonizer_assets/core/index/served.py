"""The vector index on a Chroma server, for homes that have one beside them."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from harmonizer_assets.core.base.errors import ConfigurationError, StoreError
from harmonizer_assets.core.base.files import make_private_folder
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.base.settings import IndexSettings, WaitSettings
from harmonizer_assets.core.index.embedders import Embedder
from harmonizer_assets.core.index.vector_files import write_pages
from harmonizer_assets.core.index.vectors import HNSW, IndexSession, VectorIndex

TOKEN_VARIABLE: Final = "HARMONIZER_CHROMA_TOKEN"
_PORTS: Final = {"http": 80, "https": 443}
_FRESH: Final = "fresh-"
_SAID: Final = 200
"""Characters of an error that are quoted."""


def open_index(home: Home, embedder: Embedder, settings: IndexSettings, wait: float) -> VectorIndex:
    """Bind to the vector index of a home: its folder, or the server of its settings.

    Raises:
        ConfigurationError: see `ServedIndex`.
    """
    if settings.server is None:
        return VectorIndex(home, embedder, wait)
    return ServedIndex(home, embedder, settings.server, settings.database, wait)


class ServedIndex(VectorIndex):
    """Document vectors in a database of a Chroma server, which serves several processes at once."""

    def __init__(
        self,
        home: Home,
        embedder: Embedder,
        server: str,
        database: str,
        wait_seconds: float = WaitSettings().vector_index_seconds,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Bind to the vectors of one embedder; nothing is requested yet.

        Args:
            home: whose vectors they are.
            embedder: whose vectors they are.
            server: `http://host:port`, or `https://` where it is not this machine.
            database: of the home on the server; it is made where there is none.
            wait_seconds: how long to wait for another process that writes the index anew.
            environment: holds the token that is sent to the server.

        Raises:
            ConfigurationError: the server is not this machine, and there is no token or no TLS.
        """
        super().__init__(home, embedder, wait_seconds)
        self._server = server
        self._database = database
        token = environment.get(TOKEN_VARIABLE, "")
        parts = urlsplit(server)
        if not _is_loopback(parts.hostname or "") and not (token and parts.scheme == "https"):
            raise ConfigurationError(
                f"{server} is not this machine: it takes https and a token in {TOKEN_VARIABLE}, "
                "since anybody could read and change the vectors otherwise"
            )
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ids(self) -> set[str]:
        """Ask for the ids of the documents in the index.

        Raises:
            StoreError: see `session`.
        """
        with self.session() as session:
            return session.ids()

    def rewrite(self) -> None:
        """Copy the vectors to a new collection, which takes the place of the old one.

        A process that is killed leaves the old one, or none, which is made again. What the home
        itself has of a time before the server goes.

        Raises:
            StoreError: see `session`.
        """
        self._take_up()
        with self.held(), self._open() as now, self._client() as client:
            fresh = f"{_FRESH}{self.collection_name}"
            if fresh in {found.name for found in client.list_collections()}:
                client.delete_collection(fresh)
            then = self._collection(client, fresh)
            for ids, vectors, metadatas in now.everything():
                IndexSession(client, then, self.dimensions, None).add(ids, vectors, metadatas)
            client.delete_collection(self.collection_name)
            then.modify(name=self.collection_name)
            shutil.rmtree(self._folder, ignore_errors=True)
            make_private_folder(self._folder)

    @contextlib.contextmanager
    def session(self, writes: int = 0) -> Iterator[IndexSession]:
        """Use the index; others may do so meanwhile.

        Args:
            writes: how many documents are added, changed or removed, at most. They take effect at
                once.

        Raises:
            StoreError: the server cannot be used.
        """
        self._take_up()
        with self._open(writes) as session:
            yield session

    def copy_from_server(self, folder: Path) -> None:
        """Write the vectors to files; see `VectorIndex.copy_from_server`."""
        with self._open() as session:
            write_pages(folder, self.collection_name, session.everything())

    @contextlib.contextmanager
    def _open(self, writes: int | None = 0) -> Iterator[IndexSession]:
        with self._client() as client:
            collection = self._collection(client, self.collection_name)
            yield IndexSession(client, collection, self.dimensions, writes)

    def _collection(self, client: Any, name: str) -> Any:
        return client.get_or_create_collection(
            name, configuration={"hnsw": HNSW}, embedding_function=None
        )

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        # Chroma's client raises errors of any class, plain exceptions among them.
        with translated(self._unusable):
            client = self._connected()
            try:
                yield client
            finally:
                client.close()

    def _connected(self) -> Any:
        """Connect to the home's database, which is made where there is none."""
        # Importing Chroma takes longer than a run that finds nothing to do.
        import chromadb
        from chromadb.config import Settings

        parts = urlsplit(self._server)
        settings = Settings(anonymized_telemetry=False)
        connect = partial(
            chromadb.HttpClient,
            host=parts.hostname or "",
            port=parts.port or _PORTS[parts.scheme],
            ssl=parts.scheme == "https",
            headers=self._headers,
            settings=settings,
            database=self._database,
        )
        try:
            return connect()
        except Exception:
            # Whatever else is wrong is said by the second attempt.
            with contextlib.suppress(Exception):
                chromadb.AdminClient(settings).create_database(self._database)
            return connect()

    def _unusable(self, error: Exception) -> StoreError:
        said = " ".join(str(error).split())[:_SAID]
        return StoreError(
            f"the vector index on {self._server} cannot be used ({type(error).__name__}: {said}): "
            f"does `chroma run` serve there, and is the token in {TOKEN_VARIABLE} right?"
        )


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
