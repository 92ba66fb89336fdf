"""The `similarity_matches` stage: evidence, outlier score and triage of every label."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.evidence import (
    Corpus,
    Evidence,
    ExactSearch,
    IndexSearch,
    Ints,
    MerchantLabels,
    gather_evidence,
    status_votes,
)
from harmonizer_assets.core.scoring import SCORER_VERSION, Scores, score_labels
from harmonizer_assets.core.settings import SimilaritySettings
from harmonizer_assets.core.stages import (
    Chunk,
    ChunkRows,
    Stage,
    merchant_fingerprints,
    partition_table,
)
from harmonizer_assets.core.vector_index import VectorIndex
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

_CORPUS_COUNTS = """
SELECT d.document_id, l.label, l.validation_status, count(*) AS n
FROM labels l JOIN word_documents d USING (image_id, receipt_id, line_id, word_id)
GROUP BY ALL ORDER BY ALL
"""

_CHUNK_LABELS = """
SELECT l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, l.validation_status,
    l.merchant_key, d.document_id,
    dense_rank() OVER (PARTITION BY l.merchant_key ORDER BY l.image_id, l.receipt_id) AS receipt
FROM labels l LEFT JOIN word_documents d USING (image_id, receipt_id, line_id, word_id)
WHERE l.merchant_key IN (SELECT unnest($merchants::VARCHAR[]))
    AND l.label IN (SELECT unnest($label_types::VARCHAR[]))
ORDER BY l.merchant_key, l.image_id, l.receipt_id, l.line_id, l.word_id, l.label
"""

_ALTERNATIVES: Final = 4
"""Label types per label that a judge's suggestion is compared with."""
_UNKNOWN_SCORE: Final = 0.5
"""Score of a label whose word is not known: nothing speaks for or against it."""


def similarity_stage(identity: str) -> Stage:
    """The stage; `identity` names taxonomy, documents, embedder and settings."""
    return Stage(
        ASSET, f"{SCORER_VERSION}\n{identity}", _OUTCOMES, _WORST, ("llm_verdicts", "outliers")
    )


