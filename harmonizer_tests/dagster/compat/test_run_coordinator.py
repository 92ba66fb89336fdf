"""The queue of runs, by what Dagster's daemon makes of the runs in it."""

from __future__ import annotations

from dagster import DagsterRunStatus, QueuedRunCoordinator, SubmitRunContext
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import get_reexecution_strategy

from harmonizer_assets.dagster_compat.run_coordinator import RetryingRunCoordinator
from harmonizer_assets.dagster_compat.tags import RETRY_STRATEGY_TAG
from harmonizer_tests.support.bare_runs import bare_run


def queued(instance, **tags: str):
    run = bare_run(instance, DagsterRunStatus.NOT_STARTED, tags)
    instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))
    return instance.get_run_by_id(run.run_id)


def test_a_submitted_run_is_queued_and_the_daemon_retries_it_as_a_whole(instance):
    assert isinstance(instance.run_coordinator, RetryingRunCoordinator)
    assert issubclass(RetryingRunCoordinator, QueuedRunCoordinator)
    run = queued(instance)
    assert run.status == DagsterRunStatus.QUEUED
    assert get_reexecution_strategy(run, instance) is ReexecutionStrategy.ALL_STEPS


def test_a_run_that_says_how_it_is_retried_is_left_so(instance):
    run = queued(instance, **{RETRY_STRATEGY_TAG: "FROM_FAILURE"})
    assert get_reexecution_strategy(run, instance) is ReexecutionStrategy.FROM_FAILURE
