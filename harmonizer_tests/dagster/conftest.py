"""An instance and a home that has been run, made once for all tests; runs without pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from dagster import DagsterInstance

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.postgres import (
    OwnServer,
    UnreachableError,
    german_server,
    temporary_database,
)
from harmonizer_tests.support.shops import copy_shop

UNDRAWN = str(Path(__file__).parents[1] / "support" / "undrawn")


@pytest.fixture(autouse=True)
def _without_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is a good part of a small run's time: only tests marked `pictures` have it done.

    That holds for processes that tests start, too.
    """
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setenv("PYTHONPATH", UNDRAWN, prepend=os.pathsep)


@pytest.fixture
def instance(home: Home) -> Iterator[DagsterInstance]:
    """The instance of the home: a copy of one that has been made, where the home has none."""
    if not (home.dagster / "dagster.yaml").exists():
        copy_home(home, "an instance", _open_once)
    with open_instance(home) as instance:
        yield instance


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """A PostgreSQL of the tests' own, whose messages are German."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(german_server(tmp_path_factory.mktemp("german")))
        except UnreachableError as error:
            pytest.skip(str(error))


@pytest.fixture
def german_url(german: OwnServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database of its own on that server, which Dagster's instance is to be in."""
    with temporary_database(german.url) as url:
        monkeypatch.setenv("DAGSTER_PG_URL", url)
        yield url


@pytest.fixture
def shop(home: Home) -> Pipeline:
    """A home on whose labels the pipeline has run once.

    A test that opens the home's instance too asks for it after this one.
    """
    copy_shop(home)
    return Pipeline(home)


def _open_once(home: Home) -> None:
    with open_instance(home):
        pass
