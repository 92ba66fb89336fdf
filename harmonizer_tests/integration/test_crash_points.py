"""Wherever a run is killed, the next one ends like an undisturbed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harmonizer_tests.support.crash_points import MOST_BOUGHT_TWICE
from harmonizer_tests.support.environment import use_endpoint
from harmonizer_tests.support.simulated_endpoint import simulated_endpoint

# Of so many points one is tried.
EVERY = int(os.environ.get("HARMONIZER_CRASH_POINTS_EVERY", "8"))


@pytest.fixture(scope="module")
def crashes() -> Iterator[subprocess.Popen[str]]:
    """A process that imports everything once; what is killed are its forks."""
    with subprocess.Popen(
        [sys.executable, "-m", "harmonizer_tests.support.crash_points"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


def outcomes(
    crashes: subprocess.Popen[str], scenario: str, folder: Path, first: int = EVERY
) -> list[dict[str, Any]]:
    """How a second run ended, for each point at which the first one was killed."""
    asked = {"scenario": scenario, "folder": str(folder), "first": first, "every": EVERY}
    print(json.dumps({**asked, "environment": dict(os.environ)}), file=crashes.stdin, flush=True)
    found = []
    for line in crashes.stdout:
        if line == "\n":
            break
        found.append(json.loads(line))
    else:
        pytest.fail("the process has ended, see above")
    assert found
    return found


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("scenario", ["new", "grown"])
def test_a_run_killed_at_any_point_is_finished_by_the_next_one(crashes, tmp_path, scenario):
    found = outcomes(crashes, scenario, tmp_path)
    assert [outcome for outcome in found if outcome["different"]] == []
    assert [outcome for outcome in found if not outcome["died"]] == []


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
def test_an_apply_and_an_undo_killed_at_any_point_are_done_once(crashes, tmp_path):
    found = outcomes(crashes, "corrections", tmp_path)
    assert [outcome for outcome in found if outcome["different"]] == []
    assert [outcome for outcome in found if not outcome["died"]] == []


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
def test_a_deletion_killed_at_any_point_leaves_no_trace_once_it_is_repeated(crashes, tmp_path):
    found = outcomes(crashes, "deletion", tmp_path)
    assert [outcome for outcome in found if outcome["different"]] == []
    assert [outcome for outcome in found if not outcome["died"]] == []


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
def test_a_run_with_a_model_killed_at_any_point_buys_little_twice(crashes, tmp_path, monkeypatch):
    with simulated_endpoint() as endpoint:
        use_endpoint(monkeypatch, endpoint.url)
        found = outcomes(crashes, "model", tmp_path)
    assert [outcome for outcome in found if outcome["different"]] == []
    assert [outcome for outcome in found if outcome["bought twice"] > MOST_BOUGHT_TWICE] == []
    # How many lines a journal gets depends on when answers arrive, so the last points may lack.
    assert sum(outcome["died"] for outcome in found) > len(found) / 2


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("home")
def test_a_batch_killed_at_any_point_is_collected_once_and_leaves_no_file(
    crashes, tmp_path, monkeypatch
):
    with simulated_endpoint() as endpoint:
        use_endpoint(monkeypatch, endpoint.url)
        # By default the first is where the job runs and the home does not know it.
        found = outcomes(crashes, "batch", tmp_path, first=max(1, EVERY // 2))
    assert [outcome for outcome in found if outcome["different"]] == []
    assert [outcome for outcome in found if outcome["bought twice"]] == []
    assert [outcome for outcome in found if outcome["files at the endpoint"]] == []
    assert [outcome for outcome in found if not outcome["died"]] == []
