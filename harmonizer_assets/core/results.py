"""What the stages report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harmonizer_assets.core.partitions import PartitionKey


@dataclass(frozen=True)
class IndexReport:
    """What bringing the vector index up to date took.

    Attributes:
        words: labelled words that got a document.
        embedded: documents embedded and added to the index.
        total: documents known in all.
        metadata_updated: documents whose metadata in Chroma was out of date.
        rebuilt: whether a new embedder or a lost index meant embedding known documents again.
        embed_seconds: time in the embedder; `index_seconds`: time in Chroma.
    """

    words: int
    embedded: int
    total: int
    metadata_updated: int
    rebuilt: bool
    embedder: str
    dimensions: int
    seconds: float
    embed_seconds: float
    index_seconds: float


@dataclass(frozen=True)
class PartitionResult:
    """What one stage did with one partition.

    Attributes:
        labels: labels the partition holds.
        changed: False when its inputs had not changed and its rows were left alone.
        fingerprint: the data version of the partition's rows.
        counts: labels by outcome, for example `valid`, `outlier`, `ambiguous`.
        worst: up to three of the most suspicious labels.
        metrics: figures of the run, for example `calls` and `cost_usd`.
        seconds: its share of the time that its chunk took.
        error: why it could not be computed, in one line; its rows are those from before.
    """

    partition: PartitionKey
    labels: int
    changed: bool
    fingerprint: str
    counts: Mapping[str, int]
    worst: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    @classmethod
    def empty(cls, partition: PartitionKey) -> PartitionResult:
        """A partition that holds no labels, in which there is nothing to compute."""
        return cls(partition, 0, False, "no labels", {})


@dataclass(frozen=True)
class Counts:
    """The home's totals; `labels` = `valid` + `outliers` + `unresolved`, dead letters being
    unresolved labels whose question failed."""

    labels: int
    valid: int
    outliers: int
    unresolved: int
    dead_letters: int
    quarantined: int
    batches: int
    partitions: int
    merchants: int
    merchant_alarms: int
    receipt_alarms: int
    patterns: int
