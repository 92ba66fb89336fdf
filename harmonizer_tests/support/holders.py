"""Another process that has a database open, so that this one has to wait."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HOLD = (
    "import duckdb, sys, time; c = duckdb.connect(sys.argv[1], read_only={read_only}); "
    "print('held', flush=True); time.sleep(60)"
)


def held_by_another_process(path: Path, *, read_only: bool) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(read_only=read_only), str(path)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process
