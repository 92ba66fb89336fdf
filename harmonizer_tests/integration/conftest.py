"""Homes and servers that tests share."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from harmonizer_assets.core.base.home import Home
from harmonizer_tests.support.postgres import UnreachableError, german_server
from harmonizer_tests.support.units import copy_shops, opened, scored, scores


@pytest.fixture
def shops(home: Home) -> Home:
    """Six shops, whose labels are about to be scored."""
    copy_shops(home)
    return home


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The scores of the same shops, computed by the run itself."""
    home = Home(tmp_path_factory.mktemp("inline") / "home").ensure()
    copy_shops(home)
    pipeline = opened(home, executor="inline")
    scored(pipeline)
    return scores(pipeline)


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory):
    """A PostgreSQL whose messages are German."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(german_server(tmp_path_factory.mktemp("german")))
        except UnreachableError as error:
            pytest.skip(str(error))
