"""The launcher of runs, with the health of their processes."""

from __future__ import annotations

from dagster import DagsterRun, DefaultRunLauncher
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus

from harmonizer_assets.dagster_compat.run_health import KILLED, launch_tags, worker_is_gone


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher, with a health check of the processes of runs.

    The stock launcher does not know which process executes a run; our runs have it in their tags,
    whether they were launched or are executed by the command line. The daemon's monitoring
    works also where the sensor `abandoned_runs` does not: while the code server is down, or after
    somebody has switched the sensor off. What monitoring leaves to the sensor: see `run_health`.
    """

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launch a run, and note on which host: its log has the id of the process alone."""
        self._instance.add_run_tags(context.dagster_run.run_id, launch_tags())
        super().launch_run(context)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Enable health checks by run monitoring."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Check whether the process that executes a started run is alive.

        Run monitoring marks the run as failed for any status but RUNNING and SUCCESS.
        """
        record = self._instance.get_run_record_by_id(run.run_id)
        if record is not None and worker_is_gone(self._instance, record):
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, KILLED)
        return CheckRunHealthResult(WorkerStatus.RUNNING)
