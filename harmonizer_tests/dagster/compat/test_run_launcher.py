"""The health of run workers, as Dagster's own run monitoring acts on it."""

from __future__ import annotations

import logging

import pytest
from dagster import DagsterEventType, DagsterRunStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from harmonizer_assets.dagster_compat.run_health import process_tags
from harmonizer_assets.dagster_compat.run_launcher import WatchedRunLauncher
from harmonizer_tests.support.bare_runs import GONE, bare_run


@pytest.fixture
def monitor(instance):
    """Looks once at all runs, as the daemon does."""

    def look() -> None:
        with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context:
            errors = [*execute_run_monitoring_iteration(context, logging.getLogger("monitor"))]
        assert not any(errors)

    return look


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        (GONE, DagsterRunStatus.FAILURE),
        ({**GONE, "harmonizer/host": "another"}, DagsterRunStatus.STARTED),
        (process_tags(), DagsterRunStatus.STARTED),
        ({}, DagsterRunStatus.STARTED),
    ],
    ids=["gone", "gone or not, elsewhere", "alive", "not tagged yet"],
)
def test_monitoring_fails_runs_whose_process_is_gone_and_no_others(instance, monitor, tags, status):
    assert instance.run_monitoring_enabled
    assert isinstance(instance.run_launcher, WatchedRunLauncher)
    run = bare_run(instance, DagsterRunStatus.STARTED, tags)
    monitor()
    assert instance.get_run_by_id(run.run_id).status == status


def test_the_log_of_a_killed_run_says_why_it_failed_and_the_daemon_is_to_retry_it(
    instance, monitor
):
    run = bare_run(instance, DagsterRunStatus.STARTED, GONE)
    monitor()
    [failure] = instance.all_logs(run.run_id, of_type=DagsterEventType.RUN_FAILURE)
    assert "The process that executed this run was killed." in failure.message
    assert instance.get_run_by_id(run.run_id).is_complete_and_waiting_to_retry


def test_monitoring_does_not_ask_for_the_health_of_runs_that_have_not_started_or_are_canceled(
    instance, monitor
):
    """Why the sensor `abandoned_runs` is needed: should this fail, it may have become needless."""
    launched = bare_run(instance, DagsterRunStatus.NOT_STARTED, GONE)
    canceled = bare_run(instance, DagsterRunStatus.STARTED, GONE)
    instance.report_run_canceling(canceled)
    monitor()
    statuses = [instance.get_run_by_id(run.run_id).status for run in (launched, canceled)]
    assert statuses == [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.CANCELING]
