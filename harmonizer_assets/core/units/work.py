"""What a worker does with a unit: an attempt at it, and the record of how it went."""

from __future__ import annotations

import faulthandler
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

from harmonizer_assets.core.units.compute import Compute
from harmonizer_assets.core.units.store import Failure, UnitStore

_log = logging.getLogger(__name__)

_STDERR: Final = 2
"""Its descriptor: workers of a queue put something else in the place of `sys.stderr`."""


class Outcome(StrEnum):
    """How an attempt at a unit ended."""

    DONE = "done"
    """Its result is in the store."""
    AGAIN = "again"
    """It failed, and may be tried again."""
    DEAD = "dead"
    """It has failed as often as it may; its dead letter is in the store."""


class Work:
    """Attempts at the units of one store. It keeps models and corpora that units share."""

    def __init__(self, store: UnitStore, attempts: int, seconds: float | None) -> None:
        """Set up a worker.

        Args:
            store: holds the units.
            attempts: how often a unit may be tried.
            seconds: the longest that an attempt may take: this process ends itself after that, and
                says on stderr where it was. None sets no limit.
        """
        self._store = store
        self._attempts = attempts
        self._seconds = seconds
        self._compute = Compute(store.shared)

    def attempt(self, unit: str) -> Outcome:
        """Try to compute a unit, unless that has been done or given up already.

        Raises:
            StoreError: the store cannot be read or written.
        """
        if self._store.has_result(unit):
            return Outcome.DONE
        if self._store.dead_letter(unit) is not None:
            return Outcome.DEAD
        if not self._store.has_bundle(unit):
            # The message came again after the result was committed.
            return Outcome.DONE
        number = self._store.begin(unit, self._attempts)
        if number is None:
            self._store.bury(unit)
            return Outcome.DEAD
        return self._try(unit, number)

    def _try(self, unit: str, number: int) -> Outcome:
        try:
            with _limited(self._seconds):
                result = self._compute.result(unit, self._store.bundle(unit))
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            failure = Failure.of(type(error).__name__, str(error), trace)
            self._store.note(unit, number, failure)
            said = failure.error
            _log.warning("unit %s, attempt %d of %d: %s", unit[:12], number, self._attempts, said)
            if number < self._attempts:
                return Outcome.AGAIN
            self._store.bury(unit)
            return Outcome.DEAD
        self._store.put_result(unit, result)
        return Outcome.DONE


@contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """End this process if the block takes too long, also where it never returns to Python."""
    if seconds is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
