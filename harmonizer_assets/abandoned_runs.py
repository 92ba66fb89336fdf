"""Runs in processes that were killed, which cannot say so themselves."""

from __future__ import annotations

import os
import socket
import time
from typing import Final

import psutil
from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter

_PID_TAG: Final = "harmonizer/pid"
_STARTED_TAG: Final = "harmonizer/process_started"
_HOST_TAG: Final = "harmonizer/host"
_SECONDS_TO_START: Final = 120.0


def process_tags() -> dict[str, str]:
    """Tags by which a run that this process executes is known to be alive."""
    return {
        _PID_TAG: str(os.getpid()),
        _STARTED_TAG: _process_started(os.getpid()),
        _HOST_TAG: socket.gethostname(),
    }


def fail_abandoned_runs(instance: DagsterInstance) -> list[str]:
    """Mark runs as failed whose process is gone; the ids of those runs.

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
        if _is_abandoned(record):
            instance.report_run_failed(run, "The process that executed this run was killed.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            abandoned.append(run.run_id)
    return abandoned


def _is_abandoned(record: RunRecord) -> bool:
    tags = record.dagster_run.tags
    if _PID_TAG not in tags:
        # Runs are tagged in their first seconds: one that is not was killed in them.
        began = record.start_time
        return began is not None and time.time() - began > _SECONDS_TO_START
    here = socket.gethostname()
    return tags.get(_HOST_TAG, here) == here and not _is_alive(
        int(tags[_PID_TAG]), tags.get(_STARTED_TAG, "")
    )


def _is_alive(pid: int, started: str) -> bool:
    try:
        return started == _process_started(pid)
    except psutil.NoSuchProcess:
        return False


def _process_started(pid: int) -> str:
    return f"{psutil.Process(pid).create_time():.2f}"
