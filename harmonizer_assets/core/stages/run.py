"""The executor of stages: partitions in chunks of merchants, unchanged ones left alone."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from typing import Any, Final

import duckdb

from harmonizer_assets.core.base.errors import HarmonizerError
from harmonizer_assets.core.base.interrupts import raise_interrupt_in
from harmonizer_assets.core.base.progress import Progress
from harmonizer_assets.core.base.secrets import redacted
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import PartitionResult
from harmonizer_assets.core.stages.stage import (
    Chunk,
    ChunkRows,
    ComputeChunks,
    Stage,
)
from harmonizer_assets.core.stages.state import (
    LabelState,
    failures,
    store_failure,
    store_fingerprints,
    stored_fingerprints,
)
from harmonizer_assets.core.store.warehouse import Warehouse

LABELS_PER_CHUNK: Final = 20_000
LABELS_PER_LARGE_CHUNK: Final = 100_000
"""For stages that do little but join tables: each step reads the tables once."""
GIVE_UP_AFTER: Final = 50
"""When this many partitions fail and none succeeds, the cause is not in the partitions."""

_WORST: Final = 3
_MAX_ERROR: Final = 500
_MAX_TRACEBACK: Final = 8_000
_UNCHANGED_PER_READ: Final = 10
"""Chunks of unchanged partitions reported from one read: nothing is computed for them."""


class _NothingSucceedsError(HarmonizerError):
    """The cause of failures is not in the partitions."""


class StageRun:
    """One run of a stage over partitions: finds those that are up to date, commits the others."""

    def __init__(
        self,
        warehouse: Warehouse,
        stage: Stage,
        partitions: Iterable[PartitionKey],
        options: RunOptions,
        *,
        labels: LabelState | None = None,
        labels_per_chunk: int = LABELS_PER_CHUNK,
    ) -> None:
        """Compare the partitions' inputs with those that their rows were computed from.

        Args:
            warehouse: holds the tables.
            stage: which step.
            partitions: in any order.
            options: of the run.
            labels: the labels' state, where it has been read already.
            labels_per_chunk: a chunk ends with the merchant that makes it this large.
        """
        self._warehouse = warehouse
        self._stage = stage
        self._options = options
        self._labels_per_chunk = labels_per_chunk
        state, self._stored, failed = warehouse.read(
            lambda con: (
                labels or LabelState.read(con),
                stored_fingerprints(con, stage.asset),
                failures(con, stage.upstream),
            )
        )
        self._labels = state.counts
        self._failed = 0
        self._succeeded = 0
        self._stale: list[PartitionKey] = []
        self._current: list[PartitionKey] = []
        self._blocked: dict[PartitionKey, str] = {}
        wanted = sorted(set(partitions), key=lambda partition: (partition.merchant_key, partition))
        for partition in wanted:
            if partition in failed and self._labels.get(partition):
                self._blocked[partition] = "{} failed: {}".format(*failed[partition])
                continue
            expected = stage.fingerprint(state.merchants.get(partition.merchant_key, ""))
            is_current = self._stored.get(partition) == expected and not options.refresh
            (self._current if is_current else self._stale).append(partition)
        self._partitions = len(wanted)
        self._labels_total = sum(self._labels.get(partition, 0) for partition in wanted)
        self._done = self._labels_done = 0
        self._note = ""
        self._last_commit = time.monotonic()

    @property
    def stale(self) -> list[PartitionKey]:
        """The partitions that have to be computed, by merchant."""
        return self._stale

    @property
    def labels(self) -> Mapping[PartitionKey, int]:
        """Labels of each partition of the home that holds any."""
        return self._labels

    def check_stop(self) -> None:
        """End the run if its caller has stopped it; see `RunOptions.check_stop`."""
        self._options.check_stop()

    def chunks(self) -> Iterator[Chunk]:
        """Group the partitions that have to be computed into chunks of whole merchants."""
        self._last_commit = time.monotonic()
        for chunk in _chunks(self._stale, self._labels, self._labels_per_chunk):
            self._options.check_stop()
            yield chunk

    def unchanged(self) -> Iterator[PartitionResult]:
        """Report the partitions that are up to date."""
        for chunk in _chunks(
            self._current, self._labels, _UNCHANGED_PER_READ * self._labels_per_chunk
        ):
            prints = {partition: self._stored[partition] for partition in chunk.partitions}
            read = partial(_results, stage=self._stage, chunk=chunk, fingerprints=prints)
            yield from self._advance(self._warehouse.read(read))

    def blocked(self) -> Iterator[PartitionResult]:
        """Report the partitions that cannot be computed because a stage upstream has failed."""
        if self._blocked:
            held = {partition: self._labels[partition] for partition in self._blocked}
            yield from self._advance(
                [
                    PartitionResult(partition, held[partition], False, "", {}, error=error)
                    for partition, error in self._blocked.items()
                ]
            )

    def compute(
        self, chunk: Chunk, compute: Callable[[Chunk], ChunkRows]
    ) -> Iterator[PartitionResult]:
        """Compute and commit a chunk; a partition that fails does not affect the others.

        The chunk is halved until the failing partition is alone; the rows of all others are kept.

        Raises:
            HarmonizerError: the store, the settings or the judge are at fault, or `GIVE_UP_AFTER`
                partitions have failed and none has succeeded.
        """
        try:
            rows = compute(chunk)
            results = self._committed(chunk, rows)
        except HarmonizerError:
            raise
        except Exception as error:
            raise_interrupt_in(error)
            if len(chunk.partitions) == 1:
                yield from self._advance(self._fail(chunk, error))
            else:
                for half in chunk.halves():
                    yield from self.compute(half, compute)
            return
        yield from self._advance(results)

    def _fail(self, chunk: Chunk, error: Exception) -> list[PartitionResult]:
        said = redacted(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
        said = said[:_MAX_ERROR]
        trace = redacted("".join(traceback.format_exception(error)))[-_MAX_TRACEBACK:]
        try:
            return self._failures(chunk, said, trace)
        except _NothingSucceedsError as nothing:
            raise HarmonizerError(str(nothing)) from error

    def fail(self, chunk: Chunk, error: str, trace: str) -> Iterator[PartitionResult]:
        """Record that the partitions of a chunk cannot be computed.

        Args:
            chunk: the partitions.
            error: in one line.
            trace: the traceback; may be empty.

        Raises:
            HarmonizerError: `GIVE_UP_AFTER` partitions have failed and none has succeeded.
        """
        yield from self._advance(self._failures(chunk, error, trace))

    def _failures(self, chunk: Chunk, error: str, trace: str) -> list[PartitionResult]:
        self._warehouse.write(
            lambda con: store_failure(con, self._stage, chunk, error, trace, self._options.run_id)
        )
        self._failed += len(chunk.partitions)
        if self._failed >= GIVE_UP_AFTER and not self._succeeded:
            raise _NothingSucceedsError(
                f"{self._stage.asset}: the first {self._failed} partitions all failed, the last "
                f"one with {error}"
            )
        return [
            PartitionResult(partition, labels, False, "", {}, error=error)
            for partition, labels in chunk.labels.items()
        ]

    def commit(self, chunk: Chunk, rows: ChunkRows) -> Iterator[PartitionResult]:
        """Write a chunk's rows in one transaction together with its fingerprints."""
        yield from self._advance(self._committed(chunk, rows))

    def _committed(self, chunk: Chunk, rows: ChunkRows) -> list[PartitionResult]:
        stage = self._stage
        prints = {
            partition: stage.fingerprint(rows.fingerprints.get(partition.merchant_key, ""))
            for partition in chunk.partitions
        }

        def write(con: duckdb.DuckDBPyConnection) -> list[PartitionResult]:
            rows.write(con)
            store_fingerprints(con, stage, chunk, prints, rows.incomplete, self._options.run_id)
            seconds = (time.monotonic() - self._last_commit) / len(chunk.partitions)
            return _results(con, stage, chunk, prints, run_id=self._options.run_id, seconds=seconds)

        results = self._warehouse.write(write)
        self._last_commit = time.monotonic()
        self._succeeded += len(results)
        return results

    def _advance(self, results: list[PartitionResult]) -> Iterator[PartitionResult]:
        for result in results:
            self._done += 1
            self._labels_done += result.labels
            yield result
        self.announce(self._note)

    def announce(self, note: str) -> None:
        """Report the progress so far, with a note that stays until another one replaces it."""
        self._note = note
        if self._options.on_progress:
            self._options.on_progress(
                Progress(
                    self._stage.asset,
                    self._done,
                    self._partitions,
                    self._labels_done,
                    self._labels_total,
                    note,
                )
            )


