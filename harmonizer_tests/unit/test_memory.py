from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import pytest

from harmonizer_assets.core.base.memory import return_free_memory

MEGABYTE = 2**20


def resident() -> int:
    """The memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do it themselves")
def test_what_was_freed_between_arrays_that_are_still_in_use_is_returned():
    arrays = [np.ones(100_000, dtype=np.uint8) for _ in range(1_000)]
    in_use = arrays[::2]
    del arrays
    before = resident()
    return_free_memory()
    assert before - resident() > 30 * MEGABYTE
    assert all(array.all() for array in in_use)
