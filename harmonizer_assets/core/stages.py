"""Stages: the per-partition steps, run in chunks of merchants with fingerprints for no-ops."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.errors import HarmonizerError
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.progress import Progress, ProgressFn
from harmonizer_assets.core.results import PartitionResult
from harmonizer_assets.core.warehouse import Warehouse

LABELS_PER_CHUNK: Final = 20_000
GIVE_UP_AFTER: Final = 50
"""When so many partitions fail and none succeeds, it is not the partitions that are at fault."""

_WORST: Final = 3
_MAX_ERROR: Final = 500
_MAX_TRACEBACK: Final = 8_000
_UNCHANGED_PER_READ: Final = 10
"""Chunks of unchanged partitions reported from one read: nothing is computed for them."""

# A partition depends on all labels of its merchant: the other types are evidence too.
_MERCHANT_FINGERPRINTS = """
SELECT l.merchant_key,
    count(*)::VARCHAR || '-' || bit_xor(md5_number(concat_ws(chr(31),
        l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, l.validation_status,
        coalesce(l.merchant_name, ''), coalesce(d.document_id, ''), coalesce(w.text, '')
    )))::VARCHAR AS fingerprint
FROM labels l
LEFT JOIN words w USING (image_id, receipt_id, line_id, word_id)
LEFT JOIN word_documents d USING (image_id, receipt_id, line_id, word_id)
{where}
GROUP BY l.merchant_key
"""


@dataclass(frozen=True)
class Stage:
    """One step that computes a table for partitions.

    Attributes:
        asset: name under which its fingerprints are kept, the asset's name.
        identity: everything besides the labels that its rows depend on.
        outcomes: SQL that counts rows by outcome, over the temporary table `chunk`, with columns
            `label_type`, `merchant_key`, `outcome`, `n`.
        worst: SQL that selects the most suspicious labels of `chunk`, at least with the columns
            `label_type` and `merchant_key`, most suspicious first within a partition; or None.
        upstream: the stages whose rows this one reads.
        downstream: the stages whose rows depend on this one's.
        metrics: SQL that selects figures of the run `$run_id` about partitions of `chunk`; or None.
    """

    asset: str
    identity: str
    outcomes: str
    worst: str | None = None
    upstream: tuple[str, ...] = ()
    downstream: tuple[str, ...] = ()
    metrics: str | None = None

    def fingerprint(self, merchant_fingerprint: str) -> str:
        """Combine the merchant's labels with the stage's identity."""
        content = f"{self.asset}\n{self.identity}\n{merchant_fingerprint}"
        return hashlib.sha256(content.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Chunk:
    """Partitions of a few merchants, computed together."""

    partitions: tuple[PartitionKey, ...]
    labels: dict[PartitionKey, int]

    @property
    def merchants(self) -> list[str]:
        """The chunk's merchant keys, sorted."""
        return sorted({partition.merchant_key for partition in self.partitions})

    def table(self) -> pa.Table:
        """The partitions as a table of `label_type` and `merchant_key`."""
        return partition_table(self.partitions)

    def halves(self) -> tuple[Chunk, Chunk]:
        """Two chunks of half the partitions each."""
        middle = len(self.partitions) // 2
        first, second = (
            Chunk(part, {partition: self.labels[partition] for partition in part})
            for part in (self.partitions[:middle], self.partitions[middle:])
        )
        return first, second


@dataclass(frozen=True)
class ChunkRows:
    """What a stage computed for a chunk.

    Attributes:
        fingerprints: per merchant, read in the transaction that read the labels.
        write: writes the rows inside the chunk's one transaction.
        incomplete: partitions to be computed again next time, although their rows are written.
    """

    fingerprints: dict[str, str]
    write: Callable[[duckdb.DuckDBPyConnection], None]
    incomplete: frozenset[PartitionKey] = frozenset()


def partition_table(partitions: Iterable[PartitionKey]) -> pa.Table:
    """Make a table with the columns `label_type` and `merchant_key`."""
    pairs = list(partitions)
    return pa.table(
        {
            "label_type": pa.array([pair.label_type for pair in pairs], pa.string()),
            "merchant_key": pa.array([pair.merchant_key for pair in pairs], pa.string()),
        }
    )


def merchant_fingerprints(
    con: duckdb.DuckDBPyConnection, merchants: Sequence[str] | None = None
) -> dict[str, str]:
    """Fingerprint the labels of each merchant (or of some), words and documents included."""
    where = "" if merchants is None else "WHERE l.merchant_key IN (SELECT unnest($1::VARCHAR[]))"
    parameters = [] if merchants is None else [list(merchants)]
    return dict(con.execute(_MERCHANT_FINGERPRINTS.format(where=where), parameters).fetchall())


