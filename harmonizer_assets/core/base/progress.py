"""Progress reports of long-running work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Progress of one stage; totals are 0 where they are unknown or do not apply.

    `note` says what the numbers do not: how the units of a stage are doing, say.
    """

    stage: str
    partitions_done: int
    partitions_total: int
    labels_done: int
    labels_total: int
    note: str = ""


ProgressFn = Callable[[Progress], None]


def waits_for(on_progress: ProgressFn | None, what: str) -> Callable[[], None] | None:
    """Make a callback that reports a wait for another run as progress."""
    if on_progress is None:
        return None
    return lambda: on_progress(Progress(what, 0, 0, 0, 0))


def describe(progress: Progress) -> str:
    """Describe in one line what a stage has done and what is left."""
    if progress.partitions_total:
        left = progress.partitions_total - progress.partitions_done
        return (
            f"{progress.stage}: {progress.partitions_done:,} of {progress.partitions_total:,} "
            f"partitions, {progress.labels_done:,} of {progress.labels_total:,} labels, "
            f"{left:,} partitions left"
        ) + (f"; {progress.note}" if progress.note else "")
    total = f" of {progress.labels_total:,}" if progress.labels_total else ""
    return f"{progress.stage}: {progress.labels_done:,}{total}"
