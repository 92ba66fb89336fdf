"""The inbox: a folder of inbox batches that wait to be ingested."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.base.errors import InputError, StoreError
from harmonizer_assets.core.base.files import make_private_folder, sync_to_disk, write_atomically
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.entries import (
    DECLARED,
    MANIFEST,
    OWN_STAMP,
    SUBMITTED,
    InboxBatch,
    own_time,
    read_entry,
)
from harmonizer_assets.core.ingest.layouts import LABELS, WORDS
from harmonizer_assets.core.ingest.readers import TableLayout, check_file

__all__ = ["Inbox", "InboxBatch", "submit_batch", "submit_files"]

_DONE, _FAILED = ".done", ".failed"


def submit_batch(
    home: Home,
    words: Path | None,
    labels: Path | None,
    *,
    time: dt.datetime | None = None,
    source: str | None = None,
) -> Path:
    """Copy files into the inbox as one batch.

    Args:
        home: the home whose inbox it is.
        words: a words file or None.
        labels: a labels file or None.
        time: the batch's time; where batches disagree, the later one wins. Default: later than
            all that is there when it arrives.
        source: origin of the files, if it is not their own paths. They are not checked then:
            a file that cannot be read is moved to `.failed` when it is ingested.

    Returns:
        The batch's folder.

    Raises:
        InputError: a file cannot be read or lacks a column; nothing was copied.
        StoreError: the inbox cannot be written; nothing was copied.
    """
    given = _given(words, labels)
    if not given:
        raise InputError("a batch needs a words file, a labels file, or both")
    if source is None:
        for layout, path in given:
            check_file(path, layout)
    origins = {
        layout.name: str(path) if source is None else f"{source}/{path.name}"
        for layout, path in given
    }
    files = {f"{layout.name}{path.suffix.lower()}": path for layout, path in given}
    return submit_files(home, files, origins, time)


def submit_files(
    home: Home,
    files: Mapping[str, Path],
    origins: Mapping[str, str],
    time: dt.datetime | None = None,
) -> Path:
    """Copy files into the inbox as one batch, as they are.

    Args:
        home: the home whose inbox it is.
        files: by the name that they get.
        origins: by table, where its file comes from.
        time: the batch's time; see `submit_batch`.

    Returns:
        The batch's folder.

    Raises:
        StoreError: the inbox cannot be written; nothing was copied.
    """
    home.ensure()
    submitted = _after_all_that_wait(home.inbox)
    name = f"{submitted:{OWN_STAMP}}-{secrets.token_hex(3)}"
    partial = _partial(home.inbox / name)
    try:
        partial.mkdir(mode=0o700)
        for file, path in files.items():
            shutil.copyfile(path, partial / file)
        manifest = {
            SUBMITTED if time is None else DECLARED: (time or submitted).isoformat(),
            "source": dict(origins),
        }
        write_atomically(partial / MANIFEST, json.dumps(manifest, ensure_ascii=False))
        # Whoever submits counts the files as taken, and may delete them.
        sync_to_disk(*partial.iterdir(), partial)
        folder = partial.rename(home.inbox / name)
        sync_to_disk(home.inbox)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StoreError(f"{home.inbox}: the batch cannot be copied: {error.strerror}") from error
    return folder


class Inbox:
    """The inbox of a home, as a queue of batches.

    A folder is a batch when its name does not begin with a dot and it holds `words.*` or
    `labels.*`; copy files into a folder with a dot and rename it when it is complete. Links are
    not followed.
    """

    def __init__(self, home: Home) -> None:
        self._folder = home.inbox

    def pending(self) -> list[InboxBatch]:
        """List the batches that wait, oldest first."""
        if not self._folder.is_dir():
            return []
        found = []
        for path in sorted(self._folder.iterdir()):
            if not path.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # another run has just taken it
                    batch = read_entry(path)
                    if batch is not None:
                        found.append(batch)
        return sorted(found, key=lambda batch: (batch.time, batch.folder.name))

    def waiting(self) -> str | None:
        """Hash what waits, so that the hash changes with every arrival; None when empty."""
        batches = self.pending()
        if not batches:
            return None
        digest = hashlib.sha256()
        for batch in batches:
            digest.update(f"{batch.folder.name}\n{batch.problem}\n".encode())
            for _, path in batch.files:
                with contextlib.suppress(FileNotFoundError):
                    state = path.stat()
                    content = f"{path.name}\n{state.st_size}\n{state.st_mtime_ns}\n"
                    digest.update(f"{batch.folder.name}\n{content}".encode())
        return digest.hexdigest()[:16]

    def remove(self, batch: InboxBatch) -> None:
        """Remove an ingested batch: delete our own copies, move people's files to `.done`.

        Raises:
            OSError: it cannot be moved.
        """
        if batch.submitted:
            # What a killed process leaves of it must not look like another batch that waits.
            partial = _partial(batch.folder)
            with contextlib.suppress(FileNotFoundError):  # another run has removed it
                batch.folder.rename(partial)
            shutil.rmtree(partial, ignore_errors=True)
        else:
            self._move(batch, _DONE)

    def move_to_failed(self, batch: InboxBatch, error: str) -> None:
        """Move an unreadable batch to `.failed`, with the error in `error.txt` beside its files.

        Raises:
            OSError: it cannot be moved.
        """
        target = self._move(batch, _FAILED)
        if target is not None:
            with contextlib.suppress(OSError):  # the table `quarantine` holds the error as well
                _write_beside(target / "error.txt", error + "\n")

    def _move(self, batch: InboxBatch, name: str) -> Path | None:
        """Move a batch; return the folder that holds it, None when another run has moved it.

        What is no folder, a link for example, is moved into one.
        """
        destination = _free(self._own_folder(name) / batch.folder.name)
        is_folder = batch.folder.is_dir() and not batch.folder.is_symlink()
        if not is_folder:
            destination.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            if is_folder:
                return _moved(batch.folder, destination)
            batch.folder.rename(destination / batch.folder.name)
            return destination
        return None

    def _own_folder(self, name: str) -> Path:
        """Make a folder of ours in the inbox; a link in its place would lead out of the home."""
        folder = self._folder / name
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            folder.rename(_free(self._folder / f"{name}-moved"))
        make_private_folder(folder)
        return folder


def _after_all_that_wait(inbox: Path) -> dt.datetime:
    """Return the present time, or one after all batches that wait if the clock was set back."""
    times = (own_time(path.name.removeprefix(".")) for path in inbox.iterdir())
    latest = max((time for time in times if time is not None), default=None)
    now = utc_now()
    return now if latest is None else max(now, latest + dt.timedelta(microseconds=1))


def _moved(folder: Path, destination: Path) -> Path:
    """Move a folder, whatever its mode, and return where it is then.

    Who may not write to a folder cannot move it into another one. Our own is made writable; one of
    somebody else stays in the inbox under a name that is passed over.

    Raises:
        OSError: it cannot be moved at all.
    """
    try:
        return folder.rename(destination)
    except PermissionError:
        with contextlib.suppress(PermissionError):
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IRWXU)
            return folder.rename(destination)
        return folder.rename(
            _free(folder.with_name(f"{destination.parent.name}-{destination.name}"))
        )


def _partial(folder: Path) -> Path:
    """Return what the folder of a submitted batch is called while it is made or removed."""
    return folder.with_name(f".{folder.name}")


def _free(path: Path) -> Path:
    """Return the path, with a suffix if it is taken."""
    is_taken = path.exists() or path.is_symlink()
    return path.with_name(f"{path.name}-{secrets.token_hex(3)}") if is_taken else path


def _write_beside(path: Path, text: str) -> None:
    """Write a file among files of others: a link that waits under its name is replaced."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def _given(words: Path | None, labels: Path | None) -> list[tuple[TableLayout, Path]]:
    both = ((WORDS, words), (LABELS, labels))
    return [(layout, path) for layout, path in both if path is not None]
