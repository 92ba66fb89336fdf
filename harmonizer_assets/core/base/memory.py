"""Memory: what is freed goes back to the operating system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any


def return_free_memory() -> None:
    """Return memory that this process has freed to the operating system.

    glibc keeps what it has for the next array, in pieces between others that are still in use, so
    that a step of large arrays after the other would each add to the memory of the process. Other
    C libraries return it by themselves; there this does nothing.
    """
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], Any] | None:
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # no library of that kind, as on Windows
        return None
