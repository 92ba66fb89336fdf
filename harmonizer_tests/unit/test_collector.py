"""Python's garbage collector does not go through what stays again and again."""

from __future__ import annotations

import gc

import pytest
from click.testing import CliRunner
from dagster import build_init_resource_context

from harmonizer_assets.cli import main
from harmonizer_assets.defs.resources import HomeResource


@pytest.fixture(autouse=True)
def _as_python_sets_it():
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_a_command_looks_for_garbage_seldom(home):
    CliRunner().invoke(main, ["rules", "list"])
    assert gc.get_threshold()[0] >= 50_000


def test_a_run_of_dagster_looks_for_garbage_seldom(home):
    HomeResource(home=str(home.root)).setup_for_execution(build_init_resource_context())
    assert gc.get_threshold()[0] >= 50_000
