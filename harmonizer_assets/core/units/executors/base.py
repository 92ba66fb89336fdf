"""The interface of executors, and what those that only watch the store share."""

from __future__ import annotations

import contextlib
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from types import TracebackType
from typing import Final, Self

from harmonizer_assets.core.units.store import UnitStore

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.5


class Executor(ABC):
    """Has units worked on; results and dead letters come into the store.

    Attributes:
        most_waiting: how many units may be handed out at once.
        overdue_after: seconds after which a unit that has not ended is handed out again, in case
            its message is lost; None where none can be.
    """

    most_waiting: int
    overdue_after: float | None = None

    @abstractmethod
    def submit(self, unit: str) -> None:
        """Hand a unit out; it may have been before.

        Raises:
            StoreError: the store cannot be read or written.
            WorkersError: nobody can be given the unit.
        """

    @abstractmethod
    def finished(self, units: Collection[str], seconds: float) -> list[str]:
        """Wait for units to end.

        Args:
            units: that were handed out and are waited for.
            seconds: to wait at most.

        Returns:
            Those that have a result or a dead letter; empty when the time is up.

        Raises:
            StoreError: the store cannot be read.
            WorkersError: nobody works any more.
        """

    def close(self) -> None:  # noqa: B027  many have nothing to close
        """Stop whatever works for this run alone."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def watch(store: UnitStore, units: Collection[str], seconds: float) -> list[str]:
    """Look into the store until units have ended, with pauses that grow; see `finished`."""
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while not (ended := store.finished(units)) and time.monotonic() < deadline:
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(2 * pause, _LONGEST_PAUSE)
    return ended


class Endings:
    """Units that threads of an executor are done with, and the errors that end the run."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()

    def put(self, ended: str | Exception) -> None:
        """Say that a unit has ended, or that an error ends the run."""
        self._queue.put(ended)

    def wait(self, units: Collection[str], seconds: float) -> list[str]:
        """Wait for one, and return it with those that have ended as well; see `finished`."""
        ended: list[str] = []
        with contextlib.suppress(queue.Empty):
            while True:
                wait = max(seconds, 1e-3) if not ended else 1e-3
                one = self._queue.get(timeout=wait)
                if isinstance(one, Exception):
                    raise one
                ended.append(one)
        return [unit for unit in ended if unit in units]
