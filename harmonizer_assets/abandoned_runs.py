"""Runs in processes that were killed, which cannot say so themselves."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import psutil
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.events import RunFailureReason
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.storage.tags import (
    BACKFILL_ID_TAG,
    GRPC_INFO_TAG,
    RUN_FAILURE_REASON_TAG,
    WILL_RETRY_TAG,
)
from dagster._grpc.client import DagsterGrpcClient

_PID_TAG: Final = "harmonizer/pid"
_STARTED_TAG: Final = "harmonizer/process_started"
_HOST_TAG: Final = "harmonizer/host"
_SECONDS_TO_LAUNCH: Final = 60.0
_SECONDS_TO_START: Final = 120.0
_RETRIED_FOR: Final = timedelta(days=1)
_GOES_ON: Final = frozenset({BulkActionStatus.REQUESTED, BulkActionStatus.COMPLETED_FAILED})


def process_tags() -> dict[str, str]:
    """Tags by which a run that this process executes is known to be alive."""
    return {
        _PID_TAG: str(os.getpid()),
        _STARTED_TAG: _process_started(os.getpid()),
        _HOST_TAG: socket.gethostname(),
    }


def fail_abandoned_runs(instance: DagsterInstance) -> list[str]:
    """Mark runs as failed whose process is gone, or as canceled; the ids of those runs.

    The UI would show them as running for ever, what waits for them would wait for ever, and they
    would keep their places in the pools. Runs on other hosts are left alone.
    """
    unfinished = [
        DagsterRunStatus.NOT_STARTED,
        DagsterRunStatus.STARTING,
        DagsterRunStatus.STARTED,
        DagsterRunStatus.CANCELING,
    ]
    abandoned = []
    for record in instance.get_run_records(RunsFilter(statuses=unfinished)):
        run = record.dagster_run
        if _is_abandoned(instance, record):
            killed = "The process that executed this run was killed."
            if run.status == DagsterRunStatus.CANCELING:
                instance.report_run_canceled(run, killed)
            else:
                instance.report_run_failed(run, killed)
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            abandoned.append(run.run_id)
    return abandoned


def retry_again(instance: DagsterInstance) -> list[str]:
    """Have the daemon retry runs that it has given up; the ids of those runs.

    It starts the retry of a killed run once, and gives up for good when that fails. What kills a
    run may well kill the code server beside it, without which no retry can be started. The daemon
    acts on events of failure, so the run's failure is reported again; a backfill that has ended
    as failed meanwhile goes on.
    """
    given_up = RunsFilter(
        statuses=[DagsterRunStatus.FAILURE],
        tags={WILL_RETRY_TAG: "false"},
        created_after=datetime.now(UTC) - _RETRIED_FOR,
    )
    retried = []
    for run in instance.get_runs(given_up):
        if not _is_worth_a_retry(instance, run) or not _reopen_backfill(instance, run):
            continue
        instance.report_run_failed(run, "The retry of this run could not be started: once more.")
        retried.append(run.run_id)
    return retried


def _is_worth_a_retry(instance: DagsterInstance, run: DagsterRun) -> bool:
    reason = run.tags.get(RUN_FAILURE_REASON_TAG)
    if not auto_reexecution_should_retry_run(
        instance, run, RunFailureReason(reason) if reason else None
    ):
        return False
    _, group = instance.get_run_group(run.run_id) or (run.run_id, [])
    # A retry that was made and not queued is queued by the daemon when it tries again.
    return not any(
        other.parent_run_id == run.run_id and other.status != DagsterRunStatus.NOT_STARTED
        for other in group
    )


def _reopen_backfill(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Whether the run's backfill, if it is part of one, goes on; canceled ones do not."""
    backfill_id = run.tags.get(BACKFILL_ID_TAG)
    if backfill_id is None:
        return True
    backfill = instance.get_backfill(backfill_id)
    if backfill is None or backfill.status not in _GOES_ON:
        return False
    if backfill.status != BulkActionStatus.REQUESTED:
        instance.update_backfill(backfill.with_status(BulkActionStatus.REQUESTED))
    return True


def _is_abandoned(instance: DagsterInstance, record: RunRecord) -> bool:
    tags = record.dagster_run.tags
    if _PID_TAG not in tags:
        # Runs are tagged in their first seconds: one that is not was killed in them.
        if record.start_time is not None:
            return time.time() - record.start_time > _SECONDS_TO_START
        launched = record.update_timestamp.timestamp()
        return time.time() - launched > _SECONDS_TO_LAUNCH and _launcher_is_gone(instance, tags)
    here = socket.gethostname()
    return tags.get(_HOST_TAG, here) == here and not _is_alive(
        int(tags[_PID_TAG]), tags.get(_STARTED_TAG, "")
    )


def _launcher_is_gone(instance: DagsterInstance, tags: Mapping[str, str]) -> bool:
    """Whether the code server that was asked to execute a run does not answer, or none was asked.

    Dagster's default launcher notes the server before it asks; other launchers do not.
    """
    if GRPC_INFO_TAG not in tags:
        return isinstance(instance.run_launcher, DefaultRunLauncher)
    address = json.loads(tags[GRPC_INFO_TAG])
    try:
        DagsterGrpcClient(
            port=address.get("port"),
            socket=address.get("socket"),
            host=address.get("host", "localhost"),
            use_ssl=address.get("use_ssl", False),
        ).ping("")
    except DagsterUserCodeUnreachableError:
        return True
    return False


def _is_alive(pid: int, started: str) -> bool:
    try:
        return started == _process_started(pid)
    except psutil.NoSuchProcess:
        return False


def _process_started(pid: int) -> str:
    return f"{psutil.Process(pid).create_time():.2f}"
