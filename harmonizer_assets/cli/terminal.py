"""Progress on the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from harmonizer_assets.cli.signals import interrupted, raise_lost_interrupt
from harmonizer_assets.core.base.progress import Progress, ProgressFn, describe

_SECONDS_BETWEEN_LINES: Final = 5.0


@contextmanager
def terminal_progress() -> Iterator[ProgressFn]:
    """Show progress on standard error: bars on a terminal, plain lines elsewhere.

    Yields:
        A callable that takes progress.
    """
    console = Console(stderr=True)
    shown = _BarProgress(console) if console.is_terminal else _LineProgress()
    try:
        yield shown
    finally:
        if isinstance(shown, _BarProgress):
            shown.stop()


class _BarProgress:
    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description:<20}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self._bars.start()
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, progress: Progress) -> None:
        if interrupted():
            raise_lost_interrupt()
            return
        if progress.stage not in self._tasks:
            self._tasks[progress.stage] = self._bars.add_task(progress.stage, total=None, detail="")
        total = progress.labels_total or progress.partitions_total
        done = progress.labels_done if progress.labels_total else progress.partitions_done
        self._bars.update(
            self._tasks[progress.stage],
            total=total or None,
            completed=done,
            detail=describe(progress).partition(": ")[2],
        )

    def stop(self) -> None:
        # Bars of what was not finished would stand there as if it went on.
        self._bars.live.transient = interrupted()
        self._bars.stop()


class _LineProgress:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if interrupted():
            raise_lost_interrupt()
            return
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            click.echo(describe(progress), err=True)
