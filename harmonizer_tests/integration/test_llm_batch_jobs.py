"""The Batch API mode against a simulated endpoint."""

from __future__ import annotations

import threading
import time

import pytest
from dagster import DagsterInstance, build_sensor_context

from harmonizer_assets.core.base.errors import InputError, JudgeError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.judge.llm.batch.api import BatchApi
from harmonizer_assets.core.judge.llm.batch.jobs import BatchJobs
from harmonizer_assets.core.judge.llm.batch.table import without_job
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.defs.resources import HomeResource
from harmonizer_assets.defs.sensors import batch_api_sensor
from harmonizer_tests.support.environment import use_endpoint
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.labels import scored_copy
from harmonizer_tests.support.receipts import table
from harmonizer_tests.support.simulated_endpoint import Endpoint, simulated_endpoint
from harmonizer_tests.support.unpublished import Unpublished

OPENAI = RunOptions(run_id="run", judge="openai")
EVERY = Settings().with_judge(skip_high_confidence=False)


@pytest.fixture(scope="module")
def simulated():
    with simulated_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(simulated: Endpoint, home, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    simulated.configure(batch_seconds=0.0)
    use_endpoint(monkeypatch, simulated.url)
    return simulated


@pytest.fixture
def pipeline(home: Home, endpoint) -> Pipeline:
    scored_copy(home, label_types=2, merchants=2, words=12, repeated=0.3)
    return Unpublished(home, EVERY)


def judged_plainly(home: Home) -> Pipeline:
    """The pipeline of a home that asks no model and has judged all labels."""
    copy_home(
        home,
        "judged plainly",
        lambda fresh: scored_copy(fresh, label_types=3, merchants=2, words=12).harmonize(
            RunOptions(run_id="before")
        ),
    )
    return Unpublished(home)


def judge(pipeline: Pipeline) -> None:
    pipeline.harmonize(OPENAI, partitions=pipeline.partitions.held(), assets=["llm_verdicts"])


def test_a_batch_is_collected_into_the_cache_at_half_the_price(pipeline, endpoint):
    [state] = pipeline.submit(RunOptions(run_id="batch"))
    assert state.is_open
    collected = pipeline.judge.batch_jobs().collect()
    stats = endpoint.stats()
    assert (collected.batches, collected.unanswered) == (1, 0)
    assert collected.answers == state.words == stats["words_asked"]
    judge(pipeline)
    assert endpoint.stats()["requests"] == 0
    assert {row["decided_by"] for row in table(pipeline, "label_decisions")} == {"cache"}
    cost = (stats["prompt_tokens"] * 0.15 + stats["completion_tokens"] * 0.60) / 1e6
    assert sum(row["cost_usd"] for row in table(pipeline, "llm_verdicts")) == pytest.approx(
        cost / 2
    )
    used = [row for row in table(pipeline, "llm_usage") if row["run_id"] == "batch"]
    assert sum(row["prompt_tokens"] for row in used) == stats["prompt_tokens"]


def test_while_a_batch_is_under_way_nobody_else_asks_its_questions(pipeline, endpoint):
    endpoint.configure(batch_seconds=3_600.0)
    pipeline.submit(RunOptions())
    assert pipeline.submit(RunOptions()) == []
    judge(pipeline)
    assert endpoint.stats()["words_asked"] == 0
    rows = table(pipeline, "label_decisions")
    assert {row["reasoning"] for row in rows} == {"waits for the answer of a batch"}
    assert table(pipeline, "dead_letters") == []
    assert pipeline.stale(OPENAI)


def test_a_submission_beside_a_run_buys_nothing_twice(pipeline, endpoint, home):
    endpoint.configure(batch_seconds=0.0, first_token_seconds=0.3, tokens_per_second=2_000.0)
    run = threading.Thread(target=judge, args=[Unpublished(home, EVERY)])
    run.start()
    while not endpoint.stats()["requests"]:
        time.sleep(0.01)
    waits: list[str] = []
    assert pipeline.submit(RunOptions(on_progress=lambda told: waits.append(told.stage))) == []
    run.join()
    assert "llm_verdicts waits for another run that asks" in waits
    assert endpoint.stats()["words_asked"] == len(table(pipeline, "llm_verdicts")) > 0


def test_a_run_beside_a_submission_waits_and_buys_nothing_twice(
    pipeline, endpoint, home, monkeypatch
):
    endpoint.configure(batch_seconds=3_600.0)
    send = BatchJobs._submit
    run = threading.Thread(target=judge, args=[Unpublished(home, EVERY)])

    def while_a_run_begins(jobs, *args):
        run.start()
        time.sleep(1)
        send(jobs, *args)

    monkeypatch.setattr(BatchJobs, "_submit", while_a_run_begins)
    assert pipeline.submit(RunOptions())
    run.join()
    assert endpoint.stats()["requests"] == 0


def test_a_look_at_the_batches_does_not_give_up_one_that_is_being_submitted(
    pipeline, endpoint, home, monkeypatch
):
    endpoint.configure(batch_seconds=3_600.0)
    jobs = pipeline.judge.batch_jobs()
    upload = jobs._api._client.files.create

    def looked_at(**file):
        # The submission is written down, and the endpoint does not have it yet.
        Unpublished(home, EVERY).judge.batch_jobs().refresh()
        assert [job.status for job in jobs.states()] == ["submitting"]
        return upload(**file)

    monkeypatch.setattr(jobs._api._client.files, "create", looked_at)
    monkeypatch.setattr(pipeline.judge, "batch_jobs", lambda: jobs)
    [job] = pipeline.submit(RunOptions())
    assert job.is_open
    assert pipeline.tables.has_open_batch_jobs()


def test_a_cancelled_batch_frees_its_questions(pipeline, endpoint):
    endpoint.configure(batch_seconds=3_600.0)
    [state] = pipeline.submit(RunOptions())
    api = pipeline.judge.batch_jobs()
    assert not api.cancel(str(state.batch_id)).is_open
    with pytest.raises(InputError, match="no open batch"):
        api.cancel(str(state.batch_id))
    assert api.collect().unanswered == state.words
    judge(pipeline)
    assert endpoint.stats()["words_asked"] == state.words


def test_answers_that_break_the_schema_are_left_to_be_asked_again(pipeline, endpoint):
    endpoint.configure(batch_seconds=0.0, faults={"missing_id": 0.5, "truncated": 0.4})
    [state] = pipeline.submit(RunOptions())
    collected = pipeline.judge.batch_jobs().collect()
    assert collected.unanswered > 0
    assert collected.answers + collected.unanswered == state.words
    endpoint.configure()
    judge(pipeline)
    assert endpoint.stats()["words_asked"] == collected.unanswered


def test_a_submission_whose_process_died_is_adopted(pipeline, monkeypatch):
    with monkeypatch.context() as died:
        died.setattr(
            "harmonizer_assets.core.judge.llm.batch.jobs.BatchJobs._see", lambda *args: None
        )
        [state] = pipeline.submit(RunOptions())
    assert (state.status, state.batch_id) == ("submitting", None)
    assert pipeline.judge.batch_jobs().collect().answers == state.words


@pytest.mark.parametrize("then", ["submit", "collect", "cancel"])
def test_a_file_whose_process_died_before_it_became_a_job_is_deleted(pipeline, endpoint, then):
    endpoint.configure(batch_seconds=3_600.0)
    before = endpoint.stats()["files"]
    one_type = pipeline.partitions.held()[0].label_type
    [other] = pipeline.submit(RunOptions(label_types=[one_type]))
    jobs = pipeline.judge.batch_jobs()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    jobs._api._start = die  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.judge, "batch_jobs", lambda: jobs)
        with pytest.raises(KeyboardInterrupt):
            pipeline.submit(RunOptions())
    assert endpoint.stats()["files"] == before + 2
    next_one = pipeline.judge.batch_jobs()
    if then == "submit":
        pipeline.submit(RunOptions(label_types=[one_type]))
    elif then == "collect":
        next_one.collect()
    else:
        next_one.adopt()
        next_one.cancel(str(other.batch_id))
    assert endpoint.stats()["files"] == before + 1
    [lost] = [job for job in next_one.states() if job.batch_id is None]
    assert lost.status == "failed"
    assert without_job(pipeline.warehouse) == {}


