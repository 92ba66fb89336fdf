"""Temporary folders of a home, and what is left of them when a process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.scratch import scratch_folder

HOLD = """
import sys, time
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.scratch import scratch_folder
with scratch_folder(Home.resolve(sys.argv[1])) as folder:
    (folder / "labels.parquet").write_text("private")
    print(folder, flush=True)
    time.sleep(600)
"""


def holding_process(home: Home) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_folder_is_private_and_gone_with_all_in_it_after_the_block(home):
    with scratch_folder(home) as folder:
        assert folder.parent == home.scratch
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("x")
    assert [*home.scratch.iterdir()] == []


def test_what_a_killed_process_leaves_is_removed_by_the_next(home):
    process, left = holding_process(home)
    process.kill()
    process.wait()
    assert os.path.exists(f"{left}/labels.parquet")
    with scratch_folder(home) as folder:
        assert {path.stem for path in home.scratch.iterdir()} == {folder.name}
    assert [*home.scratch.iterdir()] == []


def test_what_a_process_still_uses_stays_also_while_it_is_stopped(home):
    process, used = holding_process(home)
    try:
        process.send_signal(signal.SIGSTOP)
        with scratch_folder(home):
            pass
        assert os.path.exists(f"{used}/labels.parquet")
    finally:
        process.kill()
        process.wait()


def test_what_earlier_versions_left_is_removed_after_a_day(home):
    for name, age in (("ingest-1-ab.duckdb", 90_000), ("ingest-2-cd.duckdb", 60)):
        (home.scratch / name).write_text("x")
        then = (home.scratch / name).stat().st_mtime - age
        os.utime(home.scratch / name, (then, then))
    with scratch_folder(home):
        pass
    assert [path.name for path in home.scratch.iterdir()] == ["ingest-2-cd.duckdb"]


def test_a_home_that_is_removed_meanwhile_is_not_made_again(home):
    with scratch_folder(home):
        home.root.rename(home.root.with_name("moved"))
    assert not home.root.exists()
