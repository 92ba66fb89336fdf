"""The language-model judge against servers that answer, and servers that do not."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from harmonizer_assets.core.base.errors import ConfigurationError, JudgeError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.harmonize import HarmonizeReport, harmonize_all_labels
from harmonizer_assets.core.judge.llm.calls.sizing import MAX_CALL_WORDS
from harmonizer_assets.core.judge.verdicts import requeue_dead_letters
from harmonizer_assets.core.pipeline import Pipeline, Reporter
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.reports import AssetName
from harmonizer_tests.support.chat_server import ChatServer, chat_server, verdict
from harmonizer_tests.support.environment import KEY, use_endpoint
from harmonizer_tests.support.injections import INJECTIONS
from harmonizer_tests.support.labels import scored_copy, scored_home
from harmonizer_tests.support.receipts import table
from harmonizer_tests.support.simulated_endpoint import FAULTS, Endpoint, simulated_endpoint
from harmonizer_tests.support.unpublished import Unpublished

OPENAI = RunOptions(judge="openai")
FAST = {"first_token_seconds": 0.02, "tokens_per_second": 20_000.0}
QUICK = {"skip_high_confidence": False, "backoff_seconds": 0.01, "timeout_seconds": 1.0}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HARMONIZER_MODEL", "gpt-4o-mini")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, home):
    """A server whose faults a test writes down one by one."""
    with chat_server() as state:
        use_endpoint(monkeypatch, state.url)
        yield state


@pytest.fixture(scope="module")
def simulated():
    with simulated_endpoint(**FAST) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(simulated: Endpoint, monkeypatch: pytest.MonkeyPatch, home) -> Endpoint:
    """A simulated model in a process of its own, with faults by chance."""
    simulated.configure(**FAST)
    use_endpoint(monkeypatch, simulated.url)
    return simulated


def prepared(home: Home, **size: Any) -> Pipeline:
    """A home of labels that are scored and not yet judged; homes of few sizes are made."""
    scored_copy(home, **{"words": 12, **size})
    return quick(home)


def quick(home: Home, **judge: Any) -> Pipeline:
    return Unpublished(home, Settings().with_judge(**{**QUICK, **judge}))


def judged(home: Home, run_id: str = "run", **judge: Any) -> Pipeline:
    pipeline = quick(home, **judge)
    ask(pipeline, run_id=run_id)
    return pipeline


def ask(
    pipeline: Pipeline,
    reporter: Reporter | None = None,
    asset: AssetName = "llm_verdicts",
    **options: Any,
) -> HarmonizeReport:
    """Compute one asset in all partitions, with the openai judge."""
    return pipeline.harmonize(
        RunOptions(**{"judge": "openai", **options}),
        reporter,
        partitions=pipeline.partitions.held(),
        assets=[asset],
    )


def total(pipeline: Pipeline, column: str, run_id: str = "run") -> Any:
    return sum(row[column] for row in table(pipeline, "llm_usage") if row["run_id"] == run_id)


def decided_by(pipeline: Pipeline) -> Counter[str]:
    return Counter(row["decided_by"] for row in table(pipeline, "label_decisions"))


# The wire


def test_several_words_share_a_call_by_the_wire_contract(home, server: ChatServer):
    prepared(home)
    judged(home, llm_batch_size=6)
    assert len(server.requests) == 2
    for request, document in zip(server.requests, server.questions(), strict=True):
        assert request["model"] == "gpt-4o-mini"
        assert request["response_format"]["json_schema"]["strict"] is True
        assert {"label_type", "definition", "merchant", "items"} <= set(document)
        assert len({item["id"] for item in document["items"]}) == len(document["items"]) == 6
        assert all({"id", "text"} <= set(item) for item in document["items"])
        assert document["merchant"] == "Shop 0"


def test_small_partitions_of_one_label_type_share_a_call(home, server):
    prepared(home, label_types=2, merchants=5, words=3)
    judged(home, llm_batch_size=50)
    documents = server.questions()
    assert len(documents) == 2
    assert {len(document["items"]) for document in documents} == {15}
    assert {item["merchant"] for item in documents[0]["items"]} == {f"Shop {n}" for n in range(5)}


def test_verdicts_come_back_to_their_own_words(home, server):
    server.decide = lambda text: text.endswith("1")
    prepared(home, label_types=3, merchants=2)
    pipeline = judged(home)
    rows = table(pipeline, "label_decisions")
    assert len(rows) == 72
    assert all(row["is_outlier"] == row["word_text"].endswith("1") for row in rows)
    flagged = [row for row in rows if row["is_outlier"]]
    assert flagged
    for row in flagged:
        assert row["suggested_label"] == ("TIME" if row["label"] != "TIME" else None)
        assert "its characters do not fit" in row["reasoning"]
        assert 0 < row["confidence"] < 1


def test_a_suggestion_that_similar_words_support_is_surer_than_one_that_they_do_not(home, server):
    server.decide = lambda text: ":" in text
    prepared(home, label_types=4, wrong=0.1, words=40)
    rows = table(judged(home), "label_decisions")
    sure = [row["suggestion_confidence"] for row in rows if row["suggested_label"] == "TIME"]
    assert sure
    assert all(0 < confidence < 1 for confidence in sure)
    assert max(sure) > 0.9


def test_a_second_look_drops_a_suggestion_that_the_model_does_not_confirm(home, server):
    # The model calls every time an outlier, suggests TIME for all, and takes no TIME for right.
    server.decide = lambda text: True
    prepared(home)
    [without] = {row["suggested_label"] for row in table(judged(home), "label_decisions")}
    assert without == "TIME"
    asked = len(server.requests)
    rows = table(judged(home, second_look=True), "label_decisions")
    assert {row["suggested_label"] for row in rows} == {None}
    assert {row["suggestion_confidence"] for row in rows} == {None}
    assert all("on a second look TIME is wrong, too" in row["reasoning"] for row in rows)
    again = server.questions()[asked:]
    assert {document["label_type"] for document in again} == {"TIME"}
    assert sum(len(document["items"]) for document in again) == 12
    judged(home, second_look=True)
    assert len(server.requests) == asked + len(again)


def test_a_second_look_makes_a_confirmed_suggestion_surer(home, server):
    server.decide = lambda text: not server.looking_again
    prepared(home)
    before = {row["suggestion_confidence"] for row in table(judged(home), "label_decisions")}
    server.looking_again = True
    rows = table(judged(home, second_look=True), "label_decisions")
    assert {row["suggested_label"] for row in rows} == {"TIME"}
    assert min(row["suggestion_confidence"] for row in rows) > max(before)


# Bought once


def test_equal_questions_are_asked_once_and_never_again(home, endpoint):
    prepared(home, label_types=2, merchants=2, repeated=0.3)
    first = judged(home)
    asked = endpoint.stats()["words_asked"]
    assert asked == len(table(first, "llm_verdicts")) < 48
    assert total(first, "cache_hits") == 48 - asked
    again = quick(home)
    ask(again, run_id="2", refresh=True)
    assert endpoint.stats()["words_asked"] == asked
    assert total(again, "cache_hits", "2") == 48
    assert decided_by(again) == {"cache": 48}


def test_another_model_or_prompt_is_asked_anew(home, endpoint, monkeypatch):
    prepared(home)
    judged(home)
    monkeypatch.setenv("HARMONIZER_MODEL", "another-model")
    judged(home)
    judged(home, temperature=0.5)
    judged(home, explanations="text")
    assert endpoint.stats()["words_asked"] == 4 * 12


def test_in_word_scope_the_same_word_in_another_context_is_known(home, endpoint):
    prepared(home)
    judged(home, cache_scope="word")
    pipeline = Pipeline(home)
    pipeline.warehouse.write(
        lambda con: con.execute("UPDATE documents SET left_context = 'elsewhere'") and None
    )
    for scope, asked in (("word", 12), ("context", 24)):
        again = quick(home, cache_scope=scope)
        ask(again, refresh=True)
        assert endpoint.stats()["words_asked"] == asked


def test_two_runs_at_the_same_time_ask_each_question_once(home, endpoint):
    prepared(home, label_types=2, merchants=4)
    endpoint.configure(first_token_seconds=0.3, tokens_per_second=2_000)
    told = []

    def run(number: int) -> None:
        pipeline = quick(home)
        ask(
            pipeline,
            run_id=f"run {number}",
            on_progress=lambda progress: told.append(progress.stage),
        )

    runs = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    stats = endpoint.stats()
    assert stats["words_asked"] == stats["distinct_words"] == 96
    assert told.count("llm_verdicts waits for another run that asks") == 2


# Answers that cannot be used

INVALID_ANSWERS = {
    "truncated": lambda verdicts: '{"verdicts": [{"id": "1", "v": "o',
    "no entries": lambda verdicts: {"verdicts": []},
    "doubled id": lambda verdicts: {"verdicts": [*verdicts, verdicts[0]]},
    "unknown id": lambda verdicts: {"verdicts": [{**verdicts[0], "id": "77"}, *verdicts[1:]]},
    "label outside the taxonomy": lambda verdicts: {
        "verdicts": [verdict("1", is_outlier=True, suggested="NONSENSE"), *verdicts[1:]]
    },
    "not a verdict": lambda verdicts: {"verdicts": [{**verdicts[0], "v": "maybe"}, *verdicts[1:]]},
    "not an object": lambda verdicts: "[]",
    "not JSON": lambda verdicts: "I think that all of them are fine.",
}


@pytest.mark.parametrize("name", INVALID_ANSWERS)
def test_an_invalid_answer_is_asked_again_and_never_stored(home, server, name):
    prepared(home, words=2)
    server.faults = [INVALID_ANSWERS[name]]
    pipeline = judged(home, llm_batch_size=2)
    assert decided_by(pipeline) == {"llm": 2}
    assert len(table(pipeline, "llm_verdicts")) == 2
    assert total(pipeline, "retries") == len(server.requests) - 1 > 0
    assert total(pipeline, "words_asked") == 2


def test_a_poisoned_word_fails_alone(home, endpoint):
    prepared(home, words=32)
    poison = table(Pipeline(home), "words")[17]["text"]
    endpoint.configure(**FAST, poison=poison)
    pipeline = judged(home, llm_batch_size=32)
    letters = table(pipeline, "dead_letters")
    assert len(letters) == 1
    assert decided_by(pipeline) == {"llm": 31, "unresolved": 1}
    asked = dict(endpoint.stats()["most_asked"])
    assert asked[poison] == letters[0]["attempts"] == 5 + math.log2(32)


# Failing endpoints


@pytest.mark.parametrize("status", [500, 503, 429, 409])
def test_a_passing_failure_is_tried_again(home, server, status):
    prepared(home, words=2)
    server.faults = [status]
    assert decided_by(judged(home)) == {"llm": 2}


def test_what_always_fails_is_a_dead_letter_after_exactly_the_configured_attempts(home, server):
    prepared(home, words=1)
    server.faults = [500] * 4
    pipeline = judged(home, max_attempts=4)
    assert len(server.requests) == 4
    letter = table(pipeline, "dead_letters")[0]
    assert (letter["error"], letter["attempts"]) == ("endpoint failed (HTTP 500)", 4)
    assert table(pipeline, "llm_verdicts") == []
    assert decided_by(pipeline) == {"unresolved": 1}


def test_dead_letters_are_bought_again_only_when_that_is_asked_for(home, server):
    prepared(home, words=1)
    server.faults = [500] * 4
    pipeline = judged(home, max_attempts=4)
    ask(pipeline, asset="outliers")
    assert len(table(pipeline, "outliers")) == 1
    assert judged(home, max_attempts=4).stale(OPENAI) == []
    assert len(server.requests) == 4
    assert pipeline.warehouse.write(requeue_dead_letters) == pipeline.partitions.held()
    assert pipeline.stale(OPENAI) == pipeline.partitions.held()
    judged(home, max_attempts=4)
    ask(pipeline, asset="outliers")
    assert len(server.requests) == 5
    assert table(pipeline, "dead_letters") == table(pipeline, "outliers") == []
    assert pipeline.stale(OPENAI) == []


@pytest.mark.parametrize(
    ("status", "code", "complaint"),
    [
        (401, "invalid_api_key", "refuses the key"),
        (400, "bad_request", "rejects the request"),
        (404, "model_not_found", "does not know model 'gpt-4o-mini'"),
        (429, "insufficient_quota", "quota is used up"),
    ],
)
def test_what_can_never_work_stops_after_one_attempt_without_showing_the_key(
    home, server, status, code, complaint
):
    prepared(home)
    server.faults, server.error_code = [status] * 5, code
    with pytest.raises(JudgeError, match=complaint) as error:
        judged(home, llm_batch_size=12)
    assert len(server.requests) == 1
    shown: BaseException | None = error.value
    while shown is not None:
        assert "sk-" not in str(shown)
        shown = shown.__cause__ or shown.__context__


def test_an_endpoint_that_is_gone_stops_the_run_and_keeps_what_was_answered(
    home, endpoint, monkeypatch
):
    prepared(home, label_types=3, merchants=2)
    monkeypatch.setattr("harmonizer_assets.core.judge.llm.calls.contact._PATIENCE_UNREACHABLE", 0.5)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(JudgeError, match=r"cannot be reached.*OPENAI_BASE_URL"):
        judged(home, llm_batch_size=1, max_attempts=20)
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    assert decided_by(judged(home)) == {"llm": 72}


def test_refusals_for_the_rate_are_honoured_and_cost_no_word(home, endpoint):
    prepared(home, label_types=2, merchants=2)
    endpoint.configure(**FAST, max_in_flight=2)
    pipeline = judged(home, llm_batch_size=1, max_requests_in_flight=16)
    stats = endpoint.stats()
    assert decided_by(pipeline) == {"llm": 48}
    assert stats["statuses"]["429"] == total(pipeline, "rate_limited") > 0
    assert total(pipeline, "calls") == stats["requests"]


def test_a_wait_beyond_the_cap_leaves_the_words_to_a_later_run(home, server):
    prepared(home, words=2)
    server.faults, server.headers = [429] * 9, {"Retry-After": "3600"}
    pipeline = judged(home)
    assert decided_by(pipeline) == {"unresolved": 2}
    assert table(pipeline, "dead_letters") == []
    assert "wait 3600 s" in table(pipeline, "label_decisions")[0]["reasoning"]
    assert pipeline.stale(OPENAI) == pipeline.partitions.held()
    server.faults, server.headers = [], {}
    assert decided_by(judged(home)) == {"llm": 2}


def test_the_endpoints_rate_limit_headers_are_kept(home, endpoint):
    prepared(home, label_types=2, merchants=2)
    endpoint.configure(**FAST, requests_per_minute=1_500)
    pipeline = judged(home, llm_batch_size=1, requests_per_minute=None)
    assert decided_by(pipeline) == {"llm": 48}
    assert total(pipeline, "rate_limited") == 0


def test_no_more_calls_are_in_flight_than_configured(home, endpoint):
    prepared(home, label_types=3, merchants=2)
    endpoint.configure(first_token_seconds=0.1, tokens_per_second=5_000)
    judged(home, llm_batch_size=2, max_requests_in_flight=5)
    assert endpoint.stats()["max_in_flight"] == 5
    endpoint.configure(first_token_seconds=0.1, tokens_per_second=5_000)
    again = quick(home)
    again.warehouse.write(lambda con: con.execute("DELETE FROM llm_verdicts") and None)
    knobs = {
        "max_label_type_concurrency": 1,
        "max_merchant_concurrency": 2,
        "max_word_concurrency": 3,
    }
    again = quick(home, **knobs, llm_batch_size=1)
    ask(again, refresh=True)
    assert endpoint.stats()["max_in_flight"] <= 6


def test_with_every_fault_at_once_all_is_accounted_for(home, endpoint):
    prepared(home, label_types=4, merchants=6, words=10)
    endpoint.configure(**FAST, faults=dict.fromkeys(FAULTS, 0.1))
    pipeline = judged(home, timeout_seconds=2.0)
    stats = endpoint.stats()
    assert sum(stats["faults"][name] > 0 for name in FAULTS) >= 7
    rows = table(pipeline, "label_decisions")
    letters = table(pipeline, "dead_letters")
    states = Counter(row["is_outlier"] for row in rows)
    assert len(rows) == 240 == states[True] + states[False] + states[None]
    assert states[None] == len(letters)
    assert len(table(pipeline, "llm_verdicts")) == 240 - len(letters)
    # On a busy machine a call may time out before the endpoint has read it, and an answer may be
    # sent to a caller that waits no longer: the two ends then differ by those few.
    assert stats["requests"] <= total(pipeline, "calls") <= 1.2 * stats["requests"]
    for tokens in ("prompt_tokens", "completion_tokens"):
        assert 0.8 * stats[tokens] <= total(pipeline, tokens) <= stats[tokens]
    bound = 5 + math.ceil(math.log2(MAX_CALL_WORDS))
    assert max(times for _, times in stats["most_asked"]) <= bound


# Money


def test_a_budget_is_never_exceeded_and_the_next_run_goes_on(home, endpoint):
    prepared(home, label_types=2, merchants=4)
    budget = 7_000
    spent = []
    for run in range(20):
        pipeline = quick(home, budget_tokens=budget, llm_batch_size=4)
        report = ask(pipeline, run_id=f"run {run}")
        spent.append(
            total(pipeline, "prompt_tokens", f"run {run}")
            + total(pipeline, "completion_tokens", f"run {run}")
        )
        assert 0 < spent[-1] <= budget
        if not report.totals.stopped_at_budget:
            break
        assert pipeline.tables.counts().dead_letters == 0
        assert pipeline.stale(OPENAI)
    stats = endpoint.stats()
    assert len(spent) > 2
    assert sum(spent) == stats["prompt_tokens"] + stats["completion_tokens"]
    assert stats["words_asked"] == stats["distinct_words"] == 96
    assert decided_by(pipeline)["unresolved"] == 0
    ask(pipeline, asset="outliers")
    assert pipeline.stale(OPENAI) == []


def test_a_budget_of_nothing_asks_nothing(home, endpoint):
    prepared(home)
    pipeline = quick(home, budget_usd=0.0)
    report = ask(pipeline)
    assert endpoint.stats()["requests"] == 0
    assert report.totals.stopped_at_budget
    reasons = {row["reasoning"] for row in table(pipeline, "label_decisions")}
    assert reasons == {"not asked: the budget is used up"}


def test_a_budget_in_usd_needs_a_known_price(home, endpoint, monkeypatch):
    prepared(home)
    monkeypatch.setenv("HARMONIZER_MODEL", "nobody-knows")
    with pytest.raises(ConfigurationError, match=r"'nobody-knows'.*prices\.yaml"):
        judged(home, budget_usd=1.0)
    assert endpoint.stats()["requests"] == 0
    assert {row["cost_usd"] for row in table(judged(home), "llm_usage")} == {None}


def test_cost_is_accounted_to_the_token(home, endpoint):
    prepared(home, label_types=2, merchants=2, repeated=0.3)
    pipeline = quick(home)
    report = ask(pipeline, run_id="run")
    stats = endpoint.stats()
    rows = table(pipeline, "llm_verdicts")
    assert sum(row["prompt_tokens"] for row in rows) == stats["prompt_tokens"]
    assert sum(row["completion_tokens"] for row in rows) == stats["completion_tokens"]
    cost = (stats["prompt_tokens"] * 0.15 + stats["completion_tokens"] * 0.60) / 1e6
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(cost)
    assert total(pipeline, "cost_usd") == pytest.approx(cost)
    assert report.totals.cost_usd == pytest.approx(cost)
    assert re.fullmatch(r"genai-prices [\d.]+, as of 20\d\d-\d\d-\d\d", str(report.totals.prices))


def test_a_plan_says_what_a_run_then_asks_and_spends_nothing(home, endpoint, monkeypatch):
    pipeline = prepared(home, label_types=2, merchants=2, repeated=0.3)
    monkeypatch.delenv("OPENAI_API_KEY")
    plan = pipeline.plan(RunOptions())
    assert endpoint.stats()["requests"] == 0
    assert plan.labels == 48
    assert plan.price_source is not None
    assert plan.prices_as_of is not None
    assert f"USD ({plan.price_source}, as of {plan.prices_as_of})" in plan.cost()
    assert json.loads(plan.prompt[-1]["content"])["items"]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    judged(home)
    stats = endpoint.stats()
    assert plan.words == stats["words_asked"]
    assert plan.cache_hits == 48 - plan.words
    assert 0.5 < plan.prompt_tokens / stats["prompt_tokens"] < 2
    assert pipeline.plan(RunOptions()).words == 0


# Stopping and going on


@pytest.mark.parametrize("disk_seconds", [0, 0.15], ids=["disk", "slow disk"])
def test_cancelling_stops_new_calls_in_time_ends_the_thread_and_keeps_what_was_answered(
    home, endpoint, monkeypatch, disk_seconds
):
    """On a slow disk the cancellation comes while answers are being written."""
    prepared(home, label_types=2, merchants=4)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (time.sleep(disk_seconds), fsync(file)))
    threads = {*threading.enumerate()}
    endpoint.configure(first_token_seconds=0.2, tokens_per_second=2_000)

    async def cancelled() -> None:
        run = asyncio.create_task(
            harmonize_all_labels(
                home, skip_high_confidence=False, llm_batch_size=2, max_requests_in_flight=4
            )
        )
        while endpoint.stats()["answered"] < 8:
            await asyncio.sleep(0.05)
        run.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert time.monotonic() - began < 2

    asyncio.run(cancelled())
    assert {*threading.enumerate()} <= threads
    asked = endpoint.stats()["requests"]
    time.sleep(0.5)
    assert endpoint.stats()["requests"] == asked
    kept = len(table(Pipeline(home), "llm_verdicts"))
    assert kept >= 8
    judged(home)
    assert endpoint.stats()["words_asked"] <= 96 + 8


@pytest.mark.parametrize("seed", range(2))
def test_no_stored_answer_is_bought_again_after_a_kill(home, endpoint, seed):
    prepared(home, label_types=2, merchants=4)
    endpoint.configure(first_token_seconds=0.1, tokens_per_second=2_000)
    code = (
        "import asyncio, sys\n"
        "from harmonizer_assets.core.harmonize import harmonize_all_labels\n"
        "from harmonizer_assets.core.base.home import Home\n"
        f"asyncio.run(harmonize_all_labels(Home.resolve({str(home.root)!r}), "
        "skip_high_confidence=False, llm_batch_size=2, max_requests_in_flight=6))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    while endpoint.stats()["answered"] < 6:
        time.sleep(0.02)
    time.sleep(random.Random(seed).random() / 2)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    before = endpoint.stats()
    stored = stored_keys(home)
    assert len(stored) >= 2
    pipeline = judged(home)
    after = endpoint.stats()
    assert after["words_asked"] - before["words_asked"] == 96 - len(stored)
    # Besides the calls in flight, what was answered less than 250 ms before may be gone.
    assert len(stored) >= 2 * (before["answered"] - 3 * 6)
    assert decided_by(pipeline) == {"llm": 96 - len(stored), "cache": len(stored)} or (
        decided_by(pipeline)["llm"] + decided_by(pipeline)["cache"] == 96
    )
    assert not list(home.journals.glob("*.ndjson"))
    usage = table(pipeline, "llm_usage")
    assert sum(row["words_asked"] for row in usage) == 96


def stored_keys(home: Home) -> set[str]:
    """Keys of the answers that are durable, in the database or in a journal."""
    keys = {row["verdict_key"] for row in table(Pipeline(home), "llm_verdicts")}
    for journal in home.journals.glob("*.ndjson"):
        for line in journal.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                answers = json.loads(line).get("answers", ())
                keys |= {answer["verdict_key"] for answer in answers}
    return keys


def test_partitions_are_finished_one_after_the_other(home, endpoint):
    prepared(home, label_types=3, merchants=2)
    endpoint.configure(first_token_seconds=0.1, tokens_per_second=2_000)
    pipeline = quick(home, max_requests_in_flight=1)
    seen = []

    class Seen(Reporter):
        def consume(self, asset, partitions, results):
            for result in results:
                seen.append((result.partition, endpoint.stats()["answered"]))

    ask(pipeline, Seen())
    assert {partition for partition, _ in seen} == set(pipeline.partitions.held())


# Safety


def test_orders_in_words_change_no_verdict_of_other_words(home, endpoint):
    # The simulated model obeys: an order anywhere in a call turns all its answers.
    endpoint.configure(**FAST, gullible=True)
    prepared(home, label_types=2, merchants=4, words=40)
    before = verdicts_by_word(judged(home))
    assert set(before.values()) == {True, False}

    def inject(con: duckdb.DuckDBPyConnection) -> None:
        for n, order in enumerate(INJECTIONS):
            con.execute(
                "UPDATE words SET text = $3 WHERE (image_id, line_id) = ($1, $2)",
                [f"merchant-{n % 4}-receipt-{n % 8}", 5 + n % 5, order],
            )

    after = verdicts_by_word(judged_anew(home, inject))
    others = {word: found for word, found in after.items() if word[-1] not in set(INJECTIONS)}
    assert len(others) >= 200
    assert others == {word: before[word] for word in others}


def test_orders_in_merchants_names_change_no_verdict_at_all(home, endpoint):
    endpoint.configure(**FAST, gullible=True)
    prepared(home, merchants=len(INJECTIONS) + 10, words=2)
    before = verdicts_by_word(judged(home))
    assert set(before.values()) == {True, False}

    def inject(con: duckdb.DuckDBPyConnection) -> None:
        for n, order in enumerate(INJECTIONS):
            con.execute(
                "UPDATE labels SET merchant_name = $2 WHERE image_id LIKE $1",
                [f"merchant-{n}-receipt-%", order],
            )

    assert verdicts_by_word(judged_anew(home, inject)) == before


def judged_anew(home: Home, change: Callable[[duckdb.DuckDBPyConnection], None]) -> Pipeline:
    """Change the tables, forget all answers and ask again."""

    def prepare(con: duckdb.DuckDBPyConnection) -> None:
        change(con)
        con.execute("DELETE FROM llm_verdicts")

    pipeline = quick(home)
    pipeline.warehouse.write(prepare)
    ask(pipeline, refresh=True)
    return pipeline


def verdicts_by_word(pipeline: Pipeline) -> dict[tuple[Any, ...], bool | None]:
    return {
        (row["image_id"], row["line_id"], row["word_text"]): row["is_outlier"]
        for row in table(pipeline, "label_decisions")
    }


def test_the_key_is_nowhere_in_the_home(home, endpoint):
    prepared(home)
    ask(Pipeline(home, Settings().with_judge(**QUICK)))
    for path in Path(home.root).rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_harmonize_all_labels_goes_all_the_way(home, endpoint):
    prepared(home, label_types=3, merchants=2)
    report = asyncio.run(harmonize_all_labels(home, skip_high_confidence=False, profile="cheap"))
    assert isinstance(report, HarmonizeReport)
    assert report.partitions == 6
    assert report.counts.labels == report.counts.valid + report.counts.outliers == 72
    assert len(table(Pipeline(home), "outliers")) == report.counts.outliers > 0
    again = asyncio.run(harmonize_all_labels(home, skip_high_confidence=False, profile="cheap"))
    assert (again.partitions, again.totals.calls) == (0, 0)


def test_without_a_guarantee_only_the_most_suspicious_labels_are_asked_about(home, endpoint):
    few = Settings.model_validate({"triage": {"ask_at_most": 0.01}})
    scored_home(home, label_types=4, words=120, wrong=0.4, settings=few)
    pipeline = Unpublished(home, few.with_judge(backoff_seconds=0.01))
    ask(pipeline)
    triage = table(pipeline, "similarity_matches")
    unasked = [row["outlier_score"] for row in triage if row["triage"] == "unasked"]
    asked = [row["outlier_score"] for row in triage if row["triage"] == "ambiguous"]
    assert 0 < len(asked) <= 0.01 * len(triage)
    assert len(unasked) > 0
    assert min(asked) > max(unasked)
    assert endpoint.stats()["words_asked"] == len(asked)

    def left():
        decisions = table(pipeline, "label_decisions")
        return [row for row in decisions if (row["reasoning"] or "").startswith("not asked")]

    assert len(left()) == len(unasked)
    assert {(row["is_outlier"], row["decided_by"]) for row in left()} == {(None, "unresolved")}
    # A judge that costs nothing decides them.
    pipeline.harmonize(RunOptions())
    assert left() == []
    assert decided_by(pipeline)["offline_judge"] >= len(unasked)


def test_clear_cases_are_not_asked_about(home, endpoint):
    by_similar_words = Settings.model_validate({"similarity": {"scorer": "evidence"}})
    settings = by_similar_words.with_judge(backoff_seconds=0.01)
    scored_home(home, label_types=6, words=60, wrong=0.1, validated=0.5, settings=settings)
    pipeline = Unpublished(home, settings)
    ask(pipeline, run_id="run")
    ways = decided_by(pipeline)
    assert ways["similarity"] > 180
    assert ways["llm"] == endpoint.stats()["words_asked"]
    assert total(pipeline, "skipped_by_similarity") == ways["similarity"]
