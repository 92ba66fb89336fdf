"""The ledger: budgets hold over retries, backfills and days, whatever becomes of a call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_tests.support.chat_server import ChatServer, chat_server
from harmonizer_tests.support.environment import use_endpoint
from harmonizer_tests.support.labels import scored_copy
from harmonizer_tests.support.receipts import table
from harmonizer_tests.support.unpublished import Unpublished

QUICK = {"skip_high_confidence": False, "backoff_seconds": 0.0, "llm_batch_size": 2}
PER_CALL = 112
"""Tokens that the server counts for each call; a reservation is about twenty times as much."""


@pytest.fixture
def server(home: Home, monkeypatch: pytest.MonkeyPatch):
    with chat_server() as state:
        use_endpoint(monkeypatch, state.url)
        yield state


@pytest.fixture
def shop(home: Home, server: ChatServer) -> Home:
    scored_copy(home, label_types=2, merchants=2, words=20)
    return home


def run(home: Home, options: RunOptions, **judge: Any) -> Pipeline:
    settings = {**QUICK, "max_requests_in_flight": 1, **judge}
    pipeline = Unpublished(home, Settings().with_judge(**settings))
    pipeline.harmonize(options, partitions=pipeline.partitions.held(), assets=["llm_verdicts"])
    return pipeline


def asking(run_id: str, **more: Any) -> RunOptions:
    return RunOptions(run_id=run_id, judge="openai", **more)


def spent(pipeline: Pipeline, column: str = "tokens") -> Any:
    return sum(row[column] for row in table(pipeline, "llm_ledger"))


BUDGET, LARGE = 6_000, 12_000
ONE_PURSE = {
    "a run and its retries": ({"budget_tokens": BUDGET}, {"launch_id": "run 0"}),
    "a backfill without a limit of its own": ({"budget_tokens": BUDGET}, {"backfill_id": "b"}),
    "a backfill": ({"backfill_budget_tokens": BUDGET}, {"backfill_id": "b"}),
    "a day": ({"daily_budget_tokens": BUDGET}, {}),
}


@pytest.mark.parametrize("purse", ONE_PURSE)
def test_several_runs_share_one_budget(shop, server, purse):
    limits, options = ONE_PURSE[purse]
    for number in range(4):
        pipeline = run(shop, asking(f"run {number}", **options), **limits)
    assert 0 < spent(pipeline) == PER_CALL * len(server.requests) <= BUDGET
    assert BUDGET - spent(pipeline) < 3_000
    reasons = {row["reasoning"] for row in table(pipeline, "label_decisions")}
    assert "not asked: the budget is used up" in reasons


def test_runs_that_have_nothing_to_do_with_each_other_have_a_budget_each(shop, server):
    run(shop, asking("one"), budget_tokens=BUDGET)
    before = len(server.requests)
    run(shop, asking("other"), budget_tokens=BUDGET)
    assert len(server.requests) > before


def test_yesterdays_spending_does_not_count_today(shop, server):
    pipeline = run(shop, asking("yesterday"), daily_budget_tokens=BUDGET)
    before = len(server.requests)
    pipeline.warehouse.write(
        lambda con: con.execute("UPDATE llm_ledger SET day = day - 1") and None
    )
    run(shop, asking("today"), daily_budget_tokens=BUDGET)
    assert len(server.requests) > before


@pytest.mark.parametrize("fault", [500, 503])
def test_what_failed_calls_may_have_cost_is_kept(shop, server, fault):
    server.faults = [fault] * 2
    pipeline = run(shop, asking("run"), budget_tokens=BUDGET)
    [row] = table(pipeline, "llm_ledger")
    answered = len(server.requests) - 2
    assert row["unconfirmed_tokens"] > 2 * PER_CALL
    assert row["unconfirmed_usd"] > 0
    assert row["tokens"] == PER_CALL * answered + row["unconfirmed_tokens"] <= BUDGET
    # The budget is used up sooner, in the same run and in those that share it.
    retry = run(shop, asking("retry", launch_id="run"), budget_tokens=BUDGET)
    assert spent(retry) <= BUDGET


def test_calls_that_the_endpoint_did_not_take_cost_nothing(shop, server):
    server.faults = [429]
    server.headers = {"retry-after": "0"}
    pipeline = run(shop, asking("run"))
    assert spent(pipeline) == PER_CALL * (len(server.requests) - 1)
    assert spent(pipeline, "unconfirmed_tokens") == 0


def kill_while_asking(shop, server, **settings) -> int:
    """Kill a run while calls are in flight; return how many were sent."""
    server.delay = 0.2
    code = (
        "from harmonizer_tests.integration.test_ledger import Home, asking, run\n"
        f"run(Home.resolve({str(shop.root)!r}), asking('killed'), **{settings!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    while len(server.requests) < 3:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    server.delay = 0.0
    return len(server.requests)


def test_a_killed_run_counts_with_the_calls_that_were_in_flight(shop, server):
    killed_after = kill_while_asking(shop, server, budget_tokens=LARGE)
    retry = run(shop, asking("retry", launch_id="killed"), budget_tokens=LARGE)
    assert spent(retry, "unconfirmed_tokens") > PER_CALL
    # Never less than the server has counted, and never more than the budget.
    assert PER_CALL * len(server.requests) < spent(retry) <= LARGE
    assert len(server.requests) > killed_after


def test_a_budget_holds_over_a_crash_where_homes_share_answers(shop, server, tmp_path):
    shared = {
        "answers": f"duckdb://{tmp_path}/answers.duckdb",
        "answers_lease_seconds": 1,
        "budget_tokens": LARGE,
    }
    kill_while_asking(shop, server, **shared)
    for name in ("retry", "second retry"):
        retry = run(shop, asking(name, launch_id="killed"), **shared)
        assert PER_CALL * len(server.requests) < spent(retry) <= LARGE
    asked = [item["text"] for document in server.questions() for item in document["items"]]
    # One call is in flight at a time.
    assert len(asked) - len({*asked}) <= 2 * QUICK["llm_batch_size"]
    assert len(table(retry, "llm_verdicts")) == len({*asked})


def test_a_kill_before_answers_are_durable_loses_twice_the_calls_in_flight_at_most(shop, server):
    """The disk takes half a second, and the process is killed before anything is on it."""
    in_flight = 2
    code = (
        "import os, signal, time\n"
        "from harmonizer_assets.core.judge.llm.memory.journal import Journal\n"
        "from harmonizer_tests.integration.test_ledger import Home, asking, run\n"
        "append, groups = Journal.append, []\n"
        "def dies(journal, *group):\n"
        "    groups.append(group)\n"
        "    if len(groups) == 3:\n"
        "        time.sleep(0.5)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    append(journal, *group)\n"
        "Journal.append = dies\n"
        f"run(Home.resolve({str(shop.root)!r}), asking('killed'), llm_batch_size=1,\n"
        f"    max_requests_in_flight={in_flight})\n"
    )
    process = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False)
    assert process.returncode == -signal.SIGKILL
    pipeline = run(shop, asking("next"), llm_batch_size=1, max_requests_in_flight=in_flight)
    texts = [item["text"] for document in server.questions() for item in document["items"]]
    assert len(table(pipeline, "llm_verdicts")) == len(set(texts)) == 80
    assert 0 < len(texts) - 80 <= 2 * in_flight


def test_a_budget_in_usd_fails_closed_where_part_of_the_spending_has_no_price(
    shop, server, monkeypatch
):
    monkeypatch.setenv("HARMONIZER_MODEL", "nobody-knows")
    run(shop, asking("first", label_types=["DATE"]), max_attempts=1)
    monkeypatch.setenv("HARMONIZER_MODEL", "gpt-4o-mini")
    before = len(server.requests)
    with pytest.raises(ConfigurationError, match=r"day cannot be kept.*without a price"):
        run(shop, asking("second"), daily_budget_usd=5.0)
    assert len(server.requests) == before


def test_the_ledger_agrees_with_the_usage_to_the_token(shop, server):
    pipeline = run(shop, asking("run"), max_requests_in_flight=4)
    usage = table(pipeline, "llm_usage")
    [row] = table(pipeline, "llm_ledger")
    assert row["tokens"] == sum(r["prompt_tokens"] + r["completion_tokens"] for r in usage)
    assert row["usd"] == pytest.approx(sum(r["cost_usd"] for r in usage))
