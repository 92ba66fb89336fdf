"""Object stores by URL: `file://` on a disk that all share, or `s3://`.

An object is written as a whole or not at all, and never changed, but for those that are uploaded.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from harmonizer_assets.core.base.aws import aws_client, error_code
from harmonizer_assets.core.base.errors import ConfigurationError, StoreError
from harmonizer_assets.core.base.extras import needs_extra
from harmonizer_assets.core.base.files import make_private_folder, staged, sync_to_disk
from harmonizer_assets.core.base.secrets import translated

_PARTIAL: Final = ".partial-"
_DELETED_AT_ONCE: Final = 1_000
"""The most that S3 takes in one request."""


class MissingObjectError(StoreError):
    """There is no object of this name."""


class ObjectStore(ABC):
    """Objects of one place, by names such as `results/abc.parquet`.

    Attributes:
        url: of the place.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def address(self, name: str) -> str:
        """Return where a DuckDB reads an object: a path, or a URL."""

    @abstractmethod
    def put(self, name: str, content: bytes) -> bool:
        """Store an object unless there is one of this name; return whether there was none.

        Raises:
            StoreError: it cannot be written; nothing of it is visible.
        """

    def sync(self, folder: str) -> None:  # noqa: B027
        """Wait until the names of what was put into a folder are durable, where they are not yet.

        Raises:
            StoreError: the place has failed.
        """

    @abstractmethod
    def upload(self, name: str, file: Path) -> None:
        """Store the content of a file as an object, in place of one of this name.

        Raises:
            StoreError: it cannot be written; what was there is as it was.
        """

    @abstractmethod
    def get(self, name: str) -> bytes:
        """Read an object.

        Raises:
            MissingObjectError: there is none.
            StoreError: it cannot be read.
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Say whether there is an object.

        Raises:
            StoreError: the place cannot be read.
        """

    @abstractmethod
    def list(self, prefix: str) -> list[str]:
        """List the names in a folder that begin with a prefix such as `dead/` or `dead/ab`; sorted.

        Raises:
            StoreError: the place cannot be read.
        """

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there are passed over.

        Raises:
            StoreError: the place cannot be written.
        """

    def discard_unfinished(self, seconds: float) -> None:  # noqa: B027  some leave nothing
        """Remove what writers have left that ended in the middle of an object.

        Args:
            seconds: since it was last written to.
        """

    @abstractmethod
    def delete_folder(self, folder: str) -> None:
        """Delete all objects whose names begin with a folder's and `/`.

        Raises:
            StoreError: the place cannot be written.
        """


def open_store(url: str, endpoint_url: str | None = None) -> ObjectStore:
    """Open the store of a URL; nothing is read yet.

    Args:
        url: `file:///folder`, or `s3://bucket/prefix` with credentials from the environment.
        endpoint_url: of a server that speaks S3, where it is not Amazon's.

    Raises:
        ConfigurationError: it is no such URL, or the extra for it is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return FileStore(url)
    if parts.scheme == "s3" and parts.netloc:
        return S3Store(url, endpoint_url)
    raise ConfigurationError(f"{url!r} is no store: write file:///folder or s3://bucket/prefix")


class FileStore(ObjectStore):
    """Files in a folder, which several machines may share.

    Attributes:
        folder: the folder.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.folder = Path(unquote(urlsplit(url).path))

    def address(self, name: str) -> str:
        """Return the path of a file; see `ObjectStore.address`."""
        return str(self.folder / name)

    def put(self, name: str, content: bytes) -> bool:
        """Write a file and give it its name; see `ObjectStore.put`."""
        path = self.folder / name
        with self._errors(name):
            self._make_folder(path.parent)
            descriptor, partial = tempfile.mkstemp(prefix=_PARTIAL, dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(descriptor)
                Path(partial).chmod(path.parent.stat().st_mode & 0o666)
                return _linked(Path(partial), path)
            finally:
                Path(partial).unlink(missing_ok=True)

    def sync(self, folder: str) -> None:
        """Sync a folder and its name; see `ObjectStore.sync`."""
        with self._errors(folder):
            sync_to_disk(self.folder / folder, self.folder)

    def upload(self, name: str, file: Path) -> None:
        """Copy a file and give it its name; see `ObjectStore.upload`."""
        path = self.folder / name
        with self._errors(name):
            self._make_folder(path.parent)
            with staged(path) as partial:
                shutil.copyfile(file, partial)
                sync_to_disk(partial)
                partial.chmod(path.parent.stat().st_mode & 0o666)
            sync_to_disk(path.parent)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder with the rights of the store's own, which workers of other users share."""
        if folder.exists():
            return
        make_private_folder(self.folder)
        with suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(self.folder.stat().st_mode & 0o777)

    def get(self, name: str) -> bytes:
        """Read a file; see `ObjectStore.get`."""
        with self._errors(name):
            return (self.folder / name).read_bytes()

    def exists(self, name: str) -> bool:
        """Look for a file; see `ObjectStore.exists`."""
        with self._errors(name):
            return (self.folder / name).exists()

    def list(self, prefix: str) -> list[str]:
        """List the files of a folder; see `ObjectStore.list`."""
        folder, _, start = prefix.rpartition("/")
        with suppress(MissingObjectError), self._errors(prefix):
            found = (path.name for path in (self.folder / folder).iterdir())
            names = [name for name in found if name.startswith(start)]
            # What is not finished begins with a dot.
            start = f"{folder}/" if folder else ""
            return sorted(f"{start}{name}" for name in names if not name.startswith("."))
        return []

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; see `ObjectStore.delete`."""
        for name in names:
            with self._errors(name):
                (self.folder / name).unlink(missing_ok=True)

    def discard_unfinished(self, seconds: float) -> None:
        """Remove files that never got their names; see `ObjectStore.discard_unfinished`."""
        for path in self.folder.glob(f"*/{_PARTIAL}*"):
            # Its writer may finish meanwhile.
            with suppress(MissingObjectError), self._errors(path.name):
                if time.time() - path.stat().st_mtime >= seconds:
                    path.unlink()

    def delete_folder(self, folder: str) -> None:
        """Remove a folder with its files; see `ObjectStore.delete_folder`."""
        with suppress(MissingObjectError), self._errors(folder):
            shutil.rmtree(self.folder / folder)

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise MissingObjectError(f"{self.url} holds no {name}") from None
        except OSError as error:
            raise StoreError(f"{self.url}: {name}: {error.strerror}") from error


def _linked(partial: Path, path: Path) -> bool:
    """Give a finished file its name, unless that is taken."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError:
        # Some network file systems have no links. Who loses the race has written the same.
        if path.exists():
            return False
        partial.replace(path)
    return True


