"""Sensors: what happens without anybody asking for it."""

from collections.abc import Iterator

from dagster import DefaultSensorStatus, RunRequest, SkipReason, sensor

from harmonizer_assets.jobs import collect_job
from harmonizer_assets.resources import HarmonizerResource


@sensor(
    job=collect_job,
    minimum_interval_seconds=60,
    default_status=DefaultSensorStatus.RUNNING,
    description="Watches the batches at the Batch API; has those that have ended collected.",
)
def watch_batches(harmonizer: HarmonizerResource) -> Iterator[RunRequest | SkipReason]:
    """Ask how open batches stand; request one run for each set that has ended.

    Asks nobody while no batch is open.
    """
    opened = harmonizer.open()
    if not opened.has_open_batches():
        yield SkipReason("no batch is open")
        return
    ended = sorted(str(state.batch_id) for state in opened.batch_api().refresh())
    if not ended:
        yield SkipReason("the batches are still under way")
        return
    yield RunRequest(run_key=" ".join(ended), tags={"harmonizer/batches": ", ".join(ended)})