def run_stage(
    warehouse: Warehouse,
    stage: Stage,
    partitions: Sequence[PartitionKey],
    compute: Callable[[Chunk], ChunkRows],
    options: RunOptions,
    *,
    labels: LabelState | None = None,
    labels_per_chunk: int = LABELS_PER_CHUNK,
) -> Iterator[PartitionResult]:
    """Compute the partitions whose inputs changed; report the others as unchanged.

    Every chunk is written in one transaction together with its fingerprints, so a killed run
    resumes after its last finished chunk. A partition that fails is reported with its error.
    """
    run = StageRun(
        warehouse, stage, partitions, options, labels=labels, labels_per_chunk=labels_per_chunk
    )
    yield from run.unchanged()
    yield from run.blocked()
    for chunk in run.chunks():
        yield from run.compute(chunk, compute)


def run_regrouping_stage(
    warehouse: Warehouse,
    stage: Stage,
    partitions: Sequence[PartitionKey],
    compute: ComputeChunks,
    options: RunOptions,
    *,
    labels: LabelState | None = None,
) -> Iterator[PartitionResult]:
    """Run a stage like `run_stage`, for a computation that handles all chunks and failures itself.

    A failure that it does not handle ends the stage; what was committed before is kept.
    """
    run = StageRun(warehouse, stage, partitions, options, labels=labels)
    yield from run.unchanged()
    yield from run.blocked()
    with closing(compute(run.chunks())) as computed:
        for chunk, rows in computed:
            yield from run.commit(chunk, rows)


