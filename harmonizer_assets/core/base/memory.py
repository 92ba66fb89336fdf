"""Memory that is freed: returned to the operating system, or kept for what comes next."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Final

import pyarrow as pa

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Parameters of `mallopt`, as malloc.h numbers them."""
_KEPT: Final = 512 * 2**20
_LARGEST_KEPT: Final = 32 * 2**20
"""Of one array: the most that all versions of glibc accept."""


def return_free_memory() -> None:
    """Return memory that this process has freed to the operating system.

    glibc keeps what it has for the next array, in pieces between others that are still in use, so
    that a step of large arrays after the other would each add to the memory of the process. Other
    C libraries return it by themselves; there this does nothing.
    """
    if library := _c_library("malloc_trim"):
        library.malloc_trim(0)


def keep_free_memory() -> None:
    """Keep memory that this process frees, up to 512 MB, for what it computes next.

    A process that works on one unit after the other would return arrays after each and ask for the
    same again. The system fills such memory with zeros first, and does so for one process at a
    time in part, which holds the others up.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    if library := _c_library("mallopt"):
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)


@cache
def _c_library(function: str) -> ctypes.CDLL | None:
    """Open the C library, if it has the function."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # no library of that kind, as on Windows
        return None
    return library if hasattr(library, function) else None
