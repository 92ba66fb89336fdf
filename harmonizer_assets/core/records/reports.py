"""Reports of the steps and of whole runs."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from harmonizer_assets.core.records.input_summary import InputSummary
from harmonizer_assets.core.records.partition import PartitionKey

AssetName = Literal["similarity_matches", "llm_verdicts", "outliers"]

ASSETS: Final[tuple[AssetName, ...]] = get_args(AssetName)
"""The partitioned assets, in the order in which they are computed."""


@dataclass(frozen=True)
class BatchReport:
    """What ingesting one inbox batch did.

    Attributes:
        source: where its files come from.
        batch_id: hash of its content.
        unchanged: whether the same batch had been ingested before, and no other since; all counts
            but `labels_repeated` are 0 then.
        time_given: the time that the batch came with, where it lay in the future; it counts from
            its arrival then. Otherwise None.
        words_outdated: words that a later batch has decided otherwise, so that nothing was done;
            `labels_outdated` likewise, by a later batch or a correction.
        labels_repeated: labels that are in the batch as they were before they were corrected, so
            that nothing was done: who sends them does not know of the corrections.
        words_deleted: words that the batch has deleted; `labels_deleted` likewise.
        words_withheld: words that stay away since they were deleted; `labels_withheld` likewise.
        summary: what was in its files; None for a batch that was ingested before.
    """

    source: str
    batch_id: str
    unchanged: bool = False
    time_given: dt.datetime | None = None
    words_read: int = 0
    words_inserted: int = 0
    words_updated: int = 0
    words_outdated: int = 0
    words_deleted: int = 0
    words_withheld: int = 0
    labels_read: int = 0
    labels_inserted: int = 0
    labels_updated: int = 0
    labels_outdated: int = 0
    labels_repeated: int = 0
    labels_deleted: int = 0
    labels_withheld: int = 0
    quarantined: int = 0
    summary: InputSummary | None = None

    def remarks(self) -> list[str]:
        """Say what a reader of the counts would not expect; no text of receipts is in it."""
        told = []
        if self.time_given is not None:
            told.append(
                f"its time, {self.time_given.isoformat(timespec='seconds')}, lies in the future: "
                "it counts from its arrival"
            )
        if self.words_outdated or self.labels_outdated:
            told.append(
                f"{self.words_outdated} words and {self.labels_outdated} labels are left as they "
                "are: a later batch or a correction has decided them otherwise"
            )
        if self.labels_repeated:
            told.append(
                f"{self.labels_repeated} labels come again as they were before a correction, which "
                "holds: their sender needs what `harmonizer export labels_corrected` writes"
            )
        if self.words_deleted or self.labels_deleted:
            told.append(f"{self.words_deleted} words and {self.labels_deleted} labels deleted")
        if self.words_withheld or self.labels_withheld:
            told.append(
                f"{self.words_withheld} words and {self.labels_withheld} labels stay away: "
                "they were deleted"
            )
        return told


@dataclass(frozen=True)
class MerchantMove:
    """A name that has left one merchant for another, with its labels.

    Attributes:
        name: as it is written.
        left_merchant: the merchant that it was, or its own name where it has just arrived.
        merchant: the merchant that it is.
        how: why, as in the table `merchant_names`.
        left_key, merchant_key: the keys of the two, which name their partitions.
        is_new: whether the name has just arrived, so that nothing was computed for it before.
        labels: how many have the name.
    """

    name: str
    left_merchant: str
    merchant: str
    how: str
    left_key: str
    merchant_key: str
    is_new: bool
    labels: int

    def __str__(self) -> str:
        if self.is_new:
            return f"{self.name!r} is {self.merchant!r} ({self.how}; {self.labels:,} labels)"
        return (
            f"{self.name!r} moved from {self.left_merchant!r} to {self.merchant!r} "
            f"({self.how}; {self.labels:,} labels)"
        )


@dataclass(frozen=True)
class MerchantReport:
    """Which names have got another merchant.

    Attributes:
        moves: names that have, with their labels.
        waiting: names that will, once open batch jobs and other runs that ask are done.
    """

    moves: tuple[MerchantMove, ...] = ()
    waiting: int = 0

    def remarks(self) -> list[str]:
        """Say what has moved, and what waits."""
        told = [str(moved) for moved in self.moves]
        if self.waiting:
            told.append(
                f"{self.waiting:,} names stay with their merchants until batch jobs are collected "
                "and no other run asks a model"
            )
        return told


@dataclass(frozen=True)
class IngestReport:
    """What ingesting the inbox did.

    Attributes:
        batches: one report per readable inbox batch.
        failed: source and error of each batch that could not be read and was moved to `.failed`.
        pulled: batches that were copied into the inbox from buckets and tables first.
        unread_sources: why buckets or tables could not be read; the others were.
        merchants: which names have got another merchant.
    """

    batches: list[BatchReport] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    pulled: int = 0
    unread_sources: tuple[str, ...] = ()
    merchants: MerchantReport = field(default_factory=MerchantReport)

    def total(self, name: str) -> int:
        """Sum one of the counts over all batches."""
        return sum(getattr(batch, name) for batch in self.batches)


@dataclass(frozen=True)
class IndexReport:
    """What bringing the vector index up to date did.

    Attributes:
        words: labelled words that were assigned a document.
        embedded: documents embedded and added to the index.
        total: documents known in all.
        metadata_updated: documents whose metadata in Chroma was out of date.
        removed: documents that no labelled word has any more.
        rebuilt: whether known documents were embedded again, for a new embedder or lost vectors.
        embed_seconds: time in the embedder; `index_seconds`: time in Chroma.
    """

    words: int
    embedded: int
    total: int
    metadata_updated: int
    removed: int
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
        error: why it could not be computed, in one line; its rows are left as they were.
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
        """Report a partition that holds no labels."""
        return cls(partition, 0, False, "no labels", {})


@dataclass
class StageReport:
    """What one stage of a run did.

    Attributes:
        asset: which partitioned asset.
        computed: partitions whose rows were written.
        labels: labels in those partitions.
        outcomes: labels by outcome, of all partitions that were looked at.
        failed: partitions that could not be computed, and why.
        usage: what was asked of a model; None where none was.
    """

    asset: AssetName
    computed: int = 0
    labels: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failed: dict[PartitionKey, str] = field(default_factory=dict)
    usage: RunTotals | None = None

    def add(self, result: PartitionResult) -> None:
        """Count one partition's result."""
        self.outcomes.update(result.counts)
        if result.error is not None:
            self.failed[result.partition] = result.error
        elif result.changed:
            self.computed += 1
            self.labels += result.labels


