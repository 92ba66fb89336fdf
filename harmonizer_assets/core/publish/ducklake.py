"""Tables published in a DuckLake: one snapshot per run, with what has changed since the last.

The catalog is a file of SQLite beside the data, which readers do not lock as they would one of
DuckDB, or it is in PostgreSQL; the data are Parquet files on a disk or on
S3. Snapshots that were not expired can be read at any time.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlsplit

import duckdb

from harmonizer_assets.core.base.errors import ConfigurationError, StoreError
from harmonizer_assets.core.base.extras import needs_extra
from harmonizer_assets.core.base.files import make_private_folder
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.identity import HomeIdentity
from harmonizer_assets.core.base.secrets import REPLACEMENT, translated
from harmonizer_assets.core.base.sql import literal, quoted
from harmonizer_assets.core.publish.changes import replace_changed
from harmonizer_assets.core.publish.copied import copied_tables, in_memory
from harmonizer_assets.core.publish.target import Check, Target, Version
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.export import EXPORTABLE, table_query
from harmonizer_assets.core.store.extensions import load_extension
from harmonizer_assets.core.store.objects import FileStore, ObjectStore

LAKE: Final = "lake"
_AUTHOR: Final = "label-harmonizer"
_CATALOG: Final = "catalog.sqlite"
_DATA: Final = "data"
_VERSIONS: Final = f"""
SELECT snapshot_id::VARCHAR, snapshot_time, coalesce(commit_message, ''), commit_extra_info
FROM {LAKE}.snapshots() WHERE author = {literal(_AUTHOR)} ORDER BY snapshot_id
"""
_FILES: Final = f"""
SELECT table_name, file_count FROM ducklake_table_info({literal(LAKE)}) WHERE schema_id = 0
"""
"""Of each table of the schema that a lake begins with; one that has no files has no rows, since
none are in the catalog."""


class DuckLakeTarget(Target):
    """Snapshots of the tables in a DuckLake."""

    def __init__(
        self, home: Home, store: ObjectStore, catalog: str | None, endpoint_url: str | None
    ) -> None:
        """Bind to a DuckLake; nothing is opened yet.

        Args:
            home: whose tables are published.
            store: where the data are.
            catalog: `postgresql://user@host/database`; by default a file beside the data.
            endpoint_url: of a server that speaks S3, where it is not Amazon's.
        """
        self._home = home
        self._store = store
        self._catalog = catalog
        self._endpoint_url = endpoint_url

    def publish(self, run_id: str, message: str, home: HomeIdentity, check: Check) -> Version:
        """Commit what has changed in one snapshot; see `Target.publish`."""
        with copied_tables(self._home) as con, self._lake(con):
            con.execute("BEGIN")
            check(next(reversed(_versions(con)), None))
            stored = dict(con.execute(_FILES).fetchall())
            for table in EXPORTABLE:
                query, there = table_query(con, table, "typed"), f"{LAKE}.{quoted(table)}"
                empty = stored.get(table) == 0
                replace_changed(con, query, there, exists=table in stored, empty=empty)
            info = json.dumps({"run_id": run_id, "home": asdict(home)})
            con.execute(
                f"CALL {LAKE}.set_commit_message($author, $message, extra_info => $info)",
                {"author": _AUTHOR, "message": message, "info": info},
            )
            con.execute("COMMIT")
            return _versions(con)[-1]

    def versions(self) -> list[Version]:
        """List the snapshots that runs have made; see `Target.versions`."""
        if not self._exists():
            return []
        with in_memory() as con, self._lake(con):
            return _versions(con)

    def _exists(self) -> bool:
        return self._catalog is not None or self._store.exists(_CATALOG)

    def expire(self, versions: Sequence[Version]) -> None:
        """Expire snapshots, merge small files, remove those unused; see `Target.expire`."""
        if not self._exists():
            return
        with in_memory() as con, self._lake(con):
            latest = _versions(con)[-1:]
            gone = [int(version.name) for version in versions if version not in latest]
            if gone:
                con.execute(f"CALL ducklake_expire_snapshots('{LAKE}', versions => {gone})")
            con.execute(f"CALL ducklake_merge_adjacent_files('{LAKE}')")
            con.execute(f"CALL ducklake_rewrite_data_files('{LAKE}')")
            con.execute(f"CALL ducklake_cleanup_old_files('{LAKE}', cleanup_all => true)")

    def clear(self) -> None:
        """Drop all tables, expire what held them, and remove all files; see `Target.clear`."""
        if not self._exists():
            return
        with in_memory() as con, self._lake(con):
            for table in EXPORTABLE:
                con.execute(f"DROP TABLE IF EXISTS {LAKE}.{quoted(table)}")
            con.execute(f"CALL ducklake_expire_snapshots('{LAKE}', older_than => now())")
            con.execute(f"CALL ducklake_cleanup_old_files('{LAKE}', cleanup_all => true)")
            con.execute(f"CALL ducklake_delete_orphaned_files('{LAKE}', cleanup_all => true)")
        # DuckDB takes any answer with status 200 to mean that a file is gone.
        self._store.delete_folder(_DATA)
        if self._catalog is None:
            # Deleted rows stay in the catalog's file until they are overwritten.
            self._store.delete([_CATALOG])

    def reading(self, version: str | None = None) -> str:
        """Attach the DuckLake, as of a snapshot; see `Target.reading`."""
        if version is not None and version not in {found.name for found in self.versions()}:
            raise StoreError(f"{self._store.url} holds no version {version}")
        at = "" if version is None else f", SNAPSHOT_VERSION {int(version)}"
        return f"ATTACH {literal(self._address())} AS harmonizer (READ_ONLY{at});\nUSE harmonizer;"

    def _address(self) -> str:
        if self._catalog is None:
            return f"ducklake:sqlite:{self._store.address(_CATALOG)}"
        return f"ducklake:postgres:{self._catalog}"

    @contextmanager
    def _lake(self, con: Connection) -> Iterator[None]:
        """Attach the DuckLake as `LAKE`, which is made where there is none."""
        hidden: list[str] = []

        def ours(error: Exception) -> StoreError:
            try:
                self._reach()
            except StoreError as cause:
                return cause
            text = " ".join(str(error).partition("Stack Trace")[0].split())
            for secret in hidden:
                text = text.replace(secret, REPLACEMENT)
            return StoreError(
                f"the DuckLake at {self._store.url} cannot be used: {text} (nothing was published; "
                "run again when it can)"
            )

        load_extension(con, "ducklake")
        load_extension(con, "sqlite_scanner" if self._catalog is None else "postgres_scanner")
        if isinstance(self._store, FileStore):
            with translated(ours, OSError):
                make_private_folder(self._store.folder)
        else:
            self._reach()
            load_extension(con, "httpfs")
            secret, hidden = _s3_secret(self._store.url, self._endpoint_url)
            with translated(ours, duckdb.Error):
                con.execute(secret)
        data = literal(f"{self._store.address(_DATA)}/")
        with translated(ours, duckdb.Error):
            # Small tables would be rows in the catalog otherwise.
            con.execute(
                f"ATTACH {literal(self._address())} AS {LAKE} "
                f"(DATA_PATH {data}, DATA_INLINING_ROW_LIMIT 0)"
            )
            try:
                yield
            except BaseException:
                con.interrupt()
                raise
            con.execute(f"DETACH {LAKE}")

    def _reach(self) -> None:
        """Ask the store something: DuckDB takes a login page for what the store says.

        Raises:
            StoreError: the store does not answer.
        """
        self._store.exists(_CATALOG)


def _versions(con: Connection) -> list[Version]:
    return [
        _version(name, time, message, json.loads(info))
        for name, time, message, info in con.execute(_VERSIONS).fetchall()
    ]


def _version(name: str, time: dt.datetime, message: str, info: dict[str, Any]) -> Version:
    identity = HomeIdentity.from_json(info.get("home"))
    return Version(name, info["run_id"], message, time.astimezone(dt.UTC), identity)


def _s3_secret(url: str, endpoint_url: str | None) -> tuple[str, list[str]]:
    """Write the statement that gives DuckDB the credentials of the environment for a bucket.

    Returns:
        The statement, and what in it must not be shown.

    Raises:
        ConfigurationError: boto3 is not installed, or there are no credentials.
    """
    with needs_extra("s3", url):
        import boto3
    session = boto3.Session()
    found = session.get_credentials()
    if found is None:
        raise ConfigurationError(f"{url}: there are no credentials of AWS in the environment")
    keys = found.get_frozen_credentials()
    options = {
        "KEY_ID": keys.access_key,
        "SECRET": keys.secret_key,
        "SESSION_TOKEN": keys.token,
        "REGION": session.region_name,
        "SCOPE": url,
    }
    if endpoint_url is not None:
        parts = urlsplit(endpoint_url)
        options |= {"ENDPOINT": parts.netloc, "URL_STYLE": "path"}
        options |= {"USE_SSL": "true" if parts.scheme == "https" else "false"}
    given = {name: value for name, value in options.items() if value}
    listed = ", ".join(f"{name} {literal(value)}" for name, value in given.items())
    hidden = [value for value in (keys.access_key, keys.secret_key, keys.token) if value]
    return f"CREATE SECRET published (TYPE s3, {listed})", hidden
