"""One error for whatever goes wrong while a file is read."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from harmonizer_assets.core.base.errors import HarmonizerError, InputError, StoreError
from harmonizer_assets.core.base.interrupts import raise_interrupt_in

_LONGEST: Final = 300
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}


@contextmanager
def readable(name: Path | str) -> Iterator[None]:
    """Turn every error that a file can cause into `InputError`.

    Libraries raise errors of many kinds on damaged files, and one that got through would stop all
    files that wait behind it. What the file cannot be blamed for goes on: a full disk, a file that
    is gone, an interrupt.

    Args:
        name: of the file, for the message.

    Raises:
        InputError: the file cannot be read.
        StoreError: the disk is full, or too many files are open.
    """
    try:
        yield
    except (HarmonizerError, FileNotFoundError, duckdb.IOException, duckdb.InterruptException):
        raise
    except OSError as error:
        reason = error.strerror or _first_line(error)
        if error.errno in _NO_ROOM:
            raise StoreError(f"{name}: {reason}: make room and run again") from error
        raise InputError(f"{name}: cannot be read ({reason})") from error
    except (MemoryError, duckdb.OutOfMemoryException) as error:
        raise InputError(f"{name}: there is not enough memory for it: split it") from error
    except Exception as error:
        raise_interrupt_in(error)
        kind = type(error).__name__
        raise InputError(
            f"{name}: a damaged file, or not of the format that its suffix names "
            f"({kind}: {_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:_LONGEST] if lines else ""
