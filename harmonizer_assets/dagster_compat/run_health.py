"""Runs whose process was killed, which cannot report it themselves.

Dagster's run monitoring asks the run launcher for the health of run workers, see `run_launcher`.
That is enough for runs that have started, while a daemon runs and its monitoring is enabled. It is
not enough for the rest, which `fail_abandoned_runs` covers, called by the sensor `abandoned_runs`
and before each run of the command line:

- Runs that are being launched. Monitoring does not ask for their health; it waits for
  `start_timeout_seconds`, which has to allow for a slow start, and marks runs as failed that are
  merely slow. Here the code server is asked whether it is there.
- Runs that are being canceled. Monitoring waits for `cancel_timeout_seconds`.
- Runs that kept their places in the pools. The daemon frees them one minute after the run's end,
  here they are free at once.
- Homes of which no daemon runs: a run of the command line must not wait for one that was killed.
- Homes made with an earlier version, whose dagster.yaml does not name the launcher.

Nor does monitoring retry a run again whose retry could not be started, see `retry_again`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil
from dagster import (
    DagsterError,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultRunLauncher,
    RunRecord,
    RunsFilter,
)
from dagster._core.events import RunFailureReason
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._grpc.client import DagsterGrpcClient

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.base.identity import host_name
from harmonizer_assets.dagster_compat.tags import (
    BACKFILL_ID_TAG,
    GRPC_INFO_TAG,
    RUN_FAILURE_REASON_TAG,
    WILL_RETRY_TAG,
)

KILLED: Final = "The process that executed this run was killed."
"""The message in the log of such a run."""

_log = logging.getLogger(__name__)
_PID_TAG: Final = "harmonizer/pid"
_STARTED_TAG: Final = "harmonizer/process_started"
_HOST_TAG: Final = "harmonizer/host"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_SECONDS_TO_LAUNCH: Final = 60.0
_SECONDS_TO_START: Final = 120.0
_RETRIED_FOR: Final = timedelta(days=1)
_GOES_ON: Final = frozenset({BulkActionStatus.REQUESTED, BulkActionStatus.COMPLETED_FAILED})


def process_tags() -> dict[str, str]:
    """Return the tags that identify this process as the one that executes a run."""
    return {
        _PID_TAG: str(os.getpid()),
        _STARTED_TAG: _process_started(os.getpid()),
        _HOST_TAG: host_name(),
    }


def launch_tags() -> dict[str, str]:
    """Return the tags that say on which host a run was launched."""
    return {_HOST_TAG: host_name()}


def fail_abandoned_runs(instance: DagsterInstance) -> list[str]:
    """Mark runs as failed whose process is gone, or as canceled; return their ids.

    Otherwise the UI would show them as running for ever, runs would wait for them, and they would
    keep their places in the pools. Runs on other hosts are left alone.
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
        # Asked again: run monitoring may have noticed in the meantime.
        if _is_abandoned(instance, record) and not _has_ended(instance, run.run_id):
            _end(instance, run)
            abandoned.append(run.run_id)
    return abandoned


def _has_ended(instance: DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished


def _end(instance: DagsterInstance, run: DagsterRun) -> None:
    if run.status == DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, KILLED)
    else:
        instance.report_run_failed(run, KILLED)
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    _log.info("run %s (%s): its process is gone; the run has ended", run.run_id, run.job_name)


