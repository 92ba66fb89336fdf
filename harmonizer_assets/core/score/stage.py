"""The `similarity_matches` stage: votes, outlier score and triage of every label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.base.progress import waits_for
from harmonizer_assets.core.base.settings import Settings, SimilaritySettings, TriageSettings
from harmonizer_assets.core.index.documents import DOCUMENT_VERSION
from harmonizer_assets.core.index.stage import Indexing
from harmonizer_assets.core.records.label import LABEL_KEY
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import PartitionResult
from harmonizer_assets.core.records.status import Status
from harmonizer_assets.core.score.classifier import EVIDENCE_GROUPS
from harmonizer_assets.core.score.fitting import FittedModel, locate_labels, read_labels_with_pages
from harmonizer_assets.core.score.pages import Page
from harmonizer_assets.core.score.registry import NO_GUARANTEE, NO_MODEL, Models
from harmonizer_assets.core.score.scoring import (
    DECIMALS,
    SCORER_VERSION,
    Scores,
    rejected_but_right,
    score_in_parts,
    score_labels,
)
from harmonizer_assets.core.score.similar_words import (
    SimilarWords,
    label_type_columns,
    read_merchant_labels,
)
from harmonizer_assets.core.score.unknown import NO_WORD
from harmonizer_assets.core.score.votes import Ints, Votes
from harmonizer_assets.core.stages.run import run_stage
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

_ALTERNATIVES: Final = 4
"""Label types per label that a judge's suggestion is compared with."""
_UNKNOWN_SCORE: Final = 0.5
"""Score of a label whose word has not arrived."""


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
    ) -> None:
        """Set up the stage; nothing is read yet.

        Args:
            warehouse: holds the labels.
            registry: returns the model in force and fits it where one is due.
            indexing: holds the vectors.
            settings: of the home.
        """
        self._warehouse = warehouse
        self._registry = registry
        self._indexing = indexing
        self._settings = settings

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
        return SimilarWords(self._warehouse, self._indexing.vectors, names, settings)

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
        return self._registry.ensure(self.similar_words, waits, refit=refit)

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
            return SimilarityScorer(
                self._warehouse,
                self.similar_words(),
                model,
                self._settings.similarity,
                self._settings.triage,
            )

        yield from run_stage(
            self._warehouse,
            self.definition(),
            partitions,
            lambda chunk: scorer().score(chunk),
            options,
            labels=labels,
        )


class SimilarityScorer:
    """Scores chunks of merchants: votes of similar words, then the model in force."""

    def __init__(
        self,
        warehouse: Warehouse,
        similar_words: SimilarWords,
        model: tuple[str, FittedModel | None],
        settings: SimilaritySettings,
        triage: TriageSettings,
    ) -> None:
        """Set up the scoring of a run.

        Args:
            warehouse: holds the labels.
            similar_words: gathers the votes of similar words.
            model: version and model, which is None where similar words alone are to decide.
            settings: of similarity.
            triage: of triage.
        """
        self._warehouse = warehouse
        self._similar_words = similar_words
        self._version, self._model = model
        self._settings = settings
        self._triage = triage

    def score(self, chunk: Chunk) -> ChunkRows:
        """Score all labels of the chunk's merchants and keep those of its partitions."""
        labels, page, fingerprints = self._warehouse.read(lambda con: self._read(con, chunk))
        rows = self._score(labels, page)

        def write(con: duckdb.DuckDBPyConnection) -> None:
            con.register("chunk", chunk.table())
            con.register("scored", rows)
            wanted = con.execute(
                "SELECT * FROM scored SEMI JOIN chunk USING (label_type, merchant_key)"
            ).to_arrow_table()
            replace_partitions(con, ASSET, chunk.table(), wanted)

        return ChunkRows(fingerprints, write)

    def _read(
        self, con: duckdb.DuckDBPyConnection, chunk: Chunk
    ) -> tuple[pa.Table, Page | None, dict[str, str]]:
        label_types = self._similar_words.label_types
        fingerprints = merchant_fingerprints(con, chunk.merchants)
        if self._model is None:
            return read_merchant_labels(con, chunk.merchants, label_types), None, fingerprints
        return *read_labels_with_pages(con, chunk.merchants, label_types), fingerprints

    def _score(self, labels: pa.Table, page: Page | None) -> pa.Table:
        votes, known = self._similar_words.votes(labels)
        columns = _unknown_columns(labels["validation_status"].to_pylist())
        scored = labels.filter(pa.array(known))
        if scored.num_rows:
            scores = self._scores(scored, page, votes)
            kinds = label_type_columns(scored, self._similar_words.label_types)
            for name, values in self._columns(votes, scores, kinds).items():
                columns[name][known] = values
        table = labels.select(LABEL_KEY)
        table = table.append_column("label_type", labels["label"])
        table = table.append_column("merchant_key", labels["merchant_key"])
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values, from_pandas=True))
        scorer = self._settings.scorer
        if scorer == "model" and self._model is None:
            scorer = "evidence"
        for name, value in (("scorer", scorer), ("model_version", self._version)):
            table = table.append_column(name, pa.array([value] * labels.num_rows, pa.string()))
        return table

    def _scores(self, labels: pa.Table, page: Page | None, votes: Votes) -> Scores:
        if self._model is None or page is None:
            return score_labels(votes, labels["validation_status"].to_pylist(), self._settings)
        located = locate_labels(
            labels, page, self._similar_words.label_types, votes.type_probability
        )
        return score_in_parts(self._model, located, votes, self._triage)

    def _columns(self, votes: Votes, scores: Scores, kinds: Ints) -> dict[str, npt.NDArray[Any]]:
        names = np.array(self._similar_words.label_types, dtype=object)
        nearest, ids = votes.corpus_nearest, self._similar_words.corpus.document_ids
        every, probability = np.arange(len(kinds)), scores.type_probability
        return {
            "n_matches": votes.n_matches,
            "best_similarity": _rounded(votes.best_similarity),
            "mean_similarity": _rounded(votes.mean_similarity),
            "outlier_score": scores.outlier_score,
            "score_without_status": scores.without_status,
            "triage": scores.triage.astype(object),
            "looks_right": scores.looks_right,
            "unknown_because": scores.unknown_because,
            "valid_matches": votes.valid_matches,
            "label_probability": _rounded(probability[every, kinds]),
            "competing_label": names[scores.competing_type],
            "competing_probability": _rounded(probability[every, scores.competing_type]),
            "alternatives": _alternatives(probability, names),
            "merchant_for": _rounded(votes.merchant_for),
            "merchant_against": _rounded(votes.merchant_against),
            "corpus_for": _rounded(votes.corpus_for),
            "corpus_against": _rounded(votes.corpus_against),
            "own_similarity": _rounded(votes.own_similarity),
            "corpus_similarity": _rounded(votes.corpus_similarity),
            "nearest_document": np.array(
                [ids[row] if row >= 0 else None for row in nearest.tolist()], dtype=object
            ),
            "no_label": scores.no_label.astype(object),
            "contributions": _contributions(scores),
        }


