"""Tables published as Parquet in an object store: a folder for each version, a pointer last.

```text
URL/current.json               the manifest of the latest version, replaced last
URL/manifests/VERSION.json     run, message, time, and the rows of each table
URL/VERSION/outliers.parquet   one file for each table
```

So a reader finds a whole version or the one before, and a version stays as it is until it expires.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

import duckdb

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.identity import HomeIdentity
from harmonizer_assets.core.base.scratch import scratch_folder
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.base.sql import literal, quoted
from harmonizer_assets.core.publish.copied import copied_tables
from harmonizer_assets.core.publish.target import Check, Target, Version
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.errors import store_error
from harmonizer_assets.core.store.export import EXPORTABLE, table_query
from harmonizer_assets.core.store.objects import MissingObjectError, ObjectStore

CURRENT: Final = "current.json"
_MANIFESTS: Final = "manifests/"
_SUFFIX: Final = ".json"
_VERSION: Final = re.compile(r"\d{8}T\d{12}-[A-Za-z0-9_-]*")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_RUN_ID: Final = 60


class ParquetTarget(Target):
    """Versions of the tables as files in an object store."""

    def __init__(self, home: Home, store: ObjectStore) -> None:
        self._home = home
        self._store = store

    def publish(self, run_id: str, message: str, home: HomeIdentity, check: Check) -> Version:
        """Write the files of a version, its manifest, and the pointer; see `Target.publish`."""
        now = utc_now()
        current = self._current()
        check(current)
        if current is not None:
            # A clock that was set back must not put a new version before an old one.
            now = max(now, current.published_at + dt.timedelta(microseconds=1))
        name = f"{now:%Y%m%dT%H%M%S%f}-{_UNSAFE.sub('-', run_id)[:_LONGEST_RUN_ID]}"
        self._remove_unfinished()
        with scratch_folder(self._home) as folder, copied_tables(self._home) as con:
            rows = {}
            for table in EXPORTABLE:
                file = folder / f"{table}.parquet"
                rows[table] = self._write(con, table, file)
                self._store.upload(f"{name}/{file.name}", file)
                file.unlink()
            version = Version(name, run_id, message, now, home)
            manifest = folder / CURRENT
            manifest.write_text(_as_json(version, rows), encoding="utf-8")
            self._store.upload(f"{_MANIFESTS}{name}{_SUFFIX}", manifest)
            self._store.upload(CURRENT, manifest)
        return version

    def _write(self, con: Connection, table: str, file: Path) -> int:
        """Write one table to a file; return its rows."""
        with translated(lambda error: store_error(error, self._home.snapshot), duckdb.Error):
            query = table_query(con, table, "typed")
            options = "FORMAT parquet, COMPRESSION zstd"
            found = con.execute(f"COPY ({query}) TO {literal(str(file))} ({options})").fetchall()
        return int(found[0][0])

    def versions(self) -> list[Version]:
        """Read the manifests up to the one that is pointed to; see `Target.versions`."""
        current = self._current()
        if current is None:
            return []
        contents = [self._store.get(name) for name in self._store.list(_MANIFESTS)]
        found = sorted(map(_from_json, contents), key=lambda version: version.published_at)
        return [version for version in found if version.published_at <= current.published_at]

    def _current(self) -> Version | None:
        with suppress(MissingObjectError):
            return _from_json(self._store.get(CURRENT))
        return None

    def _remove_unfinished(self) -> None:
        """Remove what a killed process has left of a version, or of the removal of one."""
        finished = {version.name for version in self.versions()}
        for name in self._stored():
            if name not in finished:
                self._remove(name)

    def _stored(self) -> set[str]:
        """List the names of versions of which anything is stored."""
        manifests = (name.removeprefix(_MANIFESTS) for name in self._store.list(_MANIFESTS))
        found = {name.partition("/")[0] for name in self._store.list("")}
        found |= {name.removesuffix(_SUFFIX) for name in manifests}
        return {name for name in found if _VERSION.fullmatch(name)}

    def _remove(self, name: str) -> None:
        self._store.delete([f"{_MANIFESTS}{name}{_SUFFIX}"])
        self._store.delete_folder(name)

    def expire(self, versions: Sequence[Version]) -> None:
        """Remove manifests first, then files; see `Target.expire`."""
        current = self._current()
        for version in versions:
            if version != current:
                self._remove(version.name)

    def clear(self) -> None:
        """Remove the pointer, then all else; see `Target.clear`."""
        self._store.delete([CURRENT])
        self._remove_unfinished()

    def reading(self, version: str | None = None) -> str:
        """Make views of the files; see `Target.reading`."""
        known = {found.name: found for found in self.versions()}
        name = version or next(reversed(known), None)
        if name is None or name not in known:
            raise StoreError(f"{self._store.url} holds no version {name or 'yet'}")
        files = {table: self._store.address(f"{name}/{table}.parquet") for table in EXPORTABLE}
        return "\n".join(
            f"CREATE VIEW {quoted(table)} AS FROM read_parquet({literal(file)});"
            for table, file in files.items()
        )


def _as_json(version: Version, rows: Mapping[str, int]) -> str:
    content = {
        "version": version.name,
        "run_id": version.run_id,
        "message": version.message,
        "published_at": version.published_at.isoformat(),
        "home": None if version.home is None else asdict(version.home),
        "rows": dict(rows),
    }
    return json.dumps(content, indent=1)


def _from_json(content: bytes) -> Version:
    """Read what `_as_json` has written.

    Raises:
        StoreError: it is something else.
    """

    def ours(error: Exception) -> StoreError:
        return StoreError(
            f"what is published cannot be read: {CURRENT} or a manifest is damaged "
            f"({type(error).__name__})"
        )

    with translated(ours, ValueError, KeyError, TypeError):
        found = json.loads(content)
        published_at = dt.datetime.fromisoformat(found["published_at"])
        home = HomeIdentity.from_json(found.get("home"))
        return Version(found["version"], found["run_id"], found["message"], published_at, home)
