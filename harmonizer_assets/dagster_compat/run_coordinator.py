"""The queue of runs, with retries from the first step."""

from __future__ import annotations

from dagster import DagsterRun, QueuedRunCoordinator, SubmitRunContext

from harmonizer_assets.dagster_compat.tags import RETRY_ALL_STEPS, RETRY_STRATEGY_TAG


class RetryingRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, for runs that are retried as a whole.

    The daemon retries a run from the step that failed, and gives up where there is none: a process
    that was killed before its first step. A retry of all steps costs little here, since each
    computes only what is not up to date.
    """

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Tag a run and queue it."""
        run = context.dagster_run
        if RETRY_STRATEGY_TAG not in run.tags:
            tags = {RETRY_STRATEGY_TAG: RETRY_ALL_STEPS}
            self._instance.add_run_tags(run.run_id, tags)
            context = context._replace(dagster_run=run.with_tags({**run.tags, **tags}))
        return super().submit_run(context)
