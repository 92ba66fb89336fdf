"""Publishing the tables of a home: the copy in it, and the target of its settings."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.locks import Lock
from harmonizer_assets.core.base.settings import PublishSettings
from harmonizer_assets.core.publish.ducklake import DuckLakeTarget
from harmonizer_assets.core.publish.parquet import ParquetTarget
from harmonizer_assets.core.publish.target import Target, Version
from harmonizer_assets.core.store.objects import open_store
from harmonizer_assets.core.store.prune import Freed
from harmonizer_assets.core.store.snapshot import publish_snapshot
from harmonizer_assets.core.store.warehouse import Warehouse


def open_target(home: Home, settings: PublishSettings) -> Target | None:
    """Open the target of a home's settings; None where there is only the copy in the home.

    Raises:
        ConfigurationError: an extra is not installed.
    """
    if settings.target == "copy" or settings.url is None:
        return None
    store = open_store(settings.url, settings.endpoint_url)
    if settings.target == "parquet":
        return ParquetTarget(home, store)
    return DuckLakeTarget(home, store, settings.catalog, settings.endpoint_url)


class Publishing:
    """Publishes the tables of one home; its processes take turns."""

    def __init__(self, warehouse: Warehouse, settings: PublishSettings) -> None:
        """Bind to a home; nothing is opened yet.

        Args:
            warehouse: the home's tables.
            settings: where to.
        """
        self._warehouse = warehouse
        self._home = warehouse.home
        self._settings = settings
        self._lock = Lock(self._home.locks / "publish.lock", "publishing the tables")

    def publish(self, run_id: str, message: str, inputs: str) -> tuple[Path, Version | None]:
        """Publish the tables as they are: first the copy, then what is made of it.

        Args:
            run_id: the run that publishes.
            message: what it found.
            inputs: see `publish_snapshot`.

        Returns:
            The copy, and the version at the target, if there is one.

        Raises:
            ConfigurationError: an extra is not installed.
            StoreError: the copy or the target cannot be written; the next run publishes.
        """
        versions: list[Version] = []
        target = open_target(self._home, self._settings)

        def further() -> None:
            if target is not None:
                versions.append(target.publish(run_id, message))

        with self._lock.held():
            copy = publish_snapshot(self._warehouse, inputs, further)
        return copy, versions[0] if versions else None

    def clear(self) -> None:
        """Remove all versions at the target; the next run publishes one."""
        target = open_target(self._home, self._settings)
        if target is not None:
            with self._lock.held():
                target.clear()

    def prune(self, days: float, now: dt.datetime, *, dry_run: bool) -> list[Freed]:
        """Expire versions older than some days; say only what would go where it is a dry run.

        Raises:
            StoreError: the target cannot be read or written.
        """
        target = open_target(self._home, self._settings)
        if target is None:
            return []
        with self._lock.held():
            old = [
                version
                for version in target.versions()[:-1]
                if version.published_at <= now - dt.timedelta(days=days)
            ]
            if not dry_run:
                target.expire(old)
        return [Freed("published versions", len(old), 0)]
