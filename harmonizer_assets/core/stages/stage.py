"""Stages: the per-partition steps, and the chunks of partitions that they work on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from harmonizer_assets.core.records.partition import PartitionKey


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
        """Split the chunk into two, each with half of the partitions."""
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


ComputeChunks = Callable[[Iterable[Chunk]], Generator[tuple[Chunk, ChunkRows]]]
"""Computes the rows of chunks. It may regroup their partitions, so that those that are ready come
first, but returns each partition at most once; one that it leaves out stays as it was."""
