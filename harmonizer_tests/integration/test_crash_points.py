"""Wherever a run is killed, the next one ends like an undisturbed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harmonizer_tests.support.crash_points import MOST_BOUGHT_TWICE
from harmonizer_tests.support.environment import use_endpoint
from harmonizer_tests.support.simulated_endpoint import simulated_endpoint

# Of so many points one is tried.
EVERY = int(os.environ.get("HARMONIZER_CRASH_POINTS_EVERY", "8"))


def outcomes(scenario: str, folder: Path, every: int = EVERY) -> list[dict[str, Any]]:
    """How a second run ended, for each point at which the first one was killed."""
    module = "harmonizer_tests.support.crash_points"
    done = subprocess.run(
        [sys.executable, "-m", module, scenario, str(folder), "--every", str(every)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found
    return found


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("scenario", ["new", "grown"])
def test_a_run_killed_at_any_point_is_finished_by_the_next_one(tmp_path, scenario):
    found = outcomes(scenario, tmp_path)
    assert [outcome for outcome in found if outcome["different"]] == []
    assert [outcome for outcome in found if not outcome["died"]] == []


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
def test_an_apply_and_an_undo_killed_at_any_point_are_done_once(tmp_path):
    found = outcomes("corrections", tmp_path)
    assert [outcome for outcome in found if outcome["different"]] == []
    assert [outcome for outcome in found if not outcome["died"]] == []


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
def test_a_deletion_killed_at_any_point_leaves_no_trace_once_it_is_repeated(tmp_path):
    found = outcomes("deletion", tmp_path)
    assert [outcome for outcome in found if outcome["different"]] == []
    assert [outcome for outcome in found if not outcome["died"]] == []


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
def test_a_run_with_a_model_killed_at_any_point_buys_little_twice(tmp_path, monkeypatch):
    with simulated_endpoint() as endpoint:
        use_endpoint(monkeypatch, endpoint.url)
        found = outcomes("model", tmp_path)
    assert [outcome for outcome in found if outcome["different"]] == []
    assert [outcome for outcome in found if outcome["bought twice"] > MOST_BOUGHT_TWICE] == []
    # How many lines a journal gets depends on when answers arrive, so the last points may lack.
    assert sum(outcome["died"] for outcome in found) > len(found) / 2


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
def test_a_batch_killed_at_any_point_is_collected_once_and_leaves_no_file(tmp_path, monkeypatch):
    with simulated_endpoint() as endpoint:
        use_endpoint(monkeypatch, endpoint.url)
        found = outcomes("batch", tmp_path, every=max(1, EVERY // 2))
    assert [outcome for outcome in found if outcome["different"]] == []
    assert [outcome for outcome in found if outcome["bought twice"]] == []
    assert [outcome for outcome in found if outcome["files at the endpoint"]] == []
    assert [outcome for outcome in found if not outcome["died"]] == []
