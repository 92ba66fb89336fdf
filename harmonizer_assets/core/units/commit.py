"""The committer: hands units out and commits their results, alone, as they come in."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.records.reports import PartitionResult
from harmonizer_assets.core.score.stage import SimilarityScorer, chunk_rows
from harmonizer_assets.core.stages.run import StageRun
from harmonizer_assets.core.stages.stage import Chunk
from harmonizer_assets.core.units.compute import ROWS
from harmonizer_assets.core.units.cut import Cutter, CutUnit, by_merchants, unit_chunks
from harmonizer_assets.core.units.executors.base import Executor
from harmonizer_assets.core.units.store import DeadLetter, UnitStore
from harmonizer_assets.core.units.unit import Bundle

_log = logging.getLogger(__name__)

_LOOKED_AFTER: Final = 1.0
"""Seconds after which the run looks whether it is to stop, and for units that are overdue."""

_SILENCE: Final = 60.0
"""Seconds without a result after which a run that waits for a queue says so."""


@dataclass
class UnitCounts:
    """How many units a run has cut, found computed, handed out, and given up."""

    cut: int = 0
    found: int = 0
    submitted: int = 0
    dead: int = 0


@dataclass
class _Waiting:
    """Units that were handed out, and when each was last."""

    units: dict[str, CutUnit] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)


class Committer:
    """Has the stale partitions of a run computed in units, and commits each result once."""

    def __init__(
        self,
        run: StageRun,
        store: UnitStore,
        executor: Executor,
        *,
        labels_per_unit: int,
    ) -> None:
        """Set up; nothing is cut yet.

        Args:
            run: of the stage.
            store: holds the units.
            executor: has them worked on.
            labels_per_unit: a unit ends before the merchant that would make it larger.
        """
        self._run = run
        self._store = store
        self._executor = executor
        self._labels_per_unit = labels_per_unit
        self._waiting = _Waiting()
        self._ended_at = time.monotonic()
        self.counts = UnitCounts()

    def results(self, scorer: Callable[[], SimilarityScorer]) -> Iterator[PartitionResult]:
        """Cut, hand out and commit, until all partitions are computed or have failed."""
        stale = self._run.stale
        if not stale:
            return
        here = scorer()
        cutter = Cutter(self._store, here)
        chunks = unit_chunks(stale, self._run.labels, self._labels_per_unit)
        # The largest first, so that none is left for the end, when others have nothing to do.
        for chunk in sorted(chunks, key=lambda chunk: -sum(chunk.labels.values())):
            self._run.check_stop()
            yield from self._hand_out(cutter, here, chunk)
            full = len(self._waiting.units) >= self._executor.most_waiting
            yield from self._commit_ended(cutter, here, until_room=full)
        while self._waiting.units:
            yield from self._commit_ended(cutter, here, until_room=True)
        self._store.sweep()
        _log.info("%s", self._note())

    def _note(self) -> str:
        """Say how the units are doing, for the log of the run."""
        counts, waiting = self.counts, len(self._waiting.units)
        return (
            f"{counts.cut:,} units cut, {counts.found:,} of them computed before, "
            f"{counts.submitted:,} handed out, {waiting:,} waiting, {counts.dead:,} failed"
        )

    def _hand_out(
        self, cutter: Cutter, here: SimilarityScorer, chunk: Chunk
    ) -> Iterator[PartitionResult]:
        unit = cutter.cut(chunk)
        if unit is None:
            yield from self._run.compute(chunk, here.score)
            return
        self.counts.cut += 1
        letter = self._store.dead_letter(unit.name)
        if letter is not None:
            yield from self._give_up(cutter, here, unit, letter)
        elif self._store.has_result(unit.name):
            self.counts.found += 1
            yield from self._commit(here, unit)
        else:
            self._submit(unit)

    def _submit(self, unit: CutUnit) -> None:
        self.counts.submitted += 1
        self._waiting.units[unit.name] = unit
        self._waiting.since[unit.name] = time.monotonic()
        self._executor.submit(unit.name)

    def _commit_ended(
        self, cutter: Cutter, here: SimilarityScorer, *, until_room: bool
    ) -> Iterator[PartitionResult]:
        """Commit the units that have ended; wait for one of them if there must be room."""
        waiting = self._waiting.units
        while waiting:
            self._run.announce(self._note())
            ended = self._executor.finished(waiting, _LOOKED_AFTER if until_room else 0.0)
            for name in ended:
                self._ended_at = time.monotonic()
                yield from self._end(cutter, here, waiting.pop(name))
            if ended or not until_room:
                return
            self._run.check_stop()
            self._look_after_overdue()

    def _look_after_overdue(self) -> None:
        """Hand units out again whose messages may be lost, and say when nobody seems to work."""
        now, limit = time.monotonic(), self._executor.overdue_after
        if limit is None:
            return
        if now - self._ended_at > _SILENCE:
            self._ended_at = now
            said = "no unit has come back for %.0f s: does `harmonizer worker` run?"
            _log.warning(said, _SILENCE)
        for name, since in [*self._waiting.since.items()]:
            if name in self._waiting.units and now - since > limit:
                _log.warning("unit %s is overdue and handed out again", name[:12])
                self._waiting.since[name] = now
                self._executor.submit(name)

    def _end(
        self, cutter: Cutter, here: SimilarityScorer, unit: CutUnit
    ) -> Iterator[PartitionResult]:
        letter = self._store.dead_letter(unit.name)
        if letter is None:
            yield from self._commit(here, unit)
        else:
            yield from self._give_up(cutter, here, unit, letter)

    def _commit(self, here: SimilarityScorer, unit: CutUnit) -> Iterator[PartitionResult]:
        """Commit a result; its unit is not needed any more then.

        One that is damaged or gone is cut and handed out again.
        """
        try:
            rows = _rows(self._store.result(unit.name), unit)
        except StoreError as error:
            _log.warning("the result of unit %s is computed again: %s", unit.name[:12], error)
            self._store.forget_result(unit.name)
            # What units share may be gone as well.
            yield from self._hand_out(Cutter(self._store, here), here, unit.chunk)
            return
        yield from self._run.compute(
            unit.chunk, lambda chunk: chunk_rows(chunk, rows, unit.fingerprints)
        )
        self._store.remove(unit.name)

    def _give_up(
        self, cutter: Cutter, here: SimilarityScorer, unit: CutUnit, letter: DeadLetter
    ) -> Iterator[PartitionResult]:
        """Fail the partitions of a dead unit; one of several merchants is cut in two before."""
        self.counts.dead += 1
        halves = by_merchants(unit.chunk)
        if len(halves) == 1:
            yield from self._run.fail(unit.chunk, letter.error, letter.traceback)
            return
        self._store.mark_split(unit.name)
        for half in halves:
            yield from self._hand_out(cutter, here, half)


def _rows(content: bytes, unit: CutUnit) -> pa.Table:
    """Read the rows of a result.

    Raises:
        StoreError: it is damaged.
    """
    rows = Bundle.from_bytes(content).tables.get(ROWS)
    if rows is None or rows.num_rows != unit.labels:
        raise StoreError(f"{unit.labels} rows are expected and it does not hold them")
    return rows