def stored_fingerprints(con: duckdb.DuckDBPyConnection, asset: str) -> dict[PartitionKey, str]:
    """The fingerprints of the partitions that an asset holds."""
    rows = con.execute(
        "SELECT label_type, merchant_key, fingerprint FROM partition_state WHERE asset = $1",
        [asset],
    ).fetchall()
    return {PartitionKey(label_type, merchant): print_ for label_type, merchant, print_ in rows}


def outdate(con: duckdb.DuckDBPyConnection, assets: Sequence[str], partitions: str) -> None:
    """Have some assets computed again for the partitions in a table, although labels are the same.

    Used where what these assets are computed from has changed.
    """
    con.execute(
        "UPDATE partition_state SET fingerprint = 'outdated' "
        "WHERE asset IN (SELECT unnest($1::VARCHAR[])) AND (label_type, merchant_key) IN "
        f"(SELECT (label_type, merchant_key) FROM {partitions})",
        [list(assets)],
    )


def label_counts(con: duckdb.DuckDBPyConnection) -> dict[PartitionKey, int]:
    """How many labels each partition holds; only partitions that hold any."""
    rows = con.execute("SELECT label_type, merchant_key, labels FROM label_partitions").fetchall()
    return {PartitionKey(label_type, merchant): count for label_type, merchant, count in rows}


ComputeChunks = Callable[[Iterable[Chunk]], Generator[tuple[Chunk, ChunkRows]]]
"""Computes the rows of chunks. It may regroup their partitions, so that those that are ready come
first, but returns each partition at most once; one that it leaves out stays as it was."""


def failures(
    con: duckdb.DuckDBPyConnection, assets: Sequence[str]
) -> dict[PartitionKey, tuple[str, str]]:
    """The partitions that some assets failed to compute: the asset, and the error in one line."""
    rows = con.execute(
        "SELECT label_type, merchant_key, asset, error FROM partition_failures "
        "WHERE asset IN (SELECT unnest($1::VARCHAR[])) ORDER BY failed_at DESC",
        [list(assets)],
    ).fetchall()
    return {
        PartitionKey(label_type, merchant): (asset, error)
        for label_type, merchant, asset, error in rows
    }