def _chunks(
    partitions: Sequence[PartitionKey], counts: Mapping[PartitionKey, int], limit: int
) -> Iterator[Chunk]:
    """Group partitions, ordered by merchant, into chunks of whole merchants."""
    members: list[PartitionKey] = []
    size = 0
    for _, group in groupby(partitions, key=lambda partition: partition.merchant_key):
        of_merchant = list(group)
        labels = sum(counts.get(partition, 0) for partition in of_merchant)
        if members and size + labels > limit:
            yield Chunk(tuple(members), {member: counts.get(member, 0) for member in members})
            members, size = [], 0
        members.extend(of_merchant)
        size += labels
    if members:
        yield Chunk(tuple(members), {member: counts.get(member, 0) for member in members})


def _results(
    con: duckdb.DuckDBPyConnection,
    stage: Stage,
    chunk: Chunk,
    fingerprints: dict[PartitionKey, str],
    *,
    run_id: str | None = None,
    seconds: float = 0.0,
) -> list[PartitionResult]:
    """Make the results of a chunk; `run_id` is the run that has just computed it, if any."""
    con.register("chunk", chunk.table())
    outcomes: dict[PartitionKey, dict[str, int]] = {}
    for label_type, merchant, outcome, n in con.execute(stage.outcomes).fetchall():
        outcomes.setdefault(PartitionKey(label_type, merchant), {})[outcome] = n
    worst: dict[PartitionKey, list[dict[str, Any]]] = {}
    if stage.worst is not None:
        for row in con.execute(stage.worst.format(limit=_WORST)).to_arrow_table().to_pylist():
            key = PartitionKey(row.pop("label_type"), row.pop("merchant_key"))
            worst.setdefault(key, []).append(row)
    metrics: dict[PartitionKey, dict[str, float]] = {}
    if stage.metrics is not None and run_id is not None:
        figures = con.execute(stage.metrics, {"run_id": run_id}).to_arrow_table().to_pylist()
        for row in figures:
            key = PartitionKey(row.pop("label_type"), row.pop("merchant_key"))
            metrics[key] = {name: value for name, value in row.items() if value is not None}
    return [
        PartitionResult(
            partition,
            chunk.labels[partition],
            run_id is not None,
            fingerprints[partition],
            outcomes.get(partition, {}),
            tuple(worst.get(partition, ())),
            metrics.get(partition, {}),
            seconds,
        )
        for partition in chunk.partitions
    ]
