"""Pruning: what keeps a home within its retention settings."""

import datetime as dt
import logging
from pathlib import Path
from typing import Final

from dagster import DagsterInstance

from harmonizer_assets.core.base.clock import is_due, utc_now
from harmonizer_assets.core.base.errors import HarmonizerError, StoreError
from harmonizer_assets.core.base.files import write_atomically
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.publish.publishing import Publishing
from harmonizer_assets.core.store.prune import Freed, prune_files
from harmonizer_assets.core.store.snapshot import compact as compact_tables
from harmonizer_assets.core.store.warehouse import Warehouse
from harmonizer_assets.dagster_compat.retention import compact, prune_runs, prune_ticks

_EVERY: Final = dt.timedelta(days=1)
_STAMP: Final = ".pruned"
"""The file that says when a home was pruned, and how large its tables were when compacted."""
_WORTH_COMPACTING: Final = 1.1

_log = logging.getLogger(__name__)


def prune(
    home: Home,
    instance: DagsterInstance,
    settings: Settings,
    *,
    dry_run: bool = False,
    now: dt.datetime | None = None,
) -> list[Freed]:
    """Remove what the retention settings let go, or say only what would be removed.

    Args:
        home: the home.
        instance: of the home.
        settings: of the home.
        dry_run: whether to leave everything as it is.
        now: the present, from which ages are counted.
    """
    kept, now = settings.retention, now or utc_now()
    freed = [
        *prune_files(home, kept, now, dry_run=dry_run),
        prune_runs(instance, kept.run_days, kept.run_mb, now, dry_run=dry_run),
        prune_ticks(instance, kept.run_days, now, dry_run=dry_run),
    ]
    try:
        freed += _publishing(home, settings).prune(kept.version_days, now, dry_run=dry_run)
    except HarmonizerError as error:
        _log.warning("published versions are not pruned now: %s", error)
    if not dry_run:
        compact(instance)
        _compact_tables(home, settings)
    return freed


def _publishing(home: Home, settings: Settings) -> Publishing:
    warehouse = Warehouse(home, busy_timeout=settings.waits.database_seconds)
    return Publishing(warehouse, settings.publish)


def _compact_tables(home: Home, settings: Settings) -> None:
    """Compact the tables if they have grown since the last time, which the stamp tells."""
    stamp, size = _stamp(home), _size_of_tables(home)
    known = stamp.read_text(encoding="utf-8") if stamp.exists() else ""
    compacted = int(known) if known.isdecimal() else 0
    if size > _WORTH_COMPACTING * compacted:
        warehouse = Warehouse(home, busy_timeout=settings.waits.database_seconds)
        try:
            compact_tables(warehouse)
        except StoreError as error:
            _log.info("the tables are not compacted now: %s", error)
        else:
            compacted = _size_of_tables(home)
    write_atomically(stamp, str(compacted))


def _size_of_tables(home: Home) -> int:
    return home.database.stat().st_size if home.database.exists() else 0


def prune_if_due(home: Home, instance: DagsterInstance, settings: Settings) -> list[Freed]:
    """Prune where that has not been done for a day, as in homes that are never served."""
    now = utc_now()
    try:
        last = dt.datetime.fromtimestamp(_stamp(home).stat().st_mtime, dt.UTC)
    except FileNotFoundError:
        # A new home has nothing to prune.
        _stamp(home).touch()
        return []
    return prune(home, instance, settings, now=now) if is_due(last, _EVERY, now) else []


def _stamp(home: Home) -> Path:
    return home.root / _STAMP
