"""Back a home up while things run.

Whatever is copied is as if the power had failed at that moment, from which every part of a home
recovers; and in this order, nothing falls between two parts:

1. The inbox, before the tables: a batch that is ingested meanwhile is in both, and changes nothing
   when it is ingested again.
2. Tables and vectors, under the lock of the vector index, so that they fit each other. A server's
   are read page by page after the tables: it has all that these know, and what is new besides.
3. Journals of paid answers, after the tables: those that were in the tables by then are skipped by
   their position. Where a journal has gone meanwhile, the tables are copied again.
4. Dagster's files in SQLite, by SQLite's own backup; and everything else.

What people have put into the inbox and may not be read is left out, and said: one such file would
stop all backups. Any other file that may not be read is the home's own, and there is no backup
without it.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harmonizer_assets.core.backup.archive import Archive, Manifest, StoredFile, new_name
from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.base.errors import InputError, StoreError
from harmonizer_assets.core.base.files import (
    files_in,
    make_private_folder,
    path_of,
    raise_again,
)
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.locks import Lock
from harmonizer_assets.core.base.progress import Progress, ProgressFn
from harmonizer_assets.core.base.scratch import scratch_folder
from harmonizer_assets.core.index.vectors import VectorIndex
from harmonizer_assets.core.store.warehouse import Warehouse

_OF_SQLITE: Final = re.compile(r"\.db(-wal|-shm|-journal)?$")
_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class BackupReport:
    """A backup that was made.

    Attributes:
        name: of the backup.
        files: how many files it holds.
        size: their bytes.
        stored: bytes that no earlier backup had.
        removed: how many old backups were removed.
        events_elsewhere: whether Dagster keeps runs and events outside of the home.
        left_out: files and folders of the inbox that may not be read, which it does not hold.
    """

    name: str
    files: int
    size: int
    stored: int
    removed: int
    events_elsewhere: bool
    left_out: Sequence[Path]


def back_up(
    warehouse: Warehouse,
    vectors: VectorIndex,
    archive: Archive,
    *,
    keep: int | None = None,
    on_progress: ProgressFn | None = None,
) -> BackupReport:
    """Copy a home to an archive; processes that use the home go on meanwhile.

    Tables and vectors are copied within the home first, which needs room for them.

    Args:
        warehouse: of the home.
        vectors: of the home.
        archive: holds the backups of this home alone.
        keep: how many backups to keep, this one included; None keeps all.
        on_progress: called for each file.

    Raises:
        InputError: the home holds no tables.
        StoreBusyError: another process backs the home up, or has held a part of it for too long.
        StoreError: the home cannot be read, or the archive not be written; no backup was added.
    """
    home = warehouse.home
    if not home.database.exists():
        raise InputError(f"{home.root} holds no tables yet: there is nothing to back up")
    name = new_name(utc_now())
    lock = Lock(home.locks / "backup.lock", f"backing {home.root} up", timeout=0)
    with lock.held(), scratch_folder(home) as scratch:
        try:
            copied, left_out = _copies(warehouse, vectors, scratch)
            files = [*_stored(archive, copied, home, on_progress)]
        except PermissionError as error:
            raise StoreError(
                f"{home.root} cannot be backed up: {error.filename}: {error.strerror}; see that "
                "it belongs to the user who makes the backup, or move it out of the home"
            ) from error
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{home.root} cannot be backed up: {error}") from error
        manifest = Manifest(name, tuple(files))
        archive.finish(manifest)
        removed = 0 if keep is None else archive.keep_latest(keep)
    return BackupReport(
        name,
        len(manifest.files),
        manifest.size,
        archive.stored_bytes,
        removed,
        events_elsewhere=not (home.dagster / "history" / "runs.db").exists()
        and (home.dagster / "dagster.yaml").exists(),
        left_out=left_out,
    )


def _copies(
    warehouse: Warehouse, vectors: VectorIndex, scratch: Path
) -> tuple[Path, Sequence[Path]]:
    """Copy what others may change at any moment.

    Returns:
        The folder of the copies, and what of the inbox may not be read.
    """
    home, folder = warehouse.home, scratch / "home"
    left_out: list[Path] = []
    make_private_folder(folder)
    _copy_tree(home.inbox, folder / home.inbox.name, lambda error: left_out.append(path_of(error)))
    _copy_tables(warehouse, vectors, folder)
    for path in home.dagster.rglob("*.db"):
        _copy_sqlite(path, folder / path.relative_to(home.root))
    return folder, left_out


def _copy_tables(warehouse: Warehouse, vectors: VectorIndex, folder: Path) -> None:
    """Copy tables, vectors and journals, so that every paid answer is in one of them."""
    home = warehouse.home
    for _ in range(_ATTEMPTS):
        before = {path.name for path in home.journals.glob("*")}
        with vectors.held():
            warehouse.copy_to(folder / home.database.name)
            shutil.rmtree(folder / home.chroma.name, ignore_errors=True)
            _copy_tree(home.chroma, folder / home.chroma.name)
            shutil.rmtree(folder / home.restored_vectors.name, ignore_errors=True)
            _copy_tree(home.restored_vectors, folder / home.restored_vectors.name)
            vectors.copy_from_server(folder / home.restored_vectors.name)
        shutil.rmtree(folder / home.journals.name, ignore_errors=True)
        _copy_tree(home.journals, folder / home.journals.name)
        if before <= {path.name for path in (folder / home.journals.name).glob("*")}:
            return
    raise StoreError(
        f"{home.root}: runs that ask a model have ended {_ATTEMPTS} times while their answers were "
        "copied: back it up again"
    )


def _copy_tree(
    source: Path, target: Path, refused: Callable[[PermissionError], object] = raise_again
) -> None:
    """Copy the files of a folder; one that goes meanwhile is left out."""
    make_private_folder(target)
    for path in files_in(source, refused):
        copy = target / path.relative_to(source)
        make_private_folder(copy.parent)
        try:
            shutil.copyfile(path, copy)
        except FileNotFoundError:
            continue
        except PermissionError as error:
            refused(error)


def _copy_sqlite(source: Path, target: Path) -> None:
    make_private_folder(target.parent)
    try:
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=30.0)) as now,
            closing(sqlite3.connect(target)) as then,
        ):
            now.backup(then, pages=1_000)
            # A database in WAL mode cannot be opened where nobody may write beside it.
            then.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        # SQLite says neither which file it is, nor whether it is gone or may not be read.
        with suppress(FileNotFoundError), source.open("rb"):
            raise StoreError(f"{source} cannot be copied: {error}") from error


def _stored(
    archive: Archive, copied: Path, home: Home, on_progress: ProgressFn | None
) -> Iterator[StoredFile]:
    """Store the copies, and the files of the home of which there need be none."""
    files = {path.relative_to(home.root): path for path in _unchanging(home)}
    files |= {path.relative_to(copied): path for path in files_in(copied)}
    for done, (name, path) in enumerate(sorted(files.items()), start=1):
        with suppress(FileNotFoundError), path.open("rb") as file:
            yield archive.add(name.as_posix(), file)
        if on_progress is not None:
            on_progress(Progress("backup", 0, 0, done, len(files)))


def _unchanging(home: Home) -> Iterator[Path]:
    """List the files of a home that are written as a whole or by their end, such as reports.

    What a home makes anew is left out, and what belongs to the processes that use it: a server's
    files change while they are read.
    """
    folders = {home.scratch, home.locks, home.snapshot.parent, home.units}
    folders |= {home.chroma, home.new_chroma, home.old_chroma, home.restored_vectors}
    folders |= {home.chroma_server, home.inbox, home.journals}

    def top_of(path: Path) -> Path:
        return Path(home.root, *path.relative_to(home.root).parts[:1])

    def refused(error: PermissionError) -> None:
        if top_of(path_of(error)) not in folders:
            raise error

    for path in files_in(home.root, refused):
        top = top_of(path)
        is_tables = path.name.startswith(home.database.name)
        is_dagsters_database = top == home.dagster and _OF_SQLITE.search(path.name)
        if top not in folders and not is_tables and not is_dagsters_database:
            yield path
