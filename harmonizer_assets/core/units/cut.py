"""Cutting: units out of the partitions that have to be computed, the same ones after a killed run.

Which merchants share a unit follows from the labels of the home alone, not from what is done
already: so a run that goes on where another was killed cuts the units that are left, and finds
what was computed of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.score.similar_words import ExactWords
from harmonizer_assets.core.score.stage import ChunkInput, SimilarityScorer
from harmonizer_assets.core.stages.stage import Chunk
from harmonizer_assets.core.units.scored import score_bundle, write_corpus
from harmonizer_assets.core.units.store import UnitStore
from harmonizer_assets.core.units.unit import Bundle


@dataclass(frozen=True)
class CutUnit:
    """A unit that is handed out, and what is needed to commit its result.

    Attributes:
        name: of the unit.
        chunk: the partitions whose rows are wanted.
        fingerprints: of the chunk's merchants, as of when it was cut.
        labels: how many rows its result has.
    """

    name: str
    chunk: Chunk
    fingerprints: dict[str, str]
    labels: int


def unit_chunks(
    stale: list[PartitionKey], counts: Mapping[PartitionKey, int], labels_per_unit: int
) -> Iterator[Chunk]:
    """Group partitions into chunks whose bounds do not depend on which partitions are stale.

    Args:
        stale: the partitions to be computed, by merchant.
        counts: labels of all partitions of the home.
        labels_per_unit: a group of whole merchants ends before it would hold more.
    """
    group_of = _groups(counts, labels_per_unit)
    for _, members in groupby(stale, key=lambda p: group_of.get(p.merchant_key, -1)):
        partitions = tuple(members)
        yield Chunk(partitions, {partition: counts.get(partition, 0) for partition in partitions})


def _groups(counts: Mapping[PartitionKey, int], labels_per_unit: int) -> dict[str, int]:
    """Number the groups of merchants, in the order of their keys."""
    of_merchant: dict[str, int] = {}
    for partition, labels in counts.items():
        of_merchant[partition.merchant_key] = of_merchant.get(partition.merchant_key, 0) + labels
    groups: dict[str, int] = {}
    group = held = 0
    for merchant, labels in sorted(of_merchant.items()):
        if held and held + labels > labels_per_unit:
            group, held = group + 1, 0
        groups[merchant] = group
        held += labels
    return groups


def by_merchants(chunk: Chunk) -> tuple[Chunk, ...]:
    """Split a chunk into two, each with half of the merchants; one merchant stays as it is."""
    merchants = chunk.merchants
    if len(merchants) < 2:
        return (chunk,)
    first = set(merchants[: len(merchants) // 2])
    halves = (
        tuple(p for p in chunk.partitions if (p.merchant_key in first) is is_first)
        for is_first in (True, False)
    )
    return tuple(Chunk(half, {p: chunk.labels[p] for p in half}) for half in halves)


class Cutter:
    """Cuts the units of one run, and stores them with what they share."""

    def __init__(self, store: UnitStore, scorer: SimilarityScorer) -> None:
        self._store = store
        self._scorer = scorer
        model = scorer.scorer.model
        self._shared = {} if model is None else {"model": store.share(model.to_bytes())}
        self._corpus: tuple[object, str] = (None, "")

    def cut(self, chunk: Chunk) -> CutUnit | None:
        """Store the unit of a chunk.

        Returns:
            None where it is too large to travel: a single merchant with very many documents.

        Raises:
            StoreError: the home cannot be read, or the store cannot be written.
        """
        found = self._scorer.read(chunk)
        bundle = self._bundle(found)
        if bundle is None:
            return None
        name = self._store.add(bundle.to_bytes())
        return CutUnit(name, chunk, found.fingerprints, found.labels.num_rows)

    def _bundle(self, found: ChunkInput) -> Bundle | None:
        words, scorer = self._scorer.similar_words, self._scorer.scorer
        words.cover(found.labels)
        if words.exact is not None:
            shared = {**self._shared, "corpus": self._share_corpus(words.exact)}
            return score_bundle(found.labels, found.page, None, scorer, shared)
        near = words.neighbourhood(found.labels)
        if near is None:
            return None
        return score_bundle(found.labels, found.page, near, scorer, self._shared)

    def _share_corpus(self, words: ExactWords) -> str:
        """Store the corpus, once; it is another one when documents have come meanwhile."""
        if self._corpus[0] is not words:
            self._corpus = words, self._store.share(write_corpus(words))
        return self._corpus[1]
