"""Fixtures: a home of its own for every test; PostgreSQL and the real data where they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.postgres import UnreachableError, temporary_database
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home

SROIE = Path(__file__).parents[2] / "shared" / "data" / "sroie_dev"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = Home(tmp_path / "home").ensure()
    monkeypatch.setenv("HARMONIZER_HOME", str(home.root))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HARMONIZER_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def harmonizer(home: Home) -> Harmonizer:
    return Harmonizer(home)


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
