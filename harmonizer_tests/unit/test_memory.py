from __future__ import annotations

import os
import platform
import subprocess
import sys
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


KEEPS = """
import resource
import numpy as np
from harmonizer_assets.core.base.memory import keep_free_memory

keep_free_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def compute():
    return [np.ones(2**20, dtype=np.uint8) for _ in range(30)]

compute()
before = faults()
for _ in range(5):
    compute()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_process_of_units_does_not_ask_the_system_for_the_same_memory_again():
    ended = subprocess.run(
        [sys.executable, "-c", KEEPS], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 1_000
