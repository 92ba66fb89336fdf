"""The `similarity_matches` stage: evidence, outlier score and triage of every label."""

from __future__ import annotations

import json
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.evidence import Evidence, Ints
from harmonizer_assets.core.fitting import FittedModel, locate_labels, read_labels_with_pages
from harmonizer_assets.core.pages import Page
from harmonizer_assets.core.scoring import (
    DECIMALS,
    SCORER_VERSION,
    Scores,
    score_labels,
    score_with_model,
)
from harmonizer_assets.core.settings import SimilaritySettings, TriageSettings
from harmonizer_assets.core.similar_words import (
    SimilarWords,
    label_type_columns,
    read_merchant_labels,
)
from harmonizer_assets.core.stages import Chunk, ChunkRows, Stage, merchant_fingerprints
from harmonizer_assets.core.suspicion import EVIDENCE_GROUPS
from harmonizer_assets.core.warehouse import Warehouse

ASSET: Final = "similarity_matches"

_OUTCOMES = """
SELECT label_type, merchant_key, triage, count(*)
FROM similarity_matches SEMI JOIN chunk USING (label_type, merchant_key) GROUP BY ALL
"""

_WORST = """
SELECT s.label_type, s.merchant_key, w.text AS word_text, s.outlier_score,
    s.competing_label AS suggested_label, s.image_id, s.receipt_id, s.line_id, s.word_id
FROM similarity_matches s SEMI JOIN chunk USING (label_type, merchant_key)
JOIN words w USING (image_id, receipt_id, line_id, word_id)
WHERE s.triage <> 'valid'
QUALIFY row_number() OVER (PARTITION BY s.label_type, s.merchant_key
    ORDER BY s.outlier_score DESC, s.image_id, s.receipt_id, s.line_id, s.word_id) <= {limit}
ORDER BY s.outlier_score DESC, s.image_id, s.receipt_id, s.line_id, s.word_id
"""

_ALTERNATIVES: Final = 4
"""Label types per label that a judge's suggestion is compared with."""
_UNKNOWN_SCORE: Final = 0.5
"""Score of a label whose word is not known: nothing speaks for or against it."""


def similarity_stage(identity: str) -> Stage:
    """The stage; `identity` names taxonomy, documents, embedder and settings."""
    return Stage(
        ASSET,
        f"{SCORER_VERSION}\n{identity}",
        _OUTCOMES,
        _WORST,
        downstream=("llm_verdicts", "outliers"),
    )


class SimilarityScorer:
    """Scores chunks of merchants: evidence of similar words, then the model in force."""

    def __init__(
        self,
        warehouse: Warehouse,
        similar_words: SimilarWords,
        model: tuple[str, FittedModel | None],
        settings: SimilaritySettings,
        triage: TriageSettings,
    ) -> None:
        """Have all that scoring needs.

        Args:
            warehouse: holds the labels.
            similar_words: gathers the evidence of similar words.
            model: version and model, which is None where similar words alone are to judge.
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
            self._warehouse.replace_partitions(con, ASSET, chunk.table(), wanted)

        return ChunkRows(fingerprints, write)

    def _read(
        self, con: duckdb.DuckDBPyConnection, chunk: Chunk
    ) -> tuple[pa.Table, Page | None, dict[str, str]]:
        label_types = self._similar_words.label_types
        prints = merchant_fingerprints(con, chunk.merchants)
        if self._model is None:
            return read_merchant_labels(con, chunk.merchants, label_types), None, prints
        return *read_labels_with_pages(con, chunk.merchants, label_types), prints

    def _score(self, labels: pa.Table, page: Page | None) -> pa.Table:
        evidence, known = self._similar_words.evidence(labels)
        columns = _unknown_columns(labels.num_rows)
        scored = labels.filter(pa.array(known))
        if scored.num_rows:
            scores = self._scores(scored, page, evidence)
            kinds = label_type_columns(scored, self._similar_words.label_types)
            for name, values in self._columns(evidence, scores, kinds).items():
                columns[name][known] = values
        table = labels.select(["image_id", "receipt_id", "line_id", "word_id", "label"])
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

    def _scores(self, labels: pa.Table, page: Page | None, evidence: Evidence) -> Scores:
        if self._model is None or page is None:
            return score_labels(evidence, labels["validation_status"].to_pylist(), self._settings)
        located = locate_labels(
            labels, page, self._similar_words.label_types, evidence.type_probability
        )
        return score_with_model(self._model, located, self._triage)

    def _columns(
        self, evidence: Evidence, scores: Scores, kinds: Ints
    ) -> dict[str, npt.NDArray[Any]]:
        names = np.array(self._similar_words.label_types, dtype=object)
        nearest, ids = evidence.corpus_nearest, self._similar_words.corpus.document_ids
        every, probability = np.arange(len(kinds)), scores.type_probability
        return {
            "n_matches": evidence.n_matches,
            "best_similarity": _rounded(evidence.best_similarity),
            "mean_similarity": _rounded(evidence.mean_similarity),
            "outlier_score": scores.outlier_score,
            "triage": scores.triage.astype(object),
            "valid_matches": evidence.valid_matches,
            "label_probability": _rounded(probability[every, kinds]),
            "competing_label": names[scores.competing_type],
            "competing_probability": _rounded(probability[every, scores.competing_type]),
            "alternatives": _alternatives(probability, names),
            "merchant_for": _rounded(evidence.merchant_for),
            "merchant_against": _rounded(evidence.merchant_against),
            "corpus_for": _rounded(evidence.corpus_for),
            "corpus_against": _rounded(evidence.corpus_against),
            "own_similarity": _rounded(evidence.own_similarity),
            "corpus_similarity": _rounded(evidence.corpus_similarity),
            "nearest_document": np.array(
                [ids[row] if row >= 0 else None for row in nearest.tolist()], dtype=object
            ),
            "no_label": scores.no_label.astype(object),
            "contributions": _contributions(scores),
        }


def _contributions(scores: Scores) -> npt.NDArray[np.object_]:
    """Per label the log odds against it by group of evidence, as JSON."""
    if scores.contributions is None:
        return np.full(len(scores.outlier_score), None, dtype=object)
    return np.array(
        [
            json.dumps(dict(zip(EVIDENCE_GROUPS, row, strict=True)))
            for row in np.round(scores.contributions, 2).tolist()
        ],
        dtype=object,
    )


def _unknown_columns(n: int) -> dict[str, npt.NDArray[Any]]:
    """Columns of n labels whose words are not known."""
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
    columns["triage"] = np.full(n, "ambiguous", dtype=object)
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
    """The most probable label types of each label, as JSON, the most probable first."""
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
