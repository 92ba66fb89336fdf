"""Sensors: request runs and report failures by themselves."""

import os
from collections.abc import Iterator
from typing import Final

import httpx
from dagster import (
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunFailureSensorContext,
    RunRequest,
    RunsFilter,
    SensorEvaluationContext,
    SkipReason,
    run_failure_sensor,
    sensor,
)

from harmonizer_assets.core.base.clients import keep_clients_quiet
from harmonizer_assets.core.base.secrets import redacted
from harmonizer_assets.dagster_compat.run_health import fail_abandoned_runs, retry_again
from harmonizer_assets.dagster_compat.tags import AUTO_RETRY_RUN_ID_TAG, MAX_RETRIES_TAG
from harmonizer_assets.defs.jobs import (
    arrivals_job,
    collect_job,
    corrections_job,
    retry_job,
)
from harmonizer_assets.defs.resources import HomeResource

ARRIVAL_TAG = "harmonizer/arrival"
WEBHOOK_VARIABLE = "HARMONIZER_ALERT_WEBHOOK"
_ATTEMPTS = 3
_WEBHOOK_SECONDS = 10.0
_UNFINISHED = (
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
)


@sensor(
    job=arrivals_job,
    # The daemon looks every five seconds, and passes over a sensor that is a moment too early.
    minimum_interval_seconds=4,
    default_status=DefaultSensorStatus.RUNNING,
    description="Watches the inbox, and the bucket and tables that the settings name; has what "
    "arrives ingested and the partitions that it touches brought up to date, in one run.",
)
def new_labels_sensor(
    context: SensorEvaluationContext, home: HomeResource
) -> Iterator[RunRequest | SkipReason]:
    """Request one run for all that has arrived, one run at a time.

    There is no cursor that could run ahead of the work: the inbox itself is the queue, and buckets
    and tables count as taken once they have been copied into it. A batch
    leaves it in the moment that its rows are in the tables, and a run that fails after that is
    requested again until it has brought the touched partitions up to date, three times at most.
    """
    # A run that is not even queued is what a killed daemon has left: asked for again by the same
    # key, Dagster queues it.
    last = [
        run
        for run in _last_runs(context, arrivals_job.name)
        if run.status != DagsterRunStatus.NOT_STARTED
    ]
    if last and last[0].status in _UNFINISHED:
        yield SkipReason(f"run {last[0].run_id} is under way; what arrives meanwhile waits")
        return
    failures = 0
    for run in last:
        if run.status != DagsterRunStatus.FAILURE:
            break
        failures += 1
    waiting, errors = home.open().arrivals.waiting()
    for error in errors:
        context.log.error(str(error))
    if waiting is None and not failures:
        yield SkipReason("nothing has arrived")
        return
    same = bool(last) and waiting in (None, last[0].tags.get(ARRIVAL_TAG))
    if failures >= _ATTEMPTS and same:
        yield SkipReason(
            f"the last {failures} runs failed: see run {last[0].run_id}; the next arrival, or a "
            f"run of {arrivals_job.name} by hand, tries again"
        )
        return
    arrival = waiting or last[0].tags.get(ARRIVAL_TAG, "retry")
    # The same files may come again, as a correction of what came between: that is a run of its own.
    before = last[0] if failures else _last_success(context, arrivals_job.name)
    after = f"after-{before.run_id}" if before else "first"
    # This sensor requests it again itself; the daemon's own retries would be added.
    tags = {ARRIVAL_TAG: arrival, MAX_RETRIES_TAG: "0"}
    yield RunRequest(run_key=f"{arrival}-{after}", tags=tags)


@sensor(
    minimum_interval_seconds=20,
    default_status=DefaultSensorStatus.RUNNING,
    description="Marks runs as failed whose process was killed, and sees to it that the daemon "
    "retries them.",
)
def abandoned_runs(context: SensorEvaluationContext) -> SkipReason:
    """Cover what Dagster's run monitoring does not, see `run_health`."""
    failed = fail_abandoned_runs(context.instance)
    for run_id in failed:
        context.log.warning(f"run {run_id}: its process is gone")
    retried = retry_again(context.instance)
    for run_id in retried:
        context.log.warning(f"run {run_id}: its retry could not be started and is asked for again")
    return SkipReason(f"{len(failed)} runs had been abandoned, {len(retried)} retries were missed")


@sensor(
    job=retry_job,
    minimum_interval_seconds=3600,
    default_status=DefaultSensorStatus.STOPPED,
    description="Asks dead letters again, once an hour; off by default, since it costs money.",
)
def dead_letter_sensor(
    context: SensorEvaluationContext, home: HomeResource
) -> Iterator[RunRequest | SkipReason]:
    """Request a retry when there are dead letters that have not just been retried."""
    pipeline = home.open()
    dead = pipeline.tables.dead_letters()
    if not dead:
        yield SkipReason("there are no dead letters")
        return
    run = _under_way(context, retry_job.name)
    if run is not None:
        yield SkipReason(f"run {run.run_id} is asking them again")
        return
    last = _last_runs(context, retry_job.name)
    after = last[0].run_id if last else "first"
    yield RunRequest(run_key=f"{dead}-after-{after}", tags={"harmonizer/dead_letters": str(dead)})