def test_files_that_the_endpoint_does_not_list_are_looked_for_again(
    pipeline, endpoint, monkeypatch
):
    endpoint.configure(batch_seconds=3_600.0)
    with monkeypatch.context() as patch:
        patch.setattr(BatchApi, "_start", refused)
        patch.setattr(BatchApi, "_delete", lambda *_: False)
        with pytest.raises(JudgeError, match="no job"):
            pipeline.submit(RunOptions())
        pipeline.judge.batch_jobs().collect()
    assert len(without_job(pipeline.warehouse)) == 1
    pipeline.judge.batch_jobs().collect()
    assert without_job(pipeline.warehouse) == {}


def refused(*_: object) -> None:
    raise JudgeError("no job today")


def test_a_submission_that_the_endpoint_never_got_is_forgotten(pipeline, monkeypatch):
    with monkeypatch.context() as died:
        died.setattr(
            "harmonizer_assets.core.judge.llm.batch.jobs.BatchJobs._see", lambda *args: None
        )
        died.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        with pytest.raises(JudgeError, match="cannot be reached"):
            pipeline.submit(RunOptions())
    assert pipeline.tables.has_open_batch_jobs()
    pipeline.judge.batch_jobs().adopt()
    assert pipeline.judge.batch_jobs().states()[0].status == "failed"
    assert not pipeline.tables.has_open_batch_jobs()


