"""The committer: hands units out and commits their results, alone, those that have come together.

A transaction takes its time whether it is about one unit or about fifty, so results wait for each
other in the store, where a run that is killed leaves them to the next one.
"""

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
from harmonizer_assets.core.stages.run import LABELS_PER_CHUNK, StageRun
from harmonizer_assets.core.stages.stage import Chunk
from harmonizer_assets.core.store.objects import MissingObjectError
from harmonizer_assets.core.units.compute import ROWS
from harmonizer_assets.core.units.cut import (
    Cutter,
    CutUnit,
    batches,
    by_merchants,
    joined,
    unit_chunks,
)
from harmonizer_assets.core.units.executors.base import Executor
from harmonizer_assets.core.units.store import DeadLetter, UnitStore
from harmonizer_assets.core.units.unit import Bundle

_log = logging.getLogger(__name__)

_LOOKED_AFTER: Final = 1.0
"""Seconds after which the run looks whether it is to stop, and for units that are overdue."""

_SILENCE: Final = 60.0
"""Seconds without a result after which a run that waits for a queue says so."""

COMMITTING_SHARE: Final = 0.05
"""The share of its time that a run commits in, unless it has so many results that it must."""

_LONGEST_WAIT: Final = 10.0
"""Seconds that a result waits for others, at most."""


@dataclass
class UnitCounts:
    """How many units a run has cut, found computed, handed out, and given up.

    Attributes:
        again: attempts beyond the first of each unit that has ended.
    """

    cut: int = 0
    found: int = 0
    submitted: int = 0
    again: int = 0
    dead: int = 0


@dataclass
class _Waiting:
    """Units that were handed out, and when each was last."""

    units: dict[str, CutUnit] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)


