"""The `similarity_matches` stage: votes, outlier score and triage of every label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa

from harmonizer_assets.core.base.progress import waits_for
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.index.documents import DOCUMENT_VERSION
from harmonizer_assets.core.index.stage import Indexing
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import PartitionResult
from harmonizer_assets.core.score.fitting import FittedModel, read_labels_with_pages
from harmonizer_assets.core.score.pages import Page
from harmonizer_assets.core.score.registry import DUE, NO_GUARANTEE, NO_MODEL, Models
from harmonizer_assets.core.score.rows import JSON_COLUMNS, Gathered, Scorer
from harmonizer_assets.core.score.scoring import SCORER_VERSION
from harmonizer_assets.core.score.similar_words import SimilarWords, read_merchant_labels
from harmonizer_assets.core.stages.run import StageRun
from harmonizer_assets.core.stages.stage import Chunk, ChunkRows, Stage
from harmonizer_assets.core.stages.state import LabelState, merchant_fingerprints
from harmonizer_assets.core.store.warehouse import Warehouse, replace_partitions

ASSET: Final = "similarity_matches"

_OUTCOMES = """
SELECT label_type, merchant_key,
    CASE WHEN looks_right IS NULL THEN triage ELSE 'rejected' END, count(*)
FROM similarity_matches SEMI JOIN chunk USING (label_type, merchant_key) GROUP BY ALL
"""

_WORST = """
SELECT s.label_type, s.merchant_key, w.text AS word_text, s.outlier_score,
    s.competing_label AS suggested_label, s.image_id, s.receipt_id, s.line_id, s.word_id
FROM similarity_matches s SEMI JOIN chunk USING (label_type, merchant_key)
JOIN words w USING (image_id, receipt_id, line_id, word_id)
WHERE s.triage <> 'valid' AND s.looks_right IS NULL
QUALIFY row_number() OVER (PARTITION BY s.label_type, s.merchant_key
    ORDER BY s.outlier_score DESC, s.image_id, s.receipt_id, s.line_id, s.word_id) <= {limit}
ORDER BY s.outlier_score DESC, s.image_id, s.receipt_id, s.line_id, s.word_id
"""


def similarity_stage(identity: str) -> Stage:
    """Describe the stage; `identity` identifies taxonomy, documents, embedder and settings."""
    return Stage(
        ASSET,
        f"{SCORER_VERSION}\n{identity}",
        _OUTCOMES,
        _WORST,
        downstream=("llm_verdicts", "outliers"),
    )


class ScoreStage:
    """Computes `similarity_matches`: the score and triage of every label of a partition."""

    def __init__(
        self,
        warehouse: Warehouse,
        registry: Models,
        indexing: Indexing,
        settings: Settings,
        compute: ComputeScores | None = None,
    ) -> None:
        """Set up the stage; nothing is read yet.

        Args:
            warehouse: holds the labels.
            registry: returns the model in force and fits it where one is due.
            indexing: holds the vectors.
            settings: of the home.
            compute: scores the chunks of a run; by default this process does, one by one.
        """
        self._compute = compute or score_here
        self._warehouse = warehouse
        self._registry = registry
        self._indexing = indexing
        self._settings = settings
        self._fitted_with: SimilarWords | None = None

    def definition(self) -> Stage:
        """Describe the stage with the model that is in force now, or due."""
        similarity = self._settings.similarity
        identity = {
            "documents": DOCUMENT_VERSION,
            "embedder": self._indexing.embedder_version.split("/", 1),
            "settings": similarity.model_dump(),
            "label_types": list(self._registry.label_types),
            "model": self.model_version(),
        }
        return similarity_stage(hashlib.sha256(json.dumps(identity).encode()).hexdigest())

    def model_version(self) -> str:
        """Return the version of the model in force, `DUE`, or `NO_MODEL`."""
        scored_by_model = self._settings.similarity.scorer == "model"
        return self._registry.version() if scored_by_model else NO_MODEL

    def similar_words(self) -> SimilarWords:
        """Make the gatherer of similar words' votes, against the labels as they are now."""
        names, settings = self._registry.label_types, self._settings.similarity
        before = self._fitted_with
        return SimilarWords(self._warehouse, self._indexing.vectors, names, settings, before)

    def guarantee(self) -> str:
        """Describe the guarantee on labels that no judge is asked about, in one sentence."""
        scored_by_model = self._settings.similarity.scorer == "model"
        return self._registry.guarantee() if scored_by_model else NO_GUARANTEE

    def fit(self, options: RunOptions, *, refit: bool = False) -> tuple[str, FittedModel | None]:
        """Fit the model of suspicion where one is due.

        Args:
            options: of the run.
            refit: fit although none is due.

        Returns:
            Version and model in force. Without a model (the version is `NO_MODEL`) similar words
            alone score: there are too few labels, or the settings say so.
        """
        if self._settings.similarity.scorer != "model":
            return NO_MODEL, None
        waits = waits_for(options.on_progress, "suspicion_model waits for another run that fits it")

        def gatherer() -> SimilarWords:
            self._fitted_with = self.similar_words()
            return self._fitted_with

        return self._registry.ensure(gatherer, waits, refit=refit)

    def in_force(self) -> tuple[str, FittedModel | None]:
        """Return version and model in force; `DUE` and None where one is to be fitted first."""
        version = self.model_version()
        return (version, None) if version == DUE else self.fit(RunOptions())

    def run(
        self,
        partitions: Sequence[PartitionKey],
        options: RunOptions,
        labels: LabelState | None = None,
    ) -> Iterator[PartitionResult]:
        """Score partitions; yield each once its rows are committed."""
        model = self.fit(options)

        @cache
        def scorer() -> SimilarityScorer:
            # Made on first use: a run without changes must not load the corpus.
            words, self._fitted_with = self.similar_words(), None
            return SimilarityScorer(self._warehouse, words, self._scorer(*model))

        run = StageRun(self._warehouse, self.definition(), partitions, options, labels=labels)
        yield from run.unchanged()
        yield from run.blocked()
        yield from self._compute(run, scorer)

    def _scorer(self, version: str, model: FittedModel | None) -> Scorer:
        names, settings = self._registry.label_types, self._settings
        return Scorer(names, version, model, settings.similarity, settings.triage)