def test_the_budget_limits_what_a_batch_holds(home, endpoint):
    scored_copy(home, label_types=3, merchants=2, words=12)
    poor = Unpublished(home, EVERY.with_judge(budget_tokens=8_000))
    [state] = poor.submit(RunOptions())
    assert 0 < state.words < 72
    poor.judge.batch_jobs().collect()
    stats = endpoint.stats()
    assert stats["prompt_tokens"] + stats["completion_tokens"] <= 8_000


def test_the_sensor_requests_a_run_once_a_batch_has_ended(pipeline, endpoint, home):
    with DagsterInstance.ephemeral() as instance:
        resources = {"home": HomeResource(home=str(home.root))}

        def tick():
            context = build_sensor_context(instance=instance, resources=resources)
            return batch_api_sensor.evaluate_tick(context)

        assert tick().skip_message == "no batch is open"
        endpoint.configure(batch_seconds=3_600.0)
        [state] = pipeline.submit(RunOptions())
        assert tick().skip_message == "the batches are still under way"
        endpoint.configure(batch_seconds=0.0)
        [first], [second] = tick().run_requests, tick().run_requests
        assert first.run_key == second.run_key == state.batch_id


def judged_rows(pipeline: Pipeline) -> dict[tuple[str, str], list[tuple[object, ...]]]:
    """The decisions of each partition."""
    found: dict[tuple[str, str], list[tuple[object, ...]]] = {}
    for row in table(pipeline, "label_decisions"):
        key = (row["label_type"], row["merchant_key"])
        found.setdefault(key, []).append((row["image_id"], row["line_id"], row["decided_by"]))
    return {key: sorted(rows) for key, rows in found.items()}


def test_collecting_touches_only_the_partitions_of_the_batch_and_uses_all_that_it_paid_for(
    home, endpoint
):
    # Every label was asked about on submission; the home itself asks no model.
    plain = judged_plainly(home)
    before = judged_rows(plain)
    one, *others = sorted(before)
    submitted = RunOptions(run_id="batch", label_types=[one[0]], merchants=[one[1]])
    [state] = Unpublished(home, EVERY).submit(submitted)
    collected = Unpublished(home).harmonize(RunOptions(run_id="collect", collect=True))
    assert endpoint.stats()["requests"] == 0
    assert state.words == 12
    after = judged_rows(plain)
    assert {how for _, _, how in after[one]} == {"cache"}
    assert {key: after[key] for key in others} == {key: before[key] for key in others}
    assert {
        stage.computed for stage in collected.stages if stage.asset != "similarity_matches"
    } == {1}
    assert plain.stale(RunOptions()) == []


def test_a_question_without_an_answer_leaves_its_label_as_it_was_decided(home, endpoint):
    plain = judged_plainly(home)
    before = plain.tables.counts().unresolved
    endpoint.configure(batch_seconds=0.0, faults={"truncated": 1.0})
    Unpublished(home, EVERY).submit(RunOptions(run_id="batch"))
    plain.harmonize(RunOptions(run_id="collect", collect=True))
    assert plain.tables.counts().unresolved == before


def test_a_collection_that_was_killed_before_the_partitions_were_computed_goes_on(home, endpoint):
    plain = judged_plainly(home)
    Unpublished(home, EVERY).submit(RunOptions(run_id="batch"))
    plain.judge.batch_jobs().collect()
    assert len(plain.stale(RunOptions())) == 6
    plain.harmonize(RunOptions(run_id="again", collect=True))
    assert plain.stale(RunOptions()) == []
    assert {row["decided_by"] for row in table(plain, "label_decisions")} == {"cache"}
    assert plain.judge.collected() == []


def test_a_batch_counts_with_the_most_that_it_may_cost_until_it_is_collected(home, endpoint):
    scored_copy(home, label_types=3, merchants=2, words=12)
    daily = Unpublished(home, EVERY.with_judge(daily_budget_tokens=12_000))
    [state] = daily.submit(RunOptions(run_id="batch"))
    [reserved] = table(daily, "llm_ledger")
    assert reserved["tokens"] == reserved["unconfirmed_tokens"] <= 12_000
    assert reserved["purpose"] == "batch"
    assert 0 < state.words < 72
    judge(daily)
    assert endpoint.stats()["requests"] == 0
    daily.judge.batch_jobs().collect()
    [settled] = table(daily, "llm_ledger")
    stats = endpoint.stats()
    assert settled["tokens"] == stats["prompt_tokens"] + stats["completion_tokens"]
    assert settled["unconfirmed_tokens"] == 0
    assert settled["usd"] == pytest.approx(
        sum(row["cost_usd"] for row in table(daily, "llm_verdicts"))
    )


def test_a_batch_that_the_endpoint_did_not_take_costs_nothing(pipeline, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(JudgeError, match="cannot be reached"):
        pipeline.submit(RunOptions())
    assert table(pipeline, "llm_ledger") == []
