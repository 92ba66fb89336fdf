"""A reporter that keeps what a run tells it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from harmonizer_assets.core.pipeline import Reporter
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import AssetName, PartitionResult


class Collecting(Reporter):
    """Keeps the results of partitions by asset, in the order in which they are committed."""

    def __init__(self) -> None:
        self.results: defaultdict[AssetName, list[PartitionResult]] = defaultdict(list)

    def consume(
        self,
        asset: AssetName,
        partitions: Sequence[PartitionKey],
        results: Iterator[PartitionResult],
    ) -> None:
        """Keep the results."""
        self.results[asset].extend(results)