class SimilarityScorer:
    """Scores chunks of merchants against one corpus.

    The corpus is read once: votes of all labels from the database, and, while the corpus is small,
    all vectors from Chroma. Larger corpora are searched through Chroma's index chunk by chunk.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        index: VectorIndex,
        label_types: Sequence[str],
        settings: SimilaritySettings,
    ) -> None:
        self._warehouse = warehouse
        self._index = index
        self._label_types = tuple(label_types)
        self._settings = settings
        self._load_corpus()

    def _load_corpus(self) -> None:
        counts = self._warehouse.query(_CORPUS_COUNTS)
        self._corpus = Corpus.from_counts(counts, self._label_types)
        n, k = len(self._corpus.document_ids), self._settings.neighbours
        self._vectors: npt.NDArray[np.float32] | None = None
        self._search: ExactSearch | IndexSearch = IndexSearch(n, k)
        if n <= self._settings.exact_search_limit:
            with self._index.session() as session:
                self._vectors = session.vectors(self._corpus.document_ids.tolist())
            self._search = ExactSearch(self._vectors, k)

    def score(self, chunk: Chunk) -> ChunkRows:
        """Score all labels of the chunk's merchants and keep those of its partitions."""
        labels, fingerprints = self._warehouse.read(lambda con: self._read(con, chunk))
        ids = np.array([id_ or "" for id_ in labels["document_id"].to_pylist()], dtype="<U32")
        document = self._corpus.rows(ids)
        if ((document < 0) & (ids != "")).any():
            # Another run has added documents since the corpus was read.
            self._load_corpus()
            document = self._corpus.rows(ids)
        distinct = np.unique(document[document >= 0])
        vectors = self._fetch(distinct)
        parts = [
            self._score_merchant(
                labels.slice(first, length), document[first : first + length], vectors, distinct
            )
            for first, length in _runs(labels["merchant_key"])
        ]
        rows = pa.concat_tables(parts) if parts else partition_table([])

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
    ) -> tuple[pa.Table, dict[str, str]]:
        labels = con.execute(
            _CHUNK_LABELS, {"merchants": chunk.merchants, "label_types": list(self._label_types)}
        ).to_arrow_table()
        return labels, merchant_fingerprints(con, chunk.merchants)

    def _fetch(self, documents: Ints) -> npt.NDArray[np.float32]:
        """The vectors of these corpus rows; has the search know their neighbours."""
        if self._vectors is not None:
            return self._vectors[documents]
        ids = self._corpus.document_ids
        with self._index.session() as session:
            vectors = session.vectors(ids[documents].tolist())
            if isinstance(self._search, IndexSearch):
                asked = self._search.unknown(documents)
                found = session.nearest(
                    vectors[np.searchsorted(documents, asked)], self._settings.neighbours
                )
                self._search.learn(asked, self._corpus.rows(found.ids), found.similarities)
        return vectors

    def _score_merchant(
        self,
        labels: pa.Table,
        document: Ints,
        vectors: npt.NDArray[np.float32],
        distinct: Ints,
    ) -> pa.Table:
        statuses = labels["validation_status"].to_pylist()
        known = document >= 0
        columns = _unknown_columns(labels.num_rows)
        if known.any():
            column_of = {name: column for column, name in enumerate(self._label_types)}
            label_type = np.array([column_of[name] for name in labels["label"].to_pylist()])
            merchant = MerchantLabels(
                document=document[known],
                label_type=label_type[known],
                vote=status_votes(statuses)[known],
                valid=np.array([status == "VALID" for status in statuses])[known],
                receipt=labels["receipt"].to_numpy()[known],
            )
            documents = np.unique(merchant.document)
            evidence = gather_evidence(
                merchant,
                documents,
                vectors[np.searchsorted(distinct, documents)],
                self._corpus,
                self._search,
                self._settings,
            )
            of_known = [
                status for status, is_known in zip(statuses, known, strict=True) if is_known
            ]
            scores = score_labels(evidence, of_known, self._settings)
            for name, values in self._columns(evidence, scores).items():
                columns[name][known] = values
        table = labels.select(["image_id", "receipt_id", "line_id", "word_id", "label"])
        table = table.append_column("label_type", labels["label"])
        table = table.append_column("merchant_key", labels["merchant_key"])
        for name, values in columns.items():
            array = pa.array(values, from_pandas=True)
            table = table.append_column(name, array)
        scorer = pa.array([self._settings.scorer] * labels.num_rows, pa.string())
        return table.append_column("scorer", scorer)

    def _columns(self, evidence: Evidence, scores: Scores) -> dict[str, npt.NDArray[Any]]:
        names = np.array(self._label_types, dtype=object)
        nearest, ids = evidence.corpus_nearest, self._corpus.document_ids
        return {
            "n_matches": evidence.n_matches,
            "best_similarity": _rounded(evidence.best_similarity),
            "mean_similarity": _rounded(evidence.mean_similarity),
            "outlier_score": scores.outlier_score,
            "triage": scores.triage.astype(object),
            "valid_matches": evidence.valid_matches,
            "label_probability": _rounded(evidence.label_probability),
            "competing_label": names[evidence.competing_type],
            "competing_probability": _rounded(evidence.competing_probability),
            "alternatives": _alternatives(evidence.type_probability, names),
            "merchant_for": _rounded(evidence.merchant_for),
            "merchant_against": _rounded(evidence.merchant_against),
            "corpus_for": _rounded(evidence.corpus_for),
            "corpus_against": _rounded(evidence.corpus_against),
            "own_similarity": _rounded(evidence.own_similarity),
            "corpus_similarity": _rounded(evidence.corpus_similarity),
            "nearest_document": np.array(
                [ids[row] if row >= 0 else None for row in nearest.tolist()], dtype=object
            ),
        }


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
    # The last bits of a matrix product depend on the processor; six decimals do not.
    return np.round(values, 6)


def _runs(keys: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    """Start and length of each run of equal keys in a sorted column."""
    encoded = keys.combine_chunks().dictionary_encode().indices.to_numpy()
    if len(encoded):
        starts = np.flatnonzero(np.diff(encoded, prepend=-1))
        yield from zip(starts.tolist(), np.diff(starts, append=len(encoded)).tolist(), strict=True)
