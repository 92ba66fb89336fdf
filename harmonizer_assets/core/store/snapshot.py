"""The read-only copy of the tables, for people's own shells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harmonizer_assets.core.base.files import make_private_folder, write_atomically
from harmonizer_assets.core.store.errors import store_error
from harmonizer_assets.core.store.warehouse import Warehouse


def publish_snapshot(
    warehouse: Warehouse, inputs: str = "", further: Callable[[], object] | None = None
) -> Path:
    """Copy the database to `Home.snapshot`, replacing the copy as a whole.

    People query the copy with any DuckDB client for as long as they like; an open shell keeps
    the copy that it has opened.

    Args:
        warehouse: whose tables.
        inputs: identifies everything else that was published with the copy, such as settings.
        further: publishes the copy elsewhere; where it fails, nothing counts as published.

    Returns:
        The copy.

    Raises:
        StoreBusyError: another process has held the file for too long.
        StoreError: the file or the disk is not usable; the copy is as it was.
    """
    target = warehouse.home.snapshot
    try:
        make_private_folder(target.parent)
        state = warehouse.copy_to(target)
        if further is not None:
            further()
        write_atomically(_stamp_file(warehouse), _stamp(state, inputs))
    except OSError as error:
        raise store_error(error, target) from error
    return target


def is_published(warehouse: Warehouse, inputs: str = "") -> bool:
    """Return whether the copy equals the tables and was made with the same inputs."""
    try:
        stamp = _stamp_file(warehouse).read_text(encoding="utf-8")
        return warehouse.home.snapshot.exists() and stamp == _stamp(warehouse.state(), inputs)
    except OSError:
        return False


def compact(warehouse: Warehouse) -> int:
    """Write the tables' file anew, and its copy where it is up to date; return the bytes freed.

    DuckDB fills its blocks only partly when rows come and go a few at a time.

    Raises:
        StoreBusyError: another process has held the file for too long.
        StoreError: the file or the disk is not usable; the file is as it was.
    """
    home, stamp = warehouse.home, _stamp_file(warehouse)
    files = [path for path in (home.database, home.snapshot) if path.exists()]
    before = sum(path.stat().st_size for path in files)
    state = warehouse.state()
    published = stamp.read_text(encoding="utf-8").strip() if stamp.exists() else ""
    warehouse.compact()
    if published.startswith(f"{state} "):
        publish_snapshot(warehouse, published.removeprefix(f"{state} "))
    return before - sum(path.stat().st_size for path in files)


def _stamp_file(warehouse: Warehouse) -> Path:
    return warehouse.home.snapshot.with_suffix(".published")


def _stamp(state: str, inputs: str) -> str:
    return f"{state} {inputs}\n"