@dataclass
class _Group:
    """Results that are in the store and not in the tables yet, and when they are to be."""

    results: list[tuple[CutUnit, pa.Table]] = field(default_factory=list)
    labels: int = 0
    due_at: float = 0.0

    def add(self, unit: CutUnit, rows: pa.Table) -> None:
        self.results.append((unit, rows))
        self.labels += rows.num_rows

    def is_due(self) -> bool:
        """Say whether there is enough, or the last commit is long enough ago."""
        is_large = self.labels >= LABELS_PER_CHUNK
        return bool(self.results) and (is_large or time.monotonic() >= self.due_at)

    def take(self) -> list[tuple[CutUnit, pa.Table]]:
        """Return what there is, and begin anew."""
        taken, self.results, self.labels = self.results, [], 0
        return taken

    def committed_since(self, began: float) -> None:
        """Have the next commit wait in proportion to how long this one has taken."""
        now = time.monotonic()
        self.due_at = now + min((now - began) / COMMITTING_SHARE, _LONGEST_WAIT)


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
        self._group = _Group()
        self._results_left: set[str] = set()
        self._dead_left: set[str] = set()
        self._ended_at = time.monotonic()
        self.counts = UnitCounts()

    def results(self, scorer: Callable[[], SimilarityScorer]) -> Iterator[PartitionResult]:
        """Cut, hand out and commit, until all partitions are computed or have failed."""
        stale = self._run.stale
        if not stale:
            return
        here = scorer()
        cutter = Cutter(self._store, here)
        self._results_left, self._dead_left = self._store.ended()
        chunks = unit_chunks(stale, self._run.labels, self._labels_per_unit)
        # The largest first, so that none is left for the end, when others have nothing to do.
        ordered = sorted(chunks, key=lambda chunk: -sum(chunk.labels.values()))
        for chunk, unit in cutter.cut(batches(ordered, LABELS_PER_CHUNK)):
            self._run.check_stop()
            yield from self._hand_out(cutter, here, chunk, unit)
            full = len(self._waiting.units) >= self._executor.most_waiting
            yield from self._collect(cutter, here, until_room=full)
            yield from self._commit_due()
        while self._waiting.units:
            yield from self._collect(cutter, here, until_room=True)
        yield from self._commit()
        self._store.sweep()
        _log.info("%s", self._note())

    def _note(self) -> str:
        """Say how the units are doing, for the log of the run."""
        counts, waiting = self.counts, len(self._waiting.units)
        return (
            f"{counts.cut:,} units cut, {counts.found:,} of them computed before, "
            f"{counts.submitted:,} handed out, {counts.again:,} tried again, {waiting:,} waiting, "
            f"{counts.dead:,} failed"
        )

    def _hand_out(
        self, cutter: Cutter, here: SimilarityScorer, chunk: Chunk, unit: CutUnit | None
    ) -> Iterator[PartitionResult]:
        if unit is None:
            yield from self._run.compute(chunk, here.score)
            return
        self.counts.cut += 1
        if unit.name in self._results_left or unit.name in self._dead_left:
            self.counts.found += unit.name in self._results_left
            yield from self._end(cutter, here, unit)
        else:
            self._submit(unit)

    def _submit(self, unit: CutUnit) -> None:
        self.counts.submitted += 1
        self._waiting.units[unit.name] = unit
        self._waiting.since[unit.name] = time.monotonic()
        self._executor.submit(unit.name)

    def _collect(
        self, cutter: Cutter, here: SimilarityScorer, *, until_room: bool
    ) -> Iterator[PartitionResult]:
        """Take up the units that have ended; wait for one of them if there must be room."""
        waiting = self._waiting.units
        while waiting:
            self._run.announce(self._note())
            ended = self._executor.finished(waiting, _LOOKED_AFTER if until_room else 0.0)
            if ended:
                self._ended_at = time.monotonic()
            for unit in [waiting.pop(name) for name in ended]:
                yield from self._end(cutter, here, unit)
            yield from self._commit_due()
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
        """Take up the result of a unit, or its dead letter.

        A result that is damaged or gone is computed again.
        """
        damage: StoreError
        letter = None
        try:
            self._group.add(unit, _rows(self._store.result(unit.name), unit))
            return
        except MissingObjectError as error:
            damage, letter = error, self._store.dead_letter(unit.name)
        except StoreError as error:
            damage = error
        if letter is not None:
            yield from self._give_up(cutter, here, unit, letter)
            return
        _log.warning("the result of unit %s is computed again: %s", unit.name[:12], damage)
        self._store.forget_result(unit.name)
        self._results_left.discard(unit.name)
        self._dead_left.discard(unit.name)
        # What units share may be gone as well.
        cutter = Cutter(self._store, here)
        for chunk, again in cutter.cut([[unit.chunk]]):
            yield from self._hand_out(cutter, here, chunk, again)

    def _commit_due(self) -> Iterator[PartitionResult]:
        if self._group.is_due():
            yield from self._commit()

    def _commit(self) -> Iterator[PartitionResult]:
        """Commit the results that there are in one transaction; their units are not needed then."""
        results = self._group.take()
        if not results:
            return
        rows = pa.concat_tables([table for _, table in results], promote_options="permissive")
        prints = {m: print_ for unit, _ in results for m, print_ in unit.fingerprints.items()}
        together = joined([unit.chunk for unit, _ in results])
        began = time.monotonic()
        computed = self._run.compute(together, lambda chunk: chunk_rows(chunk, rows, prints))
        first = next(computed)
        # Before anyone sees the first of them, all are in the tables.
        self._group.committed_since(began)
        yield first
        yield from computed
        attempts = self._store.remove([unit.name for unit, _ in results])
        self.counts.again += max(0, attempts - len(results))

    def _give_up(
        self, cutter: Cutter, here: SimilarityScorer, unit: CutUnit, letter: DeadLetter
    ) -> Iterator[PartitionResult]:
        """Fail the partitions of a dead unit; one of several merchants is cut in two before."""
        self.counts.dead += 1
        self.counts.again += max(0, letter.attempts - 1)
        halves = by_merchants(unit.chunk)
        if len(halves) == 1:
            yield from self._run.fail(unit.chunk, letter.error, letter.traceback)
            return
        self._store.mark_split(unit.name)
        for half, unit_of_half in cutter.cut([halves]):
            yield from self._hand_out(cutter, here, half, unit_of_half)


def _rows(content: bytes, unit: CutUnit) -> pa.Table:
    """Read the rows of a result.

    Raises:
        StoreError: it is damaged.
    """
    rows = Bundle.from_bytes(content).tables.get(ROWS)
    if rows is None or rows.num_rows != unit.labels:
        raise StoreError(f"{unit.labels} rows are expected and it does not hold them")
    return rows
