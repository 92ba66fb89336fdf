"""Publishing the tables of a home: the copy in it, and the target of its settings."""

from __future__ import annotations

import datetime as dt
import logging
from functools import partial
from pathlib import Path

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.identity import HomeIdentity, identity_of
from harmonizer_assets.core.base.locks import Lock
from harmonizer_assets.core.base.settings import PublishSettings
from harmonizer_assets.core.publish.ducklake import DuckLakeTarget
from harmonizer_assets.core.publish.parquet import ParquetTarget
from harmonizer_assets.core.publish.target import Target, Version
from harmonizer_assets.core.store.objects import open_store
from harmonizer_assets.core.store.prune import Freed
from harmonizer_assets.core.store.snapshot import publish_snapshot
from harmonizer_assets.core.store.warehouse import Warehouse

_log = logging.getLogger(__name__)


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
            ConfigurationError: an extra is not installed, or another home publishes there.
            StoreError: the copy or the target cannot be written; the next run publishes.
        """
        versions: list[Version] = []
        target = open_target(self._home, self._settings)

        def further() -> None:
            if target is not None:
                ours = identity_of(self._home)
                check = partial(self._check, ours)
                versions.append(target.publish(run_id, message, ours, check))

        with self._lock.held():
            copy = publish_snapshot(self._warehouse, inputs, further)
        return copy, versions[0] if versions else None

    def clear(self) -> None:
        """Remove all versions of this home at the target; the next run publishes one.

        Where another home publishes there now, its versions stay.
        """
        target = open_target(self._home, self._settings)
        if target is None:
            return
        with self._lock.held():
            versions = target.versions()
            if versions and not self._is_ours(versions[-1]):
                target.expire([*filter(self._is_ours, versions)])
            else:
                target.clear()

    def _check(self, ours: HomeIdentity, latest: Version | None) -> None:
        """Check that this home may publish after a version.

        Raises:
            ConfigurationError: it is another home's.
        """
        before = None if latest is None else latest.home
        if before is None or before.id == self._settings.take_over:
            return
        if before.id != ours.id:
            place = self._settings.catalog or self._settings.url
            raise ConfigurationError(
                f"{place} holds what {before} has published, and this is {ours}: give each home a "
                "place of its own in [publish], or have this one go on there in the place of the "
                f'other with take_over = "{before.id}"'
            )
        if before.name != ours.name:
            _log.warning("this home has published before as %s, now it is %s", before, ours)

    def _is_ours(self, version: Version) -> bool:
        return version.home is None or version.home.id == identity_of(self._home).id

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
                if self._is_ours(version) and version.published_at <= now - dt.timedelta(days=days)
            ]
            if not dry_run:
                target.expire(old)
        return [Freed("published versions", len(old), 0)]
