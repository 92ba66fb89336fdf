"""Receipts are private: nobody but the owner can read a home, whichever door made it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_tests.support.cli import cli_process
from harmonizer_tests.support.receipts import harmonize, shop_receipts

KILLED = """
import os, signal, sys
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest import batches
from harmonizer_assets.core.pipeline import Pipeline
batches.merge_batch = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Pipeline(Home.resolve(sys.argv[1])).ingest()
"""


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def readable_by_others(home: Home) -> list[str]:
    """What others than the owner have any right on."""
    paths = [home.root, *home.root.rglob("*")]
    return [str(path) for path in paths if path.lstat().st_mode & 0o077]


def test_a_home_that_commands_make_is_readable_by_its_owner_alone(tmp_path):
    words, labels = shop_receipts().write(tmp_path / "files")
    home = Home(tmp_path / "parent" / "home")
    result = cli_process("run", "--words", words, "--labels", labels, home=home.root)
    assert result.returncode == 0, result.stderr
    assert (home.reports / "latest.html").exists()
    assert len([*home.root.rglob("*")]) > 20
    assert readable_by_others(home) == []
    assert home.root.parent.stat().st_mode & 0o777 == 0o755


def test_what_a_python_caller_makes_of_receipts_is_readable_by_its_owner_alone(tmp_path):
    home = Home(tmp_path / "home")
    pipeline = Pipeline(home)
    shop_receipts().submit(pipeline, tmp_path / "files")
    harmonize(pipeline)
    assert home.root.stat().st_mode & 0o777 == 0o700
    ours = {home.database, home.snapshot, home.reports / "latest.html", home.inbox, home.chroma}
    assert ours & {Path(path) for path in readable_by_others(home)} == set()


def test_an_ingest_that_is_killed_leaves_nothing_after_the_next(home, tmp_path):
    pipeline = Pipeline(home)
    shop_receipts().submit(pipeline, tmp_path / "files")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(home.root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = {path for path in home.scratch.rglob("*") if path.name.startswith("ingest.duckdb")}
    assert left
    assert pipeline.ingest().batches
    assert not any(path.exists() for path in left)
    assert not [*home.scratch.rglob("ingest*")]
