"""Progress of long work, for Dagster's log and for a caller in this process."""

from __future__ import annotations

import time
from typing import Final

from dagster import DagsterLogManager

from harmonizer_assets.core.base.progress import Progress, ProgressFn, describe

_SECONDS_BETWEEN_LINES: Final = 2.0


def silent(progress: Progress) -> None:
    """Ignore progress: no caller in this process waits for the run."""


class LogProgress:
    """Writes progress to a log, at most one line in two seconds, and the last one always."""

    def __init__(self, log: DagsterLogManager, listener: ProgressFn = silent) -> None:
        """Write to `log`, and pass everything on to `listener`."""
        self._log = log
        self._listener = listener
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        """Log progress; a `ProgressFn`."""
        self._listener(progress)
        finished = progress.partitions_done == progress.partitions_total
        if finished or time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._log.info(describe(progress))