class StageRun:
    """One run of a stage over partitions: which are up to date, and the commits of the others."""

    def __init__(
        self,
        warehouse: Warehouse,
        stage: Stage,
        partitions: Iterable[PartitionKey],
        *,
        run_id: str,
        refresh: bool,
        on_progress: ProgressFn | None,
        labels_per_chunk: int = LABELS_PER_CHUNK,
    ) -> None:
        """Compare the partitions' inputs with those that their rows were computed from."""
        self._warehouse = warehouse
        self._stage = stage
        self._run_id = run_id
        self._on_progress = on_progress
        self._labels_per_chunk = labels_per_chunk
        self._labels, merchants, self._stored, failed = warehouse.read(
            lambda con: (
                label_counts(con),
                merchant_fingerprints(con),
                stored_fingerprints(con, stage.asset),
                failures(con, stage.upstream),
            )
        )
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
            expected = stage.fingerprint(merchants.get(partition.merchant_key, ""))
            is_current = self._stored.get(partition) == expected and not refresh
            (self._current if is_current else self._stale).append(partition)
        self._partitions = len(wanted)
        self._labels_total = sum(self._labels.get(partition, 0) for partition in wanted)
        self._done = self._labels_done = 0
        self._last_commit = time.monotonic()

    def chunks(self) -> Iterator[Chunk]:
        """The partitions that have to be computed, in chunks of whole merchants."""
        self._last_commit = time.monotonic()
        yield from _chunks(self._stale, self._labels, self._labels_per_chunk)

    def unchanged(self) -> Iterator[PartitionResult]:
        """Report the partitions that are up to date."""
        for chunk in _chunks(
            self._current, self._labels, _UNCHANGED_PER_READ * self._labels_per_chunk
        ):
            prints = {partition: self._stored[partition] for partition in chunk.partitions}
            read = partial(_results, stage=self._stage, chunk=chunk, fingerprints=prints)
            yield from self._advance(self._warehouse.read(read))

    def blocked(self) -> Iterator[PartitionResult]:
        """Report the partitions that cannot be computed, since what they are made of has failed."""
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
        """Compute and commit a chunk; a partition that fails does so alone.

        The chunk is halved until the failing partition stands by itself: its siblings' rows stand.

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
            if len(chunk.partitions) == 1:
                yield from self._advance([self._fail(chunk, error)])
            else:
                for half in chunk.halves():
                    yield from self.compute(half, compute)
            return
        yield from self._advance(results)

    def _fail(self, chunk: Chunk, error: Exception) -> PartitionResult:
        [partition] = chunk.partitions
        said = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:_MAX_ERROR]
        trace = "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:]
        self._warehouse.write(
            lambda con: _store_failure(con, self._stage, chunk, said, trace, self._run_id)
        )
        self._failed += 1
        if self._failed >= GIVE_UP_AFTER and not self._succeeded:
            raise HarmonizerError(
                f"{self._stage.asset}: the first {self._failed} partitions all failed, the last "
                f"one with {said}"
            ) from error
        return PartitionResult(partition, chunk.labels[partition], False, "", {}, error=said)

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
            _store_fingerprints(con, stage, chunk, prints, rows.incomplete, self._run_id)
            seconds = (time.monotonic() - self._last_commit) / len(chunk.partitions)
            return _results(con, stage, chunk, prints, run_id=self._run_id, seconds=seconds)

        results = self._warehouse.write(write)
        self._last_commit = time.monotonic()
        self._succeeded += len(results)
        return results

    def _advance(self, results: list[PartitionResult]) -> Iterator[PartitionResult]:
        for result in results:
            self._done += 1
            self._labels_done += result.labels
            yield result
        if self._on_progress:
            self._on_progress(
                Progress(
                    self._stage.asset,
                    self._done,
                    self._partitions,
                    self._labels_done,
                    self._labels_total,
                )
            )


def run_stage(
    warehouse: Warehouse,
    stage: Stage,
    partitions: Sequence[PartitionKey],
    compute: Callable[[Chunk], ChunkRows],
    *,
    run_id: str,
    refresh: bool,
    on_progress: ProgressFn | None,
    labels_per_chunk: int = LABELS_PER_CHUNK,
) -> Iterator[PartitionResult]:
    """Compute the partitions whose inputs changed; report the others as unchanged.

    Every chunk is written in one transaction together with its fingerprints, so a killed run
    resumes after its last finished chunk. A partition that fails is reported with its error.
    """
    run = StageRun(
        warehouse,
        stage,
        partitions,
        run_id=run_id,
        refresh=refresh,
        on_progress=on_progress,
        labels_per_chunk=labels_per_chunk,
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
    *,
    run_id: str,
    refresh: bool,
    on_progress: ProgressFn | None,
) -> Iterator[PartitionResult]:
    """What `run_stage` does, for a computation that sees all chunks and deals with failures itself.

    A failure that it does not deal with ends the stage; what was committed before it stands.
    """
    run = StageRun(
        warehouse, stage, partitions, run_id=run_id, refresh=refresh, on_progress=on_progress
    )
    yield from run.unchanged()
    yield from run.blocked()
    with closing(compute(run.chunks())) as computed:
        for chunk, rows in computed:
            yield from run.commit(chunk, rows)


def _chunks(
    partitions: Sequence[PartitionKey], counts: dict[PartitionKey, int], limit: int
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


def _store_fingerprints(
    con: duckdb.DuckDBPyConnection,
    stage: Stage,
    chunk: Chunk,
    fingerprints: dict[PartitionKey, str],
    incomplete: frozenset[PartitionKey],
    run_id: str,
) -> None:
    held = [
        partition
        for partition in chunk.partitions
        if chunk.labels[partition] and partition not in incomplete
    ]
    state = partition_table(held)
    state = state.append_column(
        "fingerprint", pa.array([fingerprints[partition] for partition in held], pa.string())
    ).append_column("labels", pa.array([chunk.labels[partition] for partition in held], pa.int64()))
    con.register("chunk", chunk.table())
    con.register("state", state)
    for table in ("partition_state", "partition_failures"):
        con.execute(
            f"DELETE FROM {table} WHERE asset = $1 AND (label_type, merchant_key) IN "
            "(SELECT (label_type, merchant_key) FROM chunk)",
            [stage.asset],
        )
    outdate(con, stage.downstream, "chunk")
    con.execute(
        "INSERT INTO partition_state BY NAME "
        "SELECT $1 AS asset, *, $2 AS run_id, now() AS computed_at FROM state",
        [stage.asset, run_id],
    )


def _store_failure(
    con: duckdb.DuckDBPyConnection,
    stage: Stage,
    chunk: Chunk,
    error: str,
    trace: str,
    run_id: str,
) -> None:
    """Have a partition count as failed, and as not up to date here and downstream."""
    con.register("chunk", chunk.table())
    outdate(con, [stage.asset, *stage.downstream], "chunk")
    con.execute(
        "DELETE FROM partition_failures WHERE asset = $1 AND (label_type, merchant_key) IN "
        "(SELECT (label_type, merchant_key) FROM chunk)",
        [stage.asset],
    )
    con.execute(
        "INSERT INTO partition_failures BY NAME SELECT $1 AS asset, *, $2 AS error, "
        "$3 AS traceback, $4 AS run_id, now() AS failed_at FROM chunk",
        [stage.asset, error, trace, run_id],
    )


def _results(
    con: duckdb.DuckDBPyConnection,
    stage: Stage,
    chunk: Chunk,
    fingerprints: dict[PartitionKey, str],
    *,
    run_id: str | None = None,
    seconds: float = 0.0,
) -> list[PartitionResult]:
    """What is known about a chunk; `run_id` names the run that has just computed it, if one did."""
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