@dataclass(frozen=True)
class PartitionFailure:
    """A partition that could not be computed; a later run tries it again."""

    asset: AssetName
    partition: PartitionKey
    error: str
    traceback: str
    run_id: str
    failed_at: dt.datetime


@dataclass(frozen=True)
class Published:
    """What was published at the end of a run.

    Attributes:
        merchant_alarms: receipts whose merchant's name is suspect.
        receipt_alarms: receipts on which many label types are wrong together.
        patterns: recurring wrong labels that could become rules.
        missing_labels: words that carry no label and look as if they should.
        validation_queue: labels that were ranked by how much their validation would teach.
        report: the run's report, an HTML page.
        tables: the read-only copy of the tables.
        version: of the tables where the settings have them published besides; None for the copy
            alone.
    """

    merchant_alarms: int
    receipt_alarms: int
    patterns: int
    missing_labels: int
    validation_queue: int
    report: Path
    tables: Path
    version: str | None = None


@dataclass(frozen=True)
class RunReport:
    """What a whole run did: what it ingested, indexed and harmonized."""

    ingested: IngestReport
    indexed: IndexReport
    harmonized: HarmonizeReport


@dataclass(frozen=True)
class HarmonizeReport:
    """What bringing partitions up to date did.

    Attributes:
        run_id: key of the run's usage, failures and report.
        stages: one report per partitioned asset, in the order in which they ran.
        published: what was published afterwards; None where nothing had changed.
        counts: the home's totals afterwards.
        seconds: from start to end.
    """

    run_id: str
    stages: Sequence[StageReport]
    published: Published | None
    counts: Counts
    seconds: float

    @property
    def totals(self) -> RunTotals:
        """Calls, tokens and cost; all zero where no model was asked."""
        return next((stage.usage for stage in self.stages if stage.usage), RunTotals())

    @property
    def failed(self) -> Mapping[PartitionKey, str]:
        """The partitions that could not be computed, and why; all others are done."""
        return {key: error for stage in self.stages for key, error in stage.failed.items()}

    @property
    def partitions(self) -> int:
        """Partitions that were judged again."""
        return sum(stage.computed for stage in self.stages if stage.asset == "llm_verdicts")

    @property
    def stopped_at_budget(self) -> bool:
        """Whether the budget was used up before all was asked; run again to go on."""
        return self.totals.stopped_at_budget


@dataclass
class RunTotals:
    """What asking a model has used and done so far.

    Attributes:
        cost_usd: None where the price is unknown.
        estimated_calls: calls whose endpoint did not say how many tokens they took.
        prices: source and date of the price, to be shown beside the cost.
    """

    calls: int = 0
    answered: int = 0
    words_asked: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    retries: int = 0
    rate_limited: int = 0
    estimated_calls: int = 0
    dead_letters: int = 0
    stopped_at_budget: bool = False
    prices: str | None = None


@dataclass(frozen=True)
class Counts:
    """The home's totals; `labels` = `valid` + `outliers` + `unresolved` + `rejected`.

    Dead letters are unresolved labels whose question failed. `rejected` are labels that people have
    rejected, `rejected_look_right` those of them that look right all the same.
    """

    labels: int
    valid: int
    outliers: int
    unresolved: int
    rejected: int
    rejected_look_right: int
    dead_letters: int
    quarantined: int
    batches: int
    partitions: int
    merchants: int
    merchant_alarms: int
    receipt_alarms: int
    patterns: int
    missing_labels: int

    def in_a_sentence(self) -> str:
        """Say what was found."""
        return (
            f"{self.labels:,} labels of {self.merchants:,} merchants: {self.outliers:,} outliers, "
            f"{self.unresolved:,} unresolved"
        )
