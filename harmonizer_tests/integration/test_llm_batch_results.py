"""Results of the Batch API as they may come: whatever is in them, a collection ends the job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harmonizer_assets.core.base.errors import JudgeError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.judge.llm import BatchJob, Collected
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_tests.support.cli import cli
from harmonizer_tests.support.environment import use_endpoint
from harmonizer_tests.support.labels import scored_copy
from harmonizer_tests.support.receipts import table
from harmonizer_tests.support.simulated_endpoint import BATCH_FAULTS, Endpoint, simulated_endpoint
from harmonizer_tests.support.unpublished import Unpublished

EVERY = Settings().with_judge(skip_high_confidence=False, llm_batch_size=4)
WORDS_OF_A_CALL = 4
WORDS = 12


@pytest.fixture(scope="module")
def simulated() -> Iterator[Endpoint]:
    with simulated_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(simulated: Endpoint, home, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    simulated.configure(batch_seconds=0.0, first_token_seconds=0.01)
    use_endpoint(monkeypatch, simulated.url)
    return simulated


@pytest.fixture
def pipeline(home: Home, endpoint) -> Pipeline:
    scored_copy(home, words=WORDS)
    return Unpublished(home, EVERY)


def submit(pipeline: Pipeline) -> BatchJob:
    [job] = pipeline.submit(RunOptions(run_id="batch"))
    assert job.words == WORDS
    return job


def collect(pipeline: Pipeline) -> Collected:
    return pipeline.judge.batch_jobs().collect()


@dataclass(frozen=True)
class Case:
    """What comes of a fault: questions without an answer, why, lines that cannot be read."""

    unanswered: int
    reason: str = ""
    unreadable: int = 0


TABLE = {
    "no_json": Case(WORDS_OF_A_CALL, "the batch has no result for the call", 2),
    "no_custom_id": Case(WORDS_OF_A_CALL, "the batch has no result for the call", 2),
    "doubled": Case(0),
    "contradicting": Case(WORDS_OF_A_CALL, "the batch has several results for the call"),
    "errors_only": Case(WORDS, "'temperature' does not support 0.0"),
    "partly_expired": Case(WORDS_OF_A_CALL, "not answered in the batch: This request could not"),
    "results_gone": Case(WORDS, "the batch has no result for the call", 1),
    "no_usage": Case(0),
}


@pytest.mark.parametrize("fault", BATCH_FAULTS)
def test_every_question_is_answered_or_free_again_and_the_report_says_why(
    pipeline, endpoint, fault
):
    case = TABLE[fault]
    endpoint.configure(batch_seconds=0.0, batch_fault=fault)
    submit(pipeline)
    collected = collect(pipeline)
    assert (collected.batches, collected.unanswered) == (1, case.unanswered)
    assert collected.answers == WORDS - case.unanswered == len(table(pipeline, "llm_verdicts"))
    assert collected.unreadable == case.unreadable
    assert collected.reasons.total() == case.unanswered
    assert all(case.reason in reason for reason in collected.reasons)
    [job] = pipeline.judge.batch_jobs().states()
    assert job.status == "collected"
    assert case.reason in (job.error or "")
    assert collect(pipeline) == Collected()
    endpoint.configure(first_token_seconds=0.01)
    pipeline.harmonize(
        RunOptions(judge="openai"), partitions=pipeline.partitions.held(), assets=["llm_verdicts"]
    )
    assert endpoint.stats()["words_asked"] == case.unanswered


def test_usage_is_counted_once_for_a_doubled_result_and_estimated_where_it_is_not_told(
    pipeline, endpoint
):
    endpoint.configure(batch_seconds=0.0, batch_fault="doubled")
    submit(pipeline)
    collect(pipeline)
    [used] = table(pipeline, "llm_usage")
    assert used["words_asked"] == WORDS
    assert used["completion_tokens"] == endpoint.stats()["completion_tokens"]
    assert used["estimated_calls"] == 0


def test_usage_that_a_batch_does_not_tell_is_estimated_and_budgets_count_the_most(
    pipeline, endpoint
):
    endpoint.configure(batch_seconds=0.0, batch_fault="no_usage")
    submit(pipeline)
    reserved = table(pipeline, "llm_ledger")
    collect(pipeline)
    assert table(pipeline, "llm_ledger") == reserved
    [used] = table(pipeline, "llm_usage")
    assert used["estimated_calls"] == used["calls"] == WORDS / WORDS_OF_A_CALL
    assert used["completion_tokens"] > 0


def test_the_next_submission_leaves_out_what_the_last_one_was_rejected_for(pipeline, endpoint):
    endpoint.configure(batch_seconds=0.0, batch_fault="errors_only")
    submit(pipeline)
    collect(pipeline)
    endpoint.configure(batch_seconds=0.0)
    again = Pipeline(pipeline.home, EVERY)
    assert "temperature" not in again.judge.language_model().wording.parameters()
    submit(again)
    assert collect(again).answers == WORDS


def test_a_word_that_has_changed_meanwhile_is_named_and_asked_anew_and_no_other(pipeline, endpoint):
    submit(pipeline)
    changed = table(pipeline, "words")[0]["text"]
    pipeline.warehouse.write(
        lambda con: (
            con.execute("UPDATE words SET text = 'other' WHERE text = $1", [changed]) and None
        )
    )
    collected = collect(pipeline)
    assert collected.changed == (changed,)
    assert (collected.answers, collected.unanswered) == (WORDS, 0)
    endpoint.configure(first_token_seconds=0.01)
    pipeline.harmonize(
        RunOptions(judge="openai"), partitions=pipeline.partitions.held(), assets=["llm_verdicts"]
    )
    assert endpoint.words() == {"other": 1}


def test_a_login_page_in_place_of_results_loses_none(pipeline, endpoint):
    endpoint.configure(batch_seconds=0.0, batch_fault="page")
    submit(pipeline)
    with pytest.raises(JudgeError, match=r"a page has come .* want a login\?"):
        collect(pipeline)
    [job] = pipeline.judge.batch_jobs().states()
    assert job.status == "completed"
    assert endpoint.stats()["files"] == 2


def test_a_job_whose_results_cannot_be_read_now_does_not_keep_others_from_being_collected(
    pipeline, endpoint, monkeypatch
):
    lost = submit(pipeline)
    pipeline.warehouse.write(
        lambda con: (
            con.execute("UPDATE llm_batches SET batch_id = 'nowhere', status = 'completed'")
            and con.execute("DELETE FROM llm_batch_items")
            and None
        )
    )
    submit(pipeline)
    with pytest.raises(JudgeError, match="HTTP 404"):
        collect(pipeline)
    states = {job.submission_id: job.status for job in pipeline.judge.batch_jobs().states()}
    assert states.pop(lost.submission_id) == "completed"
    assert set(states.values()) == {"collected"}


def test_a_job_that_the_endpoint_does_not_know_can_be_given_up(pipeline, endpoint):
    submit(pipeline)
    for status in ("in_progress", "completed"):
        pipeline.warehouse.write(
            lambda con, status=status: (
                con.execute("UPDATE llm_batches SET batch_id = 'nowhere', status = $1", [status])
                and None
            )
        )
        with pytest.raises(JudgeError, match="harmonizer batch cancel nowhere"):
            collect(pipeline)
        assert pipeline.judge.batch_jobs().cancel("nowhere").status == "given up"
    assert table(pipeline, "llm_batch_items") == []
    assert collect(pipeline) == Collected()


# Files at the endpoint


def test_what_was_collected_is_deleted_at_the_endpoint(pipeline, endpoint):
    before = endpoint.stats()["files"]
    submit(pipeline)
    assert endpoint.stats()["files"] == before + 1
    collect(pipeline)
    assert endpoint.stats()["files"] == before
    assert {row["files_deleted"] for row in table(pipeline, "llm_batches")} == {True}


@pytest.mark.parametrize("fault", ["errors_only", "partly_expired", "results_gone"])
def test_files_of_errors_are_deleted_as_well(pipeline, endpoint, fault):
    before = endpoint.stats()["files"]
    endpoint.configure(batch_seconds=0.0, batch_fault=fault)
    submit(pipeline)
    collect(pipeline)
    assert endpoint.stats()["files"] == before


def test_files_that_a_killed_collection_has_left_are_deleted_by_the_next_one(
    pipeline, endpoint, monkeypatch
):
    before = endpoint.stats()["files"]
    submit(pipeline)
    with monkeypatch.context() as killed:
        killed.setattr(
            "harmonizer_assets.core.judge.llm.batch.jobs.BatchJobs._delete_files", _killed
        )
        with pytest.raises(KeyboardInterrupt):
            collect(pipeline)
    assert endpoint.stats()["files"] > before
    assert collect(pipeline).batches == 0
    assert endpoint.stats()["files"] == before


def _killed(jobs: object) -> None:
    raise KeyboardInterrupt


def test_a_cancelled_job_leaves_no_file(pipeline, endpoint):
    before = endpoint.stats()["files"]
    endpoint.configure(batch_seconds=3_600.0)
    job = submit(pipeline)
    pipeline.judge.batch_jobs().cancel(str(job.batch_id))
    collect(pipeline)
    assert endpoint.stats()["files"] == before


def test_the_command_says_why_questions_have_no_answer(pipeline, endpoint, home):
    endpoint.configure(batch_seconds=0.0, batch_fault="errors_only")
    submit(pipeline)
    told = cli("batch", "collect", home=home.root)
    assert told.returncode == 0, told.stderr
    assert "12 without an answer: the endpoint rejects the request" in told.stdout
    assert "'temperature' does not support 0.0" in told.stdout
