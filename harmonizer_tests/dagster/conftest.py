"""An instance and a home that has been run, made once for all tests; runs without pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from dagster import DagsterInstance

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.shops import copy_shop


@pytest.fixture(autouse=True)
def _without_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is a good part of a small run's time: only tests marked `pictures` have it done."""
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture
def instance(home: Home) -> Iterator[DagsterInstance]:
    """The instance of the home: a copy of one that has been made, where the home has none."""
    if not (home.dagster / "dagster.yaml").exists():
        copy_home(home, "an instance", _open_once)
    with open_instance(home) as instance:
        yield instance


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
