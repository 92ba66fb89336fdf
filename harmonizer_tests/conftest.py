"""Fixtures: a home of its own for every test; PostgreSQL and the real data where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_tests.support.homes import copy_home, keep_homes_in
from harmonizer_tests.support.postgres import UnreachableError, temporary_database

# How long an example takes says more about the machine than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

SROIE = Path(__file__).parents[2] / "shared" / "data" / "sroie_dev"


@pytest.fixture(scope="session", autouse=True)
def _homes(tmp_path_factory: pytest.TempPathFactory) -> None:
    keep_homes_in(tmp_path_factory.mktemp("homes"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of the test's own, with empty tables: making them takes a tenth of a second."""
    home = Home(tmp_path / "home").ensure()
    copy_home(home, "tables", lambda fresh: Pipeline(fresh).warehouse.query("SELECT 1"))
    monkeypatch.setenv("HARMONIZER_HOME", str(home.root))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HARMONIZER_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def bare_home(home: Home) -> Home:
    """The same without tables: whoever writes first makes them."""
    home.database.unlink()
    return home


@pytest.fixture
def pipeline(home: Home) -> Pipeline:
    return Pipeline(home)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths that are synced to the disk, in order."""
    paths: list[Path] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        paths.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return paths


@pytest.fixture(scope="session")
def sroie() -> Path:
    if not SROIE.is_dir():
        pytest.skip("the shared data (sroie_dev) is not beside this checkout")
    return SROIE


@pytest.fixture
def postgres_url() -> Iterator[str]:
    with reachable_database() as url:
        yield url


@pytest.fixture
def second_postgres_url() -> Iterator[str]:
    with reachable_database() as url:
        yield url


@contextmanager
def reachable_database() -> Iterator[str]:
    with ExitStack() as stack:
        try:
            url = stack.enter_context(temporary_database())
        except UnreachableError as error:
            pytest.skip(str(error))
        yield url
