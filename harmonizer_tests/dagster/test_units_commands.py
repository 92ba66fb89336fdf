"""`harmonizer units list|retry`, and runs whose units fail."""

from __future__ import annotations

import json

import pytest

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_tests.support.cli import cli
from harmonizer_tests.support.units import Poison, copy_shops, poisoned_by, scores

SPOILED = merchant_key("Gamma Bar")
SETTINGS = """
[units]
executor = "processes"
processes = 1
attempts = 2
labels_per_unit = 10000
"""


@pytest.fixture
def shops(home: Home) -> Home:
    copy_shops(home)
    home.settings_file.write_text(SETTINGS)
    return home


def test_a_failed_unit_is_listed_and_tried_again(shops, tmp_path):
    poison = poisoned_by(Poison("raise", SPOILED))
    failed = cli("run", home=shops.root, **poison)
    assert failed.returncode == 1
    assert f"{SPOILED} (ValueError: a spoiled word)" in failed.stderr

    file = tmp_path / "units.json"
    listed = cli("units", "list", "--json", file, home=shops.root)
    assert "1 units have failed, 0 wait" in listed.stdout
    assert SPOILED in listed.stdout
    [row] = json.loads(file.read_text())["dead"]
    assert (row["merchants"], row["attempts"]) == ([SPOILED], 2)
    assert "spoiled word" in row["traceback"]

    again = cli("run", home=shops.root)
    assert again.returncode == 1, "a dead unit is not tried by itself"

    unknown = cli("units", "retry", "ffff", home=shops.root)
    assert unknown.returncode == 2
    assert "no failed unit is named 'ffff'" in unknown.stderr

    retried = cli("units", "retry", home=shops.root)
    assert retried.returncode == 0, retried.stderr
    assert "0 now." in retried.stdout
    pipeline = Pipeline(shops)
    assert SPOILED in {row["merchant_key"] for row in scores(pipeline)}
    assert pipeline.tables.failures() == []
    assert "0 units have failed, 0 wait" in cli("units", "list", home=shops.root).stdout


def test_there_is_nothing_to_retry_where_nothing_has_failed(shops):
    assert "No unit has failed." in cli("units", "retry", home=shops.root).stdout


def test_the_log_of_a_run_says_how_its_units_are_doing(shops):
    run = cli("run", "--verbose", home=shops.root)
    assert run.returncode == 0, run.stderr
    assert "1 units cut, 0 of them computed before, 1 handed out" in run.stdout + run.stderr


def test_a_worker_without_a_broker_says_what_to_set(shops):
    refused = cli("worker", "--store", "file:///tmp/x", home=shops.root, HARMONIZER_BROKER_URL="")
    assert refused.returncode == 2
    assert "set HARMONIZER_BROKER_URL" in refused.stderr


@pytest.mark.parametrize("store", ["/folder", "http://host/x"])
def test_a_worker_refuses_what_is_no_store(shops, store):
    refused = cli("worker", "--store", store, home=shops.root)
    assert refused.returncode == 2
    assert "no store: write" in refused.stderr