def retry_again(instance: DagsterInstance) -> list[str]:
    """Make the daemon retry runs that it has given up; return their ids.

    It starts the retry of a killed run once, and gives up for good when that fails. What kills a
    run may well kill the code server beside it, without which no retry can be started. The daemon
    acts on events of failure, so the run's failure is reported again; a backfill that has ended
    as failed meanwhile goes on.
    """
    given_up = RunsFilter(
        statuses=[DagsterRunStatus.FAILURE],
        tags={WILL_RETRY_TAG: "false"},
        created_after=utc_now() - _RETRIED_FOR,
    )
    retried = []
    for run in instance.get_runs(given_up):
        if not _is_worth_a_retry(instance, run) or not _reopen_backfill(instance, run):
            continue
        instance.report_run_failed(run, "The retry of this run could not be started: once more.")
        _log.info("run %s (%s): its retry is asked for again", run.run_id, run.job_name)
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
    """Reopen the run's backfill, if it has one; return whether it goes on."""
    backfill_id = run.tags.get(BACKFILL_ID_TAG)
    if backfill_id is None:
        return True
    backfill = instance.get_backfill(backfill_id)
    if backfill is None or backfill.status not in _GOES_ON:
        return False
    if backfill.status != BulkActionStatus.REQUESTED:
        instance.update_backfill(backfill.with_status(BulkActionStatus.REQUESTED))
    return True


def worker_is_gone(instance: DagsterInstance, record: RunRecord) -> bool:
    """Return whether the process that executes a started run has ended.

    Runs on other hosts count as alive, since their processes cannot be seen.
    """
    tags = record.dagster_run.tags
    if _PID_TAG not in tags:
        # Runs are tagged in their first seconds: one that is not was killed in them.
        started = record.start_time
        is_late = started is not None and time.time() - started > _SECONDS_TO_START
        return is_late or _launched_process_is_gone(instance, record.dagster_run)
    here = host_name()
    return tags.get(_HOST_TAG, here) == here and not _is_alive(
        int(tags[_PID_TAG]), tags.get(_STARTED_TAG, "")
    )


def _is_abandoned(instance: DagsterInstance, record: RunRecord) -> bool:
    tags = record.dagster_run.tags
    if _PID_TAG in tags or record.start_time is not None:
        return worker_is_gone(instance, record)
    if _launched_process_is_gone(instance, record.dagster_run):
        return True
    launched = record.update_timestamp.timestamp()
    return time.time() - launched > _SECONDS_TO_LAUNCH and _launcher_is_gone(instance, tags)


def _launched_process_is_gone(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Return whether the process that was started for an untagged run is known to have ended.

    Dagster logs its id, but neither the host, which our launcher notes, nor when it started: while
    any process has this id, it may be that of the run.
    """
    address = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    is_local = "socket" in address or address.get("host") in _LOCAL
    if not is_local or run.tags.get(_HOST_TAG) != host_name():
        return False
    pid = started_pid(instance, run.run_id)
    return pid is not None and not _exists(pid)


def started_pid(instance: DagsterInstance, run_id: str) -> int | None:
    """Return the id of the process that was started for a run, as Dagster's log has it.

    Dagster writes it before the process loads any of our code, which tags the run later.
    """
    for record in instance.get_records_for_run(
        run_id, of_type=DagsterEventType.ENGINE_EVENT, ascending=False
    ).records:
        event = record.event_log_entry.dagster_event
        if event is None or not (event.message or "").startswith("Started process for run"):
            continue
        pid = str(event.engine_event_data.metadata["pid"].value)
        return int(pid) if pid.isdecimal() else None
    return None


def _exists(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _launcher_is_gone(instance: DagsterInstance, tags: Mapping[str, str]) -> bool:
    """Return whether the code server of a run does not answer, or was never asked to execute it.

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
    except DagsterError:
        return True
    return False


def _is_alive(pid: int, started: str) -> bool:
    try:
        return started == _process_started(pid)
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False


def _process_started(pid: int) -> str:
    """Return what tells a process from a later one with the same id.

    On Linux these are its start in ticks since the boot, and the boot: `create_time` is computed
    from the time of day, so that all processes would look like others when the clock is set.
    """
    if not _BOOT.exists():
        return f"{psutil.Process(pid).create_time():.2f}"
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    # The second field, the name in brackets, may hold anything; the start is the 22nd.
    ticks = fields.rpartition(")")[2].split()[19]
    return f"{_BOOT.read_text(encoding='ascii').strip()}-{ticks}"