@run_failure_sensor(
    minimum_interval_seconds=30,
    default_status=DefaultSensorStatus.RUNNING,
    description="Says in the daemon's log that a run failed, and posts it to the address in "
    f"{WEBHOOK_VARIABLE} where one is set and the run does not go on by itself.",
)
def run_failure_alert(context: RunFailureSensorContext) -> None:
    """Report a failed run."""
    run = context.dagster_run
    message = redacted(f"{run.job_name} failed (run {run.run_id}): {context.failure_event.message}")
    if run.is_complete_and_waiting_to_retry or AUTO_RETRY_RUN_ID_TAG in run.tags:
        context.log.warning(f"{message} It goes on by itself.")
        return
    context.log.error(message)
    address = os.environ.get(WEBHOOK_VARIABLE)
    if not address:
        return
    keep_clients_quiet()
    content = {"text": message, "job": run.job_name, "run_id": run.run_id}
    try:
        answer = httpx.post(address, json=content, timeout=_WEBHOOK_SECONDS).raise_for_status()
    except Exception as error:
        # Whatever it is, the alert fails nothing. The address may hold a token.
        context.log.error(f"{WEBHOOK_VARIABLE}: the alert was not taken ({type(error).__name__})")
        return
    if answer.text.lstrip().startswith("<"):
        context.log.error(
            f"{WEBHOOK_VARIABLE}: a page has answered, and the alert was hardly taken: does the "
            "network want a login?"
        )


def _last_runs(context: SensorEvaluationContext, job_name: str) -> list[DagsterRun]:
    """Return the last runs of a job, newest first."""
    return list(context.instance.get_runs(RunsFilter(job_name=job_name), limit=_ATTEMPTS + 1))


def _under_way(context: SensorEvaluationContext, job_name: str) -> DagsterRun | None:
    """Return the last run of a job if it has not ended."""
    last = _last_runs(context, job_name)
    return last[0] if last and last[0].status in _UNFINISHED else None


def _last_success(context: SensorEvaluationContext, job_name: str) -> DagsterRun | None:
    """Return the last run of a job that has succeeded."""
    succeeded = RunsFilter(job_name=job_name, statuses=[DagsterRunStatus.SUCCESS])
    return next(iter(context.instance.get_runs(succeeded, limit=1)), None)


@sensor(
    job=collect_job,
    minimum_interval_seconds=60,
    default_status=DefaultSensorStatus.RUNNING,
    description="Watches the batches at the Batch API; has those that have ended collected.",
)
def batch_api_sensor(home: HomeResource) -> Iterator[RunRequest | SkipReason]:
    """Update the status of open batch jobs; request one run for each set that has ended.

    Sends no request while no batch job is open.
    """
    pipeline = home.open()
    if not pipeline.tables.has_open_batch_jobs():
        yield SkipReason("no batch is open")
        return
    ended = sorted(str(state.batch_id) for state in pipeline.judge.batch_jobs().refresh())
    if not ended:
        yield SkipReason("the batches are still under way")
        return
    yield RunRequest(run_key=" ".join(ended), tags={"harmonizer/batches": ", ".join(ended)})


@sensor(
    jobs=[corrections_job, arrivals_job],
    minimum_interval_seconds=20,
    default_status=DefaultSensorStatus.STOPPED,
    description="Applies what reviewers, or open rules of the review policy, have decided, and has "
    "the partitions that it touches brought up to date; off by default, since it changes labels.",
)
def reviews_sensor(
    context: SensorEvaluationContext, home: HomeResource
) -> Iterator[RunRequest | SkipReason]:
    """Request a run that corrects labels, then one that computes what it has touched.

    An undo on the command line is followed by such a run as well.
    """
    for job in (corrections_job.name, arrivals_job.name):
        run = _under_way(context, job)
        if run is not None:
            yield SkipReason(f"run {run.run_id} is under way")
            return
    pipeline = home.open()
    wanted = pipeline.apply("reviews_sensor")
    operation = pipeline.tables.last_operation()
    if wanted.corrections:
        after = operation or "the first time"
        yield RunRequest(
            run_key=f"{len(wanted.corrections)} corrections after {after}",
            job_name=corrections_job.name,
        )
    elif operation is not None:
        yield RunRequest(run_key=f"after {operation}", job_name=arrivals_job.name)
    else:
        yield SkipReason("no label is to be corrected")


SENSORS: Final = [
    new_labels_sensor,
    abandoned_runs,
    dead_letter_sensor,
    batch_api_sensor,
    reviews_sensor,
    run_failure_alert,
]
