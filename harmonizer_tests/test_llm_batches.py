"""The Batch API mode against a simulated endpoint."""

from __future__ import annotations

import time

import pytest
from dagster import DagsterInstance, build_sensor_context

from benchmarks.labels import scored_home
from benchmarks.simulated_endpoint import Endpoint, simulated_endpoint
from harmonizer_assets.core.errors import InputError, JudgeError
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.settings import Settings
from harmonizer_assets.resources import HarmonizerResource
from harmonizer_assets.sensors import batch_api_sensor
from harmonizer_tests.receipts import table

EVERY = Settings().with_judge(skip_high_confidence=False)


@pytest.fixture(scope="module")
def simulated():
    with simulated_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(simulated: Endpoint, home, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    simulated.configure(batch_seconds=0.0)
    monkeypatch.setenv("OPENAI_BASE_URL", simulated.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-very-secret")
    monkeypatch.setenv("HARMONIZER_MODEL", "gpt-4o-mini")
    return simulated


@pytest.fixture
def harmonizer(home: Home, endpoint) -> Harmonizer:
    return scored_home(home, label_types=3, merchants=2, words=20, repeated=0.3, settings=EVERY)


def judge(harmonizer: Harmonizer) -> None:
    list(harmonizer.judge_partitions(harmonizer.partitions(), judge="openai", run_id="run"))


def test_a_batch_is_collected_into_the_cache_at_half_the_price(harmonizer, endpoint):
    [state] = harmonizer.submit_batch(harmonizer.partitions(), run_id="batch")
    assert state.is_open
    collected = harmonizer.batch_api().collect()
    stats = endpoint.stats()
    assert (collected.batches, collected.unanswered) == (1, 0)
    assert collected.answers == state.words == stats["words_asked"]
    judge(harmonizer)
    assert endpoint.stats()["requests"] == 0
    assert {row["decided_by"] for row in table(harmonizer, "label_decisions")} == {"cache"}
    cost = (stats["prompt_tokens"] * 0.15 + stats["completion_tokens"] * 0.60) / 1e6
    assert sum(row["cost_usd"] for row in table(harmonizer, "llm_verdicts")) == pytest.approx(
        cost / 2
    )
    used = [row for row in table(harmonizer, "llm_usage") if row["run_id"] == "batch"]
    assert sum(row["prompt_tokens"] for row in used) == stats["prompt_tokens"]


def test_while_a_batch_is_under_way_nobody_else_asks_its_questions(harmonizer, endpoint):
    endpoint.configure(batch_seconds=3_600.0)
    harmonizer.submit_batch(harmonizer.partitions())
    assert harmonizer.submit_batch(harmonizer.partitions()) == []
    judge(harmonizer)
    assert endpoint.stats()["words_asked"] == 0
    rows = table(harmonizer, "label_decisions")
    assert {row["reasoning"] for row in rows} == {"waits for the answer of a batch"}
    assert table(harmonizer, "dead_letters") == []
    assert harmonizer.stale_partitions("openai")


def test_a_cancelled_batch_frees_its_questions(harmonizer, endpoint):
    endpoint.configure(batch_seconds=3_600.0)
    [state] = harmonizer.submit_batch(harmonizer.partitions())
    api = harmonizer.batch_api()
    assert not api.cancel(str(state.batch_id)).is_open
    with pytest.raises(InputError, match="no open batch"):
        api.cancel(str(state.batch_id))
    assert api.collect().unanswered == state.words
    judge(harmonizer)
    assert endpoint.stats()["words_asked"] == state.words


def test_answers_that_break_the_schema_are_left_to_be_asked_again(harmonizer, endpoint):
    endpoint.configure(batch_seconds=0.0, faults={"missing_id": 0.5, "truncated": 0.4})
    [state] = harmonizer.submit_batch(harmonizer.partitions())
    collected = harmonizer.batch_api().collect()
    assert collected.unanswered > 0
    assert collected.answers + collected.unanswered == state.words
    endpoint.configure()
    judge(harmonizer)
    assert endpoint.stats()["words_asked"] == collected.unanswered


def test_a_submission_whose_process_died_is_adopted(harmonizer, monkeypatch):
    with monkeypatch.context() as died:
        died.setattr("harmonizer_assets.core.llm.batch_api.BatchAPI._see", lambda *args: None)
        [state] = harmonizer.submit_batch(harmonizer.partitions())
    assert (state.status, state.batch_id) == ("submitting", None)
    assert harmonizer.batch_api().collect().answers == state.words


def test_a_submission_that_the_endpoint_never_got_is_forgotten(harmonizer, monkeypatch):
    with monkeypatch.context() as died:
        died.setattr("harmonizer_assets.core.llm.batch_api.BatchAPI._see", lambda *args: None)
        died.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        with pytest.raises(JudgeError, match="cannot be reached"):
            harmonizer.submit_batch(harmonizer.partitions())
    assert harmonizer.has_open_batches()
    harmonizer.batch_api().adopt()
    assert harmonizer.batch_api().states()[0].status == "failed"
    assert not harmonizer.has_open_batches()


def test_the_budget_limits_what_a_batch_holds(home, endpoint):
    scored_home(home, label_types=3, merchants=2, words=20, settings=EVERY)
    poor = Harmonizer(home, EVERY.with_judge(budget_tokens=12_000))
    [state] = poor.submit_batch(poor.partitions())
    assert 0 < state.words < 120
    poor.batch_api().collect()
    stats = endpoint.stats()
    assert stats["prompt_tokens"] + stats["completion_tokens"] <= 12_000


def test_the_sensor_requests_a_run_once_a_batch_has_ended(harmonizer, endpoint, home):
    with DagsterInstance.ephemeral() as instance:
        resources = {"harmonizer": HarmonizerResource(home=str(home.root))}

        def tick():
            context = build_sensor_context(instance=instance, resources=resources)
            return batch_api_sensor.evaluate_tick(context)

        assert tick().skip_message == "no batch is open"
        endpoint.configure(batch_seconds=0.5)
        [state] = harmonizer.submit_batch(harmonizer.partitions())
        assert tick().skip_message == "the batches are still under way"
        time.sleep(0.6)
        [first], [second] = tick().run_requests, tick().run_requests
        assert first.run_key == second.run_key == state.batch_id
