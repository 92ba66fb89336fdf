"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

_STAGED: Final = re.compile(r"\..+\.\d+\.\d+")
"""Names of the files that `staged` yields."""


def make_private_folder(folder: Path) -> None:
    """Make a folder for its owner alone, unless it is there; parents get the usual rights.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def restrict_to_folder(path: Path) -> None:
    """Withdraw the rights on a file that others do not have on its folder.

    Raises:
        OSError: there is no such file, or it belongs to somebody else.
    """
    path.chmod(path.stat().st_mode & path.parent.stat().st_mode & 0o777)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that readers see the old content or the new one, never a part.

    Text is encoded as UTF-8; line ends are written as they are. The folder must exist. A new file
    gets no rights that its folder does not have.

    Raises:
        OSError: the file cannot be written; what was there before is untouched.
    """
    with open_atomically(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes the place of `path` when the block ends without an error.

    Raises:
        OSError: the file cannot be written; what was there before is untouched.
    """
    with staged(path) as partial, _opened_restricted(partial) as file:
        yield file


def _opened_restricted(path: Path) -> BinaryIO:
    rights = path.parent.stat().st_mode & 0o666
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, rights), "wb")


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield the path of a new file that replaces `path` when the block ends without an error.

    For writers that want a path of their own. The name begins with a dot and ends with the ids of
    process and thread, so that patterns such as `*.parquet` do not match it and two writers do not
    share it. The file is removed when the block raises. A file that is replaced leaves its rights.

    Raises:
        OSError: the file cannot take the place of `path`.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        yield partial
        with suppress(FileNotFoundError):
            partial.chmod(path.stat().st_mode & 0o777)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def raise_again(error: OSError) -> None:
    """Raise an error that a callback is given."""
    raise error


def path_of(error: OSError) -> Path:
    """Return the file or folder that an error is about."""
    return Path(os.fsdecode(error.filename))


def files_in(
    folder: Path, refused: Callable[[PermissionError], object] = raise_again
) -> Iterator[Path]:
    """List the files of a folder and those in it, sorted by folder; links are not followed.

    What goes meanwhile is left out, as is everything in a folder that is not there.

    Args:
        folder: is looked through.
        refused: called for each folder that may not be read; without it that is an error.

    Raises:
        OSError: a folder cannot be read.
    """

    def failed(error: OSError) -> None:
        if isinstance(error, PermissionError):
            refused(error)
        elif not isinstance(error, FileNotFoundError):
            raise error

    for parent, folders, names in os.walk(folder, onerror=failed):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path
            except OSError as error:
                failed(error)


def unfinished(folder: Path) -> list[Path]:
    """List the files of a folder that `staged` has not finished: some process writes, or wrote, it.

    Raises:
        OSError: the folder cannot be read.
    """
    return [path for path in folder.glob(".*") if _STAGED.fullmatch(path.name)]


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; of a link, the link alone.

    Raises:
        OSError: a file cannot be removed. What cannot be removed of a folder stays.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_to_disk(*paths: Path) -> None:
    """Wait until files are on the disk, or the names that folders hold.

    What other processes see is lost with the power all the same, until it is synced: the content of
    a file by the file itself, a new or changed name by its folder.

    Raises:
        OSError: one cannot be read, or the disk has failed.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
