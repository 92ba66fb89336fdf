"""Runs whose process was killed, by what the real Dagster makes of them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time

import psutil
import pytest
from dagster import (
    AssetKey,
    DagsterError,
    DagsterEventType,
    DagsterRun,
    DagsterRunStatus,
    DefaultRunLauncher,
    build_sensor_context,
)
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.events import EngineEventData, RunFailureReason
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.tags import (
    GRPC_INFO_TAG,
    PARENT_RUN_ID_TAG,
    ROOT_RUN_ID_TAG,
    WILL_RETRY_TAG,
)
from dagster._grpc.client import DagsterGrpcClient

from harmonizer_assets.dagster_compat.run_health import (
    fail_abandoned_runs,
    launch_tags,
    retry_again,
)
from harmonizer_assets.defs.sensors import abandoned_runs
from harmonizer_tests.support.bare_runs import GONE, bare_run
from harmonizer_tests.support.served import wait_for

NO_RETRIES = {"dagster/max_retries": "0"}


def test_a_killed_run_that_was_being_canceled_is_canceled_and_not_retried(instance):
    run = bare_run(instance, DagsterRunStatus.CANCELING, GONE)
    assert fail_abandoned_runs(instance) == [run.run_id]
    after = instance.get_run_by_id(run.run_id)
    assert after.status == DagsterRunStatus.CANCELED
    assert not after.is_complete_and_waiting_to_retry


def test_a_container_that_takes_over_under_the_same_name_notices_runs_of_the_one_before(
    instance, monkeypatch
):
    run = bare_run(instance, DagsterRunStatus.STARTED, {**GONE, "harmonizer/host": "labels"})
    assert fail_abandoned_runs(instance) == [], "its process may live on another host"
    monkeypatch.setenv("HARMONIZER_HOST", "labels")
    assert launch_tags() == {"harmonizer/host": "labels"}
    assert fail_abandoned_runs(instance) == [run.run_id]


@pytest.fixture
def code_server(tmp_path):
    """The socket of a code server that answers."""
    socket = str(tmp_path / "code.sock")
    module = ["-m", "harmonizer_assets.definitions"]
    command = [sys.executable, "-m", "dagster", "api", "grpc", "--lazy-load-user-code"]
    process = subprocess.Popen([*command, "--socket", socket, *module])
    try:
        wait_for(lambda: answers(socket))
        yield socket
    finally:
        process.kill()
        process.wait()


def answers(socket: str) -> bool:
    try:
        DagsterGrpcClient(socket=socket).ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True


LOCAL = json.dumps({"host": "localhost", "socket": "/nowhere"})
ELSEWHERE = json.dumps({"host": "code-server", "port": 4000})


@pytest.mark.parametrize(
    "status", [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
)
def test_a_run_killed_before_it_was_tagged_is_noticed_at_once(instance, status):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        run = started_run(instance, status, process.pid, {**launch_tags(), GRPC_INFO_TAG: LOCAL})
        assert fail_abandoned_runs(instance) == [], "its process is alive"
        process.kill()
        wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        assert fail_abandoned_runs(instance) == [run.run_id], "nobody has waited for it yet"


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {GRPC_INFO_TAG: LOCAL},
        {GRPC_INFO_TAG: LOCAL, "harmonizer/host": "another"},
        {GRPC_INFO_TAG: ELSEWHERE, **launch_tags()},
    ],
    ids=["not launched", "host unknown", "launched on another host", "executed elsewhere"],
)
def test_a_process_that_may_be_on_another_host_is_given_the_time_to_start(instance, tags):
    started_run(instance, DagsterRunStatus.STARTED, 999_999_999, tags)
    assert fail_abandoned_runs(instance) == []


def started_run(instance, status, pid: int, tags: dict[str, str]) -> DagsterRun:
    """A run in whose log Dagster has noted the process."""
    run = bare_run(instance, status, tags)
    instance.report_engine_event(
        f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid)
    )
    return run


def test_a_run_whose_code_server_is_gone_or_was_never_asked_is_marked_as_failed(
    instance, monkeypatch, code_server, tmp_path
):
    asked, gone, never = (
        bare_run(instance, DagsterRunStatus.STARTING, tags).run_id
        for tags in (
            {GRPC_INFO_TAG: json.dumps({"host": "localhost", "socket": code_server})},
            {GRPC_INFO_TAG: json.dumps({"host": "localhost", "socket": str(tmp_path / "gone")})},
            {},
        )
    )
    assert fail_abandoned_runs(instance) == [], "it may take a while to start"
    monkeypatch.setattr("harmonizer_assets.dagster_compat.run_health._SECONDS_TO_LAUNCH", 0.0)
    assert {*fail_abandoned_runs(instance)} == {gone, never}
    assert instance.get_run_by_id(asked).status == DagsterRunStatus.STARTING


def test_a_run_whose_launch_dagsters_launcher_noted_is_found_when_its_code_server_is_gone(
    instance, monkeypatch, tmp_path
):
    run = bare_run(instance, DagsterRunStatus.STARTING, {})
    nobody = DagsterGrpcClient(socket=str(tmp_path / "gone"))
    with pytest.raises(DagsterError):
        DefaultRunLauncher.launch_run_from_grpc_client(instance, run, nobody)
    monkeypatch.setattr("harmonizer_assets.dagster_compat.run_health._SECONDS_TO_LAUNCH", 0.0)
    noted = json.loads(instance.get_run_by_id(run.run_id).tags[GRPC_INFO_TAG])
    assert noted["socket"] == str(tmp_path / "gone")
    assert fail_abandoned_runs(instance) == [run.run_id]


def test_the_end_of_a_killed_run_is_logged(instance, caplog):
    run = bare_run(instance, DagsterRunStatus.STARTED, GONE)
    with caplog.at_level(logging.INFO, "harmonizer_assets.dagster_compat"):
        fail_abandoned_runs(instance)
    assert [run.run_id in message for message in caplog.messages] == [True]


def test_a_killed_run_that_monitoring_has_noticed_fails_once(instance, monkeypatch):
    run = bare_run(instance, DagsterRunStatus.STARTED, GONE)
    as_it_was = instance.get_run_records()
    instance.report_run_failed(run, "noticed by run monitoring")
    monkeypatch.setattr(instance, "get_run_records", lambda *_, **__: as_it_was)
    assert fail_abandoned_runs(instance) == []
    assert failures(instance, run) == 1


def given_up(instance, **tags: str) -> DagsterRun:
    """A killed run whose retry the daemon could not start, because no code server answered."""
    run = bare_run(instance, DagsterRunStatus.STARTED, tags)
    instance.report_run_failed(run, "killed")
    assert instance.get_run_by_id(run.run_id).is_complete_and_waiting_to_retry
    instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: "false"})
    return run


def failures(instance, run: DagsterRun) -> int:
    return len(instance.all_logs(run.run_id, of_type=DagsterEventType.RUN_FAILURE))


def test_a_retry_that_could_not_be_started_is_asked_for_once_more_and_once_only(instance):
    run = given_up(instance)
    for retries in (1, 0):
        answer = abandoned_runs(build_sensor_context(instance=instance))
        assert answer.skip_message == f"0 runs had been abandoned, {retries} retries were missed"
        assert instance.get_run_by_id(run.run_id).is_complete_and_waiting_to_retry
        assert failures(instance, run) == 2, "the daemon acts on events of failure"


@pytest.mark.parametrize(
    "tags",
    [NO_RETRIES, {"dagster/failure_reason": RunFailureReason.STEP_FAILURE.value}],
)
def test_a_run_that_failed_for_a_cause_is_not_retried(instance, tags):
    run = bare_run(instance, DagsterRunStatus.STARTED, tags)
    instance.report_run_failed(run, "a step failed")
    assert retry_again(instance) == []
    assert failures(instance, run) == 1


def test_a_run_that_somebody_has_started_again_is_not_retried(instance):
    run = given_up(instance)
    bare_run(
        instance,
        DagsterRunStatus.SUCCESS,
        {PARENT_RUN_ID_TAG: run.run_id, ROOT_RUN_ID_TAG: run.run_id},
        parent_run_id=run.run_id,
        root_run_id=run.run_id,
    )
    assert retry_again(instance) == []


@pytest.mark.parametrize(
    ("ended", "afterwards", "retries"),
    [
        (BulkActionStatus.COMPLETED_FAILED, BulkActionStatus.REQUESTED, 1),
        (BulkActionStatus.REQUESTED, BulkActionStatus.REQUESTED, 1),
        (BulkActionStatus.CANCELED, BulkActionStatus.CANCELED, 0),
    ],
)
def test_a_backfill_that_ended_for_want_of_a_retry_goes_on_and_a_canceled_one_does_not(
    instance, ended, afterwards, retries
):
    backfill = PartitionBackfill(
        backfill_id="abcdefgh",
        status=ended,
        from_failure=False,
        tags={},
        backfill_timestamp=time.time(),
        asset_selection=[AssetKey("outliers")],
    )
    instance.add_backfill(backfill)
    given_up(instance, **{"dagster/backfill": backfill.backfill_id})
    assert len(retry_again(instance)) == retries
    assert instance.get_backfill(backfill.backfill_id).status == afterwards