def _contributions(scores: Scores) -> npt.NDArray[np.object_]:
    """Render the log odds by group against the labels of which something is known as JSON."""
    if scores.contributions is None:
        return np.full(len(scores.outlier_score), None, dtype=object)
    return np.array(
        [
            None if unknown else json.dumps(dict(zip(EVIDENCE_GROUPS, row, strict=True)))
            for row, unknown in zip(
                np.round(scores.contributions, 2).tolist(), scores.unknown_because, strict=True
            )
        ],
        dtype=object,
    )


def _unknown_columns(statuses: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Make the columns of n labels with these statuses whose words have not arrived."""
    n = len(statuses)
    rejected = np.array([status == Status.INVALID for status in statuses], dtype=bool)
    zero = [
        "best_similarity",
        "mean_similarity",
        "merchant_for",
        "merchant_against",
        "corpus_for",
        "corpus_against",
        "own_similarity",
        "corpus_similarity",
    ]
    columns: dict[str, npt.NDArray[Any]] = {name: np.zeros(n) for name in zero}
    columns["n_matches"] = np.zeros(n, dtype=np.int64)
    columns["valid_matches"] = np.zeros(n, dtype=np.int64)
    columns["outlier_score"] = np.full(n, _UNKNOWN_SCORE)
    columns["score_without_status"] = np.full(n, _UNKNOWN_SCORE)
    columns["triage"] = np.where(rejected, "outlier", "ambiguous").astype(object)
    columns["unknown_because"] = np.full(n, NO_WORD, dtype=object)
    columns["looks_right"] = rejected_but_right(rejected, np.zeros(n, dtype=bool))
    columns["label_probability"] = np.zeros(n)
    columns["competing_probability"] = np.zeros(n)
    columns["competing_label"] = np.full(n, None, dtype=object)
    columns["nearest_document"] = np.full(n, None, dtype=object)
    columns["alternatives"] = np.full(n, None, dtype=object)
    columns["no_label"] = np.full(n, False, dtype=object)
    columns["contributions"] = np.full(n, None, dtype=object)
    return columns


def _alternatives(
    probability: npt.NDArray[np.float64], names: npt.NDArray[np.object_]
) -> npt.NDArray[np.object_]:
    """Render the most probable label types of each label as JSON, the most probable first."""
    order = np.argsort(-probability, axis=1, kind="stable")[:, :_ALTERNATIVES]
    values = np.round(np.take_along_axis(probability, order, axis=1), 3).tolist()
    return np.array(
        [
            json.dumps(dict(zip(row, chances, strict=True)))
            for row, chances in zip(names[order].tolist(), values, strict=True)
        ],
        dtype=object,
    )


def _rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.round(values, DECIMALS)
