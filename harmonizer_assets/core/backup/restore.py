"""Restore a home from a backup."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import PurePosixPath

from harmonizer_assets.core.backup.archive import Archive, StoredFile
from harmonizer_assets.core.base.errors import InputError, StoreError
from harmonizer_assets.core.base.files import make_private_folder, sync_to_disk
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.progress import Progress, ProgressFn


@dataclass(frozen=True)
class RestoreReport:
    """A backup that was restored.

    Attributes:
        name: of the backup.
        files: how many files it held.
        size: their bytes.
    """

    name: str
    files: int
    size: int


def restore(
    archive: Archive,
    home: Home,
    name: str | None = None,
    on_progress: ProgressFn | None = None,
) -> RestoreReport:
    """Make a home of a backup. It appears as a whole once all files are there and intact.

    Args:
        archive: holds the backup.
        home: the new home; nothing may be there yet but an empty folder.
        name: of the backup; by default the latest.
        on_progress: called for each file.

    Raises:
        InputError: the folder is not empty, or there is no such backup.
        StoreError: the backup is damaged, or the archive cannot be read, or the home not be
            written; there is no home then.
    """
    if home.root.exists() and (not home.root.is_dir() or any(home.root.iterdir())):
        raise InputError(f"{home.root} is not empty: restore into a new home, with --home")
    chosen = name or (archive.names() or [""])[-1]
    if not chosen:
        raise InputError(f"{archive.url} holds no backup: check the address")
    manifest = archive.manifest(chosen)
    root = home.root
    partial = root.with_name(f".{root.name}.restoring")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        make_private_folder(partial)
        for done, file in enumerate(manifest.files, start=1):
            _write(archive, file, Home(partial))
            if on_progress is not None:
                on_progress(Progress("restore", 0, 0, done, len(manifest.files)))
        sync_to_disk(*(path for path in partial.rglob("*") if path.is_dir()), partial)
        if root.is_dir():
            root.rmdir()
        partial.rename(root)
        sync_to_disk(root.parent)
    except OSError as error:
        raise StoreError(f"{root} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    home.ensure()
    return RestoreReport(chosen, len(manifest.files), manifest.size)


def _write(archive: Archive, stored: StoredFile, home: Home) -> None:
    path = home.root / stored.path
    for folder in reversed(PurePosixPath(stored.path).parents):
        make_private_folder(home.root / folder)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for content in archive.chunks(stored):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
