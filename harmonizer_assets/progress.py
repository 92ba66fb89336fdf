"""Progress of long work in Dagster's log and, for the command line, on the terminal."""

from __future__ import annotations

import time
from logging import Logger
from typing import Final

from dagster import DagsterLogManager

from harmonizer_assets.core.progress import Progress, ProgressFn

_SECONDS_BETWEEN_LINES: Final = 2.0

_listeners: list[ProgressFn] = []


def listen(listener: ProgressFn) -> None:
    """Have every progress of runs in this process passed to `listener` too."""
    _listeners.append(listener)


def stop_listening(listener: ProgressFn) -> None:
    """Undo `listen`."""
    _listeners.remove(listener)


class LogProgress:
    """Writes progress to a log, at most one line in two seconds, and the last one always."""

    def __init__(self, log: DagsterLogManager | Logger) -> None:
        self._log = log
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        """Take note of progress; a `ProgressFn`."""
        for listener in _listeners:
            listener(progress)
        finished = progress.partitions_done == progress.partitions_total
        if finished or time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._log.info(describe(progress))


def describe(progress: Progress) -> str:
    """Say in one line how far a stage is and what is left."""
    if progress.partitions_total:
        left = progress.partitions_total - progress.partitions_done
        return (
            f"{progress.stage}: {progress.partitions_done:,} of {progress.partitions_total:,} "
            f"partitions, {progress.labels_done:,} of {progress.labels_total:,} labels, "
            f"{left:,} partitions left"
        )
    total = f" of {progress.labels_total:,}" if progress.labels_total else ""
    return f"{progress.stage}: {progress.labels_done:,}{total}"
