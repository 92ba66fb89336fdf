"""Backups in an object store: files in chunks that are named by their content, and a list of them.

A chunk that an earlier backup has stored is not stored again. A backup counts once its manifest is
there, which is written last; what a killed one has stored already, the next one finds.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from harmonizer_assets.core.base.errors import InputError, StoreError
from harmonizer_assets.core.store.objects import MissingObjectError, ObjectStore, open_store

CHUNK_BYTES: Final = 4 << 20
_VERSION: Final = 1
_CHUNKS: Final = "chunks/"
_MANIFESTS: Final = "backups/"
_NAME: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredFile:
    """A file of a backup.

    Attributes:
        path: within the home, with `/` between folders.
        size: in bytes.
        chunks: names of its chunks, in their order.
    """

    path: str
    size: int
    chunks: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What a backup holds.

    Attributes:
        name: of the backup: the time at which it was begun, in UTC.
        files: of the home.
    """

    name: str
    files: tuple[StoredFile, ...]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)


def open_archive(url: str) -> Archive:
    """Open the archive at a URL, or in a folder that is given by its path; nothing is read yet.

    Raises:
        ConfigurationError: it is no URL of a store, or the extra for it is not installed.
    """
    return Archive(open_store(url if "://" in url else Path(url).expanduser().absolute().as_uri()))


def new_name(now: dt.datetime) -> str:
    """Name a backup by its time."""
    return f"{now.astimezone(dt.UTC):%Y%m%dT%H%M%S.%f}Z"


class Archive:
    """The backups of one home in an object store."""

    def __init__(self, store: ObjectStore) -> None:
        self.url = store.url
        self.stored_bytes = 0
        """Bytes of the chunks that were stored because no backup had them yet."""
        self._store = store

    def add(self, path: str, file: BinaryIO) -> StoredFile:
        """Store a file.

        Raises:
            OSError: the file cannot be read.
            StoreError: the store cannot be written.
        """
        size, chunks = 0, []
        while content := file.read(CHUNK_BYTES):
            digest = hashlib.sha256(content).hexdigest()
            name = _CHUNKS + digest
            if not self._store.exists(name) and self._store.put(name, content):
                self.stored_bytes += len(content)
            size += len(content)
            chunks.append(digest)
        return StoredFile(path, size, tuple(chunks))

    def finish(self, manifest: Manifest) -> None:
        """Store the list of a backup's files, with which it counts.

        Raises:
            StoreError: the store cannot be written.
        """
        files = [vars(file) for file in manifest.files]
        content = json.dumps({"version": _VERSION, "files": files}).encode()
        if manifest.files:
            self._store.sync(_CHUNKS)
        self._store.put(f"{_MANIFESTS}{manifest.name}.json", content)
        self._store.sync(_MANIFESTS)

    def names(self) -> list[str]:
        """List the backups, the earliest first.

        Raises:
            StoreError: the store cannot be read.
        """
        found = (PurePosixPath(name) for name in self._store.list(_MANIFESTS))
        return [path.stem for path in found if _NAME.fullmatch(path.stem)]

    def manifest(self, name: str) -> Manifest:
        """Read the list of a backup's files.

        Raises:
            InputError: there is no such backup.
            StoreError: it is damaged, or the store cannot be read.
        """
        try:
            content = self._store.get(f"{_MANIFESTS}{name}.json")
        except MissingObjectError:
            known = ", ".join(self.names()[-3:]) or "none"
            raise InputError(
                f"{self.url} holds no backup {name!r}; the latest ones are {known}"
            ) from None
        try:
            read = json.loads(content)
            if read["version"] != _VERSION:
                raise InputError(
                    f"{self.url}: the backup {name} was made by a later version: upgrade first"
                )
            return Manifest(name, tuple(_stored_file(file) for file in read["files"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.url}: the list of the backup {name} is damaged: restore another one"
            ) from error

    def chunks(self, file: StoredFile) -> Iterator[bytes]:
        """Read a file, chunk by chunk.

        Raises:
            StoreError: a chunk is missing or is not what was stored, or the store cannot be read.
        """
        for digest in file.chunks:
            try:
                content = self._store.get(_CHUNKS + digest)
            except MissingObjectError:
                content = b""
            if hashlib.sha256(content).hexdigest() != digest:
                raise StoreError(
                    f"{self.url}: {file.path} is damaged (chunk {digest[:12]} is missing or not "
                    "what was stored): restore another backup"
                )
            yield content

    def keep_latest(self, count: int) -> int:
        """Remove all backups but the latest ones, and the chunks that no other one has.

        Returns:
            How many backups were removed.

        Raises:
            StoreError: the store cannot be read or written.
        """
        names = self.names()
        old, kept = names[:-count], names[-count:]
        if not old:
            return 0
        needed = {
            _CHUNKS + chunk
            for name in kept
            for file in self.manifest(name).files
            for chunk in file.chunks
        }
        # A backup without its chunks is worse than chunks without a backup.
        self._store.delete(f"{_MANIFESTS}{name}.json" for name in old)
        self._store.delete(name for name in self._store.list(_CHUNKS) if name not in needed)
        return len(old)


def _stored_file(read: Any) -> StoredFile:
    """Check what a manifest says of a file.

    Raises:
        ValueError: it is of no file within a home.
    """
    file = StoredFile(read["path"], int(read["size"]), tuple(read["chunks"]))
    path = PurePosixPath(file.path)
    leads_out = path.is_absolute() or ".." in path.parts or "\0" in file.path
    if leads_out or not path.parts or not all(_DIGEST.fullmatch(chunk) for chunk in file.chunks):
        raise ValueError(file.path)
    return file
