"""Batches that arrive under a prefix of an S3 bucket."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from harmonizer_assets.core.base.aws import aws_client, error_code
from harmonizer_assets.core.base.errors import SourceError
from harmonizer_assets.core.base.extras import needs_extra
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.scratch import scratch_folder
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.ingest.inbox import submit_files
from harmonizer_assets.core.ingest.readers import SUFFIXES
from harmonizer_assets.core.ingest.sources.base import Source, digest
from harmonizer_assets.core.store.warehouse import Warehouse

COMPLETE: Final = "_SUCCESS"
"""The object that marks a folder as complete, as Hadoop and Spark write it."""

_TABLES: Final = ("words", "labels")
_LONG_AGO: Final = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass
class _Folder:
    """A folder of the bucket: its objects by name, each with key and ETag."""

    objects: dict[str, tuple[str, str]] = field(default_factory=dict)
    newest: dt.datetime = _LONG_AGO

    @property
    def files(self) -> dict[str, tuple[str, str]]:
        """The objects that hold words or labels."""
        return {
            name: found
            for name, found in sorted(self.objects.items())
            if Path(name).stem.lower() in _TABLES and Path(name).suffix.lower() in SUFFIXES
        }

    @property
    def version(self) -> str:
        """A hash that changes when an object changes."""
        return digest(f"{name}\n{etag}" for name, (_, etag) in self.files.items())


class S3Source(Source):
    """Folders under a prefix: each holds `words.*` and/or `labels.*` and is one batch.

    A folder waits until an object `_SUCCESS` lies in it. One whose objects change arrives again.
    Credentials come from the environment, as boto3 finds them.
    """

    def __init__(
        self, address: str, endpoint_url: str | None, home: Home, warehouse: Warehouse
    ) -> None:
        """Bind to a prefix; nothing is requested yet.

        Args:
            address: `s3://bucket/prefix`.
            endpoint_url: of another server than Amazon's; None means Amazon's.
            home: whose inbox gets the batches.
            warehouse: records which folders have been copied.
        """
        super().__init__(address.rstrip("/"), home, warehouse)
        parts = urlsplit(address)
        self._bucket = parts.netloc
        prefix = parts.path.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint_url = endpoint_url

    def waiting(self) -> str | None:
        """Hash the folders that are new; see `Source.waiting`."""
        new = self._new(self._client())
        if not new:
            return None
        return digest(f"{name}\n{folder.version}" for name, folder in new.items())

    def pull(self) -> int:
        """Copy the folders that are new, oldest first; see `Source.pull`."""
        client = self._client()
        pulled = 0
        new = self._new(client)
        for name, folder in sorted(new.items(), key=lambda item: (item[1].newest, item[0])):
            with scratch_folder(self._home) as scratch:
                files = self._download(client, folder, scratch)
                place = f"{self.name}/{name}".rstrip("/")
                origins = {Path(file).stem.lower(): f"{place}/{file}" for file in files}
                submit_files(self._home, files, origins, folder.newest)
            self._record({name: folder.version})
            pulled += 1
        return pulled

    def _client(self) -> Any:
        with needs_extra("s3", self.name, SourceError), self._readable():
            return aws_client("s3", endpoint_url=self._endpoint_url)

    def _new(self, client: Any) -> dict[str, _Folder]:
        """List the complete folders that have not been copied in their present version."""
        folders = self._folders(client)
        taken = self._taken()
        return {
            name: folder
            for name, folder in sorted(folders.items())
            if COMPLETE in folder.objects and folder.files and taken.get(name) != folder.version
        }

    def _folders(self, client: Any) -> dict[str, _Folder]:
        folders: dict[str, _Folder] = {}
        with self._readable():
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for page in pages:
                for found in page.get("Contents", []):
                    path, _, name = found["Key"].removeprefix(self._prefix).rpartition("/")
                    folder = folders.setdefault(path, _Folder())
                    folder.objects[name] = (found["Key"], found["ETag"])
                    folder.newest = max(folder.newest, found["LastModified"])
        return folders

    def _download(self, client: Any, folder: _Folder, target: Path) -> dict[str, Path]:
        files = {}
        for name, (key, etag) in folder.files.items():
            file = target / name
            with self._readable():
                # An object that has changed since it was listed belongs to the next arrival.
                found = client.get_object(Bucket=self._bucket, Key=key, IfMatch=etag)
                with file.open("wb") as out:
                    shutil.copyfileobj(found["Body"], out)
            files[name] = file
        return files

    @contextmanager
    def _readable(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        def unreadable(error: Exception) -> SourceError:
            if isinstance(error, ClientError):
                return SourceError(
                    f"{self.name}: the bucket answers {error_code(error)}: check its name, "
                    "and that the credentials in the environment may list and read it"
                )
            return SourceError(
                f"{self.name}: the bucket cannot be reached ({error_code(error)}): check the "
                "network, the credentials in the environment and [arrivals] s3_endpoint_url"
            )

        # boto3 says with a ValueError that an address is none.
        with translated(unreadable, ClientError, BotoCoreError, ValueError):
            yield