@dataclass(frozen=True)
class ChunkInput:
    """What the labels of a chunk's merchants are scored from, as the tables hold it.

    Attributes:
        labels: n rows as `read_merchant_labels` gives them.
        page: the words of their receipts; None where similar words alone score them.
        fingerprints: per merchant, read in the same transaction.
    """

    labels: pa.Table
    page: Page | None
    fingerprints: dict[str, str]

    def split(self, groups: Sequence[Sequence[str]]) -> Iterator[ChunkInput]:
        """Yield the input of each group of merchants, as if these alone had been read."""
        group_of = {m: number for number, merchants in enumerate(groups) for m in merchants}
        merchants = self.labels["merchant_key"].combine_chunks().dictionary_encode()
        numbers = np.array([group_of.get(m, -1) for m in merchants.dictionary.to_pylist()], int)
        group = numbers[merchants.indices.to_numpy()]
        order = np.argsort(group, kind="stable")
        labels = self.labels.take(order).combine_chunks()
        starts = np.searchsorted(group[order], np.arange(len(groups) + 1)).tolist()
        receipt = None if self.page is None else self.page.receipts_of(labels)
        for members, start, end in zip(groups, starts, starts[1:], strict=False):
            page = None
            if self.page is not None and receipt is not None:
                on_page = receipt[start:end]
                page = self.page.of_receipts(on_page[on_page >= 0])
            prints = {m: self.fingerprints[m] for m in members if m in self.fingerprints}
            yield ChunkInput(labels.slice(start, end - start), page, prints)


class SimilarityScorer:
    """Scores chunks of merchants: votes of similar words, then the model in force."""

    def __init__(self, warehouse: Warehouse, similar_words: SimilarWords, scorer: Scorer) -> None:
        """Set up the scoring of a run.

        Args:
            warehouse: holds the labels.
            similar_words: gathers the votes of similar words.
            scorer: scores labels by their votes.
        """
        self._warehouse = warehouse
        self.similar_words = similar_words
        self.scorer = scorer

    def score(self, chunk: Chunk) -> ChunkRows:
        """Score all labels of the chunk's merchants and keep those of its partitions."""
        found = self.read(chunk)
        votes, known = self.similar_words.votes(found.labels)
        nearest = self.similar_words.corpus.ids_of(votes.corpus_nearest)
        rows = self.scorer.rows(Gathered(found.labels, found.page, votes, known, nearest))
        return chunk_rows(chunk, rows, found.fingerprints)

    def read(self, chunk: Chunk) -> ChunkInput:
        """Read what the labels of the chunk's merchants are scored from, but for the votes."""
        return self._warehouse.read(lambda con: self._read(con, chunk))

    def _read(self, con: duckdb.DuckDBPyConnection, chunk: Chunk) -> ChunkInput:
        label_types = self.similar_words.label_types
        fingerprints = merchant_fingerprints(con, chunk.merchants)
        if self.scorer.model is None:
            labels = read_merchant_labels(con, chunk.merchants, label_types)
            return ChunkInput(labels, None, fingerprints)
        labels, page = read_labels_with_pages(con, chunk.merchants, label_types)
        return ChunkInput(labels, page, fingerprints)


def chunk_rows(chunk: Chunk, rows: pa.Table, fingerprints: dict[str, str]) -> ChunkRows:
    """Keep the rows of a chunk's partitions among those of all labels of its merchants."""

    def write(con: duckdb.DuckDBPyConnection) -> None:
        replace_partitions(con, ASSET, chunk.table(), rows, json_columns=JSON_COLUMNS)

    return ChunkRows(fingerprints, write)


ComputeScores = Callable[[StageRun, Callable[[], SimilarityScorer]], Iterator[PartitionResult]]
"""Scores the chunks of a run and commits them; the scorer is made on the first call."""


def score_here(run: StageRun, scorer: Callable[[], SimilarityScorer]) -> Iterator[PartitionResult]:
    """Score the chunks of a run in this process; see `ComputeScores`."""
    for chunk in run.chunks():
        yield from run.compute(chunk, lambda chunk: scorer().score(chunk))