class S3Store(ObjectStore):
    """Objects under a prefix of a bucket."""

    def __init__(self, url: str, endpoint_url: str | None = None) -> None:
        super().__init__(url)
        parts = urlsplit(url)
        self._bucket = parts.netloc
        prefix = parts.path.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        with needs_extra("s3", url), self._errors(""):
            self._client: Any = aws_client("s3", endpoint_url=endpoint_url)

    def address(self, name: str) -> str:
        """Return the URL of an object; see `ObjectStore.address`."""
        return f"s3://{self._bucket}/{self._prefix}{name}"

    def put(self, name: str, content: bytes) -> bool:
        """Put an object with a condition; see `ObjectStore.put`."""
        from botocore.exceptions import ClientError

        with self._errors(name):
            try:
                self._client.put_object(
                    Bucket=self._bucket, Key=self._prefix + name, Body=content, IfNoneMatch="*"
                )
            except ClientError as error:
                # The second is what a put gets that loses against one at the same moment.
                if error_code(error) in ("PreconditionFailed", "ConditionalRequestConflict"):
                    return False
                raise
        return True

    def upload(self, name: str, file: Path) -> None:
        """Put a file, a large one in parts; see `ObjectStore.upload`."""
        from boto3.exceptions import S3UploadFailedError

        with self._errors(name):
            try:
                self._client.upload_file(str(file), self._bucket, self._prefix + name)
            except S3UploadFailedError as error:
                # It says nothing that can be told apart; what it was raised in does.
                raise error.__context__ or StoreError(f"{self.url}: {name}") from None

    def get(self, name: str) -> bytes:
        """Get an object; see `ObjectStore.get`."""
        with self._errors(name):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            content: bytes = answer["Body"].read()
        return content

    def exists(self, name: str) -> bool:
        """Ask for an object's head; see `ObjectStore.exists`."""
        with suppress(MissingObjectError), self._errors(name):
            self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
            return True
        return False

    def list(self, prefix: str) -> list[str]:
        """List objects page by page; see `ObjectStore.list`."""
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            return sorted(
                found["Key"].removeprefix(self._prefix)
                for page in pages
                for found in page.get("Contents", [])
            )

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, many in one request; see `ObjectStore.delete`."""
        keys = [{"Key": self._prefix + name} for name in names]
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            wanted = {"Objects": keys[start : start + _DELETED_AT_ONCE], "Quiet": True}
            with self._errors(""):
                self._client.delete_objects(Bucket=self._bucket, Delete=wanted)

    def delete_folder(self, folder: str) -> None:
        """Delete what is listed in a folder; see `ObjectStore.delete_folder`."""
        self.delete(self.list(f"{folder}/"))

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        def ours(error: Exception) -> StoreError:
            if isinstance(error, ClientError):
                code = error_code(error)
                if code in ("NoSuchKey", "404"):
                    return MissingObjectError(f"{self.url} holds no {name}")
                return StoreError(
                    f"{self.url}: the bucket answers {code}: check its name, and that the "
                    "credentials in the environment may list, read and write it"
                )
            return StoreError(
                f"{self.url}: the bucket cannot be reached ({error_code(error)}): check the "
                "network, the credentials in the environment and, where the server is not "
                "Amazon's, its address"
            )

        with translated(ours, ClientError, BotoCoreError, ValueError):
            yield
