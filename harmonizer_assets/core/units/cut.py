"""Cutting: units out of the partitions that have to be computed, the same ones after a killed run.

Which merchants share a unit follows from the labels of the home alone, not from what is done
already: so a run that goes on where another was killed cuts the units that are left, and finds
what was computed of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.score.similar_words import ExactWords, NeighbourhoodOf
from harmonizer_assets.core.score.stage import ChunkInput, SimilarityScorer
from harmonizer_assets.core.stages.stage import Chunk
from harmonizer_assets.core.units.scored import NEIGHBOURS, score_bundle, write_corpus
from harmonizer_assets.core.units.store import UnitStore
from harmonizer_assets.core.units.unit import Bundle

_WRITTEN_AT_ONCE: Final = 4
"""Bundles: each waits for the disk or the bucket, while the next ones are cut."""


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


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """Put chunks of different merchants together."""
    labels = {partition: n for chunk in chunks for partition, n in chunk.labels.items()}
    return Chunk(tuple(labels), labels)


def batches(chunks: Iterable[Chunk], labels: int) -> Iterator[list[Chunk]]:
    """Put chunks together that are read in one go, up to about so many labels.

    Reading takes time in proportion to the home, however little is read.
    """
    batch: list[Chunk] = []
    held = 0
    for chunk in chunks:
        batch.append(chunk)
        held += sum(chunk.labels.values())
        if held >= labels:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _is_done(stored: Future[None] | None) -> bool:
    return stored is None or stored.done()


class Cutter:
    """Cuts the units of one run, and stores them with what they share."""

    def __init__(self, store: UnitStore, scorer: SimilarityScorer) -> None:
        self._store = store
        self._scorer = scorer
        model = scorer.scorer.model
        self._shared = {} if model is None else {"model": store.share(model.to_bytes())}
        self._corpus: tuple[object, str] = (None, "")

    def cut(self, batches: Iterable[Sequence[Chunk]]) -> Iterator[tuple[Chunk, CutUnit | None]]:
        """Store the units of chunks of different merchants, while further ones are cut.

        Args:
            batches: chunks that are read in one go.

        Yields:
            Each chunk with its unit once that is in the store; None where it is too large to
            travel: a single merchant with very many documents.

        Raises:
            StoreError: the home cannot be read, or the store cannot be written.
        """
        writing: deque[tuple[Chunk, Future[None] | None, CutUnit | None]] = deque()
        with ThreadPoolExecutor(_WRITTEN_AT_ONCE, "bundles") as threads:
            for batch in batches:
                found = self._scorer.read(joined(batch))
                words = self._similar_words(found)
                parts = found.split([chunk.merchants for chunk in batch])
                for chunk, part in zip(batch, parts, strict=True):
                    named = self._named(chunk, part, words)
                    if named is None:
                        writing.append((chunk, None, None))
                    else:
                        unit, content = named
                        stored = threads.submit(self._store.add, unit.name, content)
                        writing.append((chunk, stored, unit))
                    while writing and (len(writing) > _WRITTEN_AT_ONCE or _is_done(writing[0][1])):
                        yield self._stored(*writing.popleft())
            while writing:
                yield self._stored(*writing.popleft())

    def _stored(
        self, chunk: Chunk, stored: Future[None] | None, unit: CutUnit | None
    ) -> tuple[Chunk, CutUnit | None]:
        """Wait until a unit is in the store."""
        if stored is not None:
            stored.result()
        return chunk, unit

    def _named(
        self, chunk: Chunk, found: ChunkInput, words: ExactWords | NeighbourhoodOf
    ) -> tuple[CutUnit, bytes] | None:
        """Make the unit of a chunk and its bundle, which is not stored yet; see `cut`."""
        bundle = self._bundle(found, words)
        if bundle is None:
            return None
        name, content = bundle.named(NEIGHBOURS)
        return CutUnit(name, chunk, found.fingerprints, found.labels.num_rows), content

    def _similar_words(self, found: ChunkInput) -> ExactWords | NeighbourhoodOf:
        """Return what workers search themselves, or select what Chroma's index has found."""
        words = self._scorer.similar_words
        words.cover(found.labels)
        return words.neighbourhoods(found.labels) if words.exact is None else words.exact

    def _bundle(self, found: ChunkInput, words: ExactWords | NeighbourhoodOf) -> Bundle | None:
        scorer, shared, near = self._scorer.scorer, self._shared, None
        if isinstance(words, ExactWords):
            shared = {**shared, "corpus": self._share_corpus(words)}
        else:
            near = words(found.labels)
            if near is None:
                return None
        return score_bundle(found.labels, found.page, near, scorer, shared)

    def _share_corpus(self, words: ExactWords) -> str:
        """Store the corpus, once; it is another one when documents have come meanwhile."""
        if self._corpus[0] is not words:
            self._corpus = words, self._store.share(write_corpus(words))
        return self._corpus[1]
