"""The `outliers` stage: flagged and unresolved labels, each with its reason.

Labels that a person has rejected are neither: they are in the view `rejected_labels`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.decide.examples import find_examples
from harmonizer_assets.core.decide.explain import Facts, Piece, explain, pieces_as_data, reasoning
from harmonizer_assets.core.decide.facts import FactFinder, Lines, read_profile
from harmonizer_assets.core.judge import USAGE_METRICS
from harmonizer_assets.core.records.label import word_key
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import PartitionResult
from harmonizer_assets.core.stages.run import LABELS_PER_LARGE_CHUNK, run_stage
from harmonizer_assets.core.stages.stage import Chunk, ChunkRows, Stage
from harmonizer_assets.core.stages.state import LabelState, merchant_fingerprints
from harmonizer_assets.core.store.warehouse import Warehouse, replace_partitions

ASSET: Final = "outliers"
OUTLIERS_VERSION: Final = "3"

_OUTCOMES = """
SELECT label_type, merchant_key, CASE WHEN is_outlier THEN 'outlier' ELSE 'unresolved' END, count(*)
FROM outliers SEMI JOIN chunk USING (label_type, merchant_key) GROUP BY ALL
"""

_WORST = """
SELECT o.label_type, o.merchant_key, o.word_text, o.outlier_score, o.suggested_label, o.decided_by,
    o.reasoning, o.line, o.image_id, o.receipt_id, o.line_id, o.word_id
FROM outliers o SEMI JOIN chunk USING (label_type, merchant_key)
WHERE o.is_outlier
QUALIFY row_number() OVER (PARTITION BY o.label_type, o.merchant_key
    ORDER BY o.outlier_score DESC, o.image_id, o.receipt_id, o.line_id, o.word_id) <= {limit}
ORDER BY o.outlier_score DESC, o.image_id, o.receipt_id, o.line_id, o.word_id
"""

_OUTLIERS = """
SELECT d.image_id, d.receipt_id, d.line_id, d.word_id, d.label, d.label_type, d.merchant_key,
    d.merchant_name, d.word_text, d.outlier_score, d.decided_by, d.is_outlier, d.suggested_label,
    d.confidence, d.validation_status, d.reasoning AS said, s.competing_label,
    coalesce(s.no_label, false) AS no_label, s.contributions,
    CASE
        WHEN s.scorer = 'count_rule' THEN
            format('{} VALID labels of this type at similarity {:.2f} or above in the merchant',
                s.valid_matches, $match_threshold)
        WHEN s.triage = 'outlier' THEN
            format('similar words are {} with probability {:.2f}, {} with {:.2f}',
                s.competing_label, s.competing_probability, d.label_type, s.label_probability)
        ELSE 'not scored yet' END AS scored
FROM standing_decisions d
SEMI JOIN chunk USING (label_type, merchant_key)
LEFT JOIN similarity_matches s
    USING (image_id, receipt_id, line_id, word_id, label_type, merchant_key)
WHERE d.is_outlier IS DISTINCT FROM false
ORDER BY d.merchant_key, d.label_type, d.image_id, d.receipt_id, d.line_id, d.word_id
"""

_OWN_WORDS: Final = frozenset({"llm", "cache", "rule"})
"""Deciders that give a reason of their own, which comes first."""


def outlier_stage(verdicts: Stage) -> Stage:
    """Describe the stage, whose rows depend on the scores and verdicts."""
    return Stage(
        ASSET,
        f"{OUTLIERS_VERSION}\n{verdicts.identity}",
        _OUTCOMES,
        _WORST,
        upstream=("similarity_matches", "llm_verdicts"),
        metrics=USAGE_METRICS,
    )


class DecideStage:
    """Computes `outliers`: flagged and unresolved labels, each with its reason."""

    def __init__(
        self, warehouse: Warehouse, label_types: Sequence[str], match_threshold: float
    ) -> None:
        self._warehouse = warehouse
        self._label_types = label_types
        self._match_threshold = match_threshold

    def run(
        self,
        definition: Stage,
        partitions: Sequence[PartitionKey],
        options: RunOptions,
        labels: LabelState | None = None,
    ) -> Iterator[PartitionResult]:
        """Write the outliers of partitions; yield each once its rows are committed."""
        publishing = OutlierPublishing(self._warehouse, self._label_types, self._match_threshold)
        yield from run_stage(
            self._warehouse,
            definition,
            partitions,
            publishing.publish,
            options,
            labels=labels,
            labels_per_chunk=LABELS_PER_LARGE_CHUNK,
        )


class OutlierPublishing:
    """Writes the outlier rows of chunks from their decisions, each with its explanation."""

    def __init__(
        self, warehouse: Warehouse, label_types: Sequence[str], match_threshold: float
    ) -> None:
        self._warehouse = warehouse
        self._label_types = label_types
        self._match_threshold = match_threshold

    @cached_property
    def _finder(self) -> FactFinder:
        return FactFinder(self._warehouse.read(read_profile), self._label_types)

    def publish(self, chunk: Chunk) -> ChunkRows:
        """Select the chunk's flagged and unresolved labels and explain them."""
        finder = self._finder

        def read(con: duckdb.DuckDBPyConnection) -> tuple[pa.Table, dict[str, str]]:
            con.register("chunk", chunk.table())
            found = con.execute(_OUTLIERS, {"match_threshold": self._match_threshold})
            rows = self._explained(con, found.to_arrow_table(), finder)
            return rows, merchant_fingerprints(con, chunk.merchants)

        rows, fingerprints = self._warehouse.read(read)

        def write(con: duckdb.DuckDBPyConnection) -> None:
            replace_partitions(con, ASSET, chunk.table(), rows)

        return ChunkRows(fingerprints, write)

    def _explained(
        self, con: duckdb.DuckDBPyConnection, rows: pa.Table, finder: FactFinder
    ) -> pa.Table:
        lines = Lines.read(con, rows, self._label_types)
        facts = finder.find(con, rows, lines)
        examples = find_examples(con, rows, self._label_types)
        columns: dict[str, list[str | None]] = {
            name: [] for name in ("reasoning", "line", "evidence", "examples")
        }
        for row, known, alike in zip(rows.to_pylist(), facts, examples, strict=True):
            word = lines.number(word_key(row))
            pieces = [] if known is None else explain(known)
            columns["line"].append(None if word is None else lines.line(word).to_text())
            columns["evidence"].append(_json(pieces_as_data(pieces)))
            columns["examples"].append(_json(alike))
            columns["reasoning"].append(_reasoning(row, known, pieces))
        kept = rows.drop_columns(["said", "scored", "competing_label", "no_label", "contributions"])
        for name, values in columns.items():
            kept = kept.append_column(name, pa.array(values, pa.string()))
        return kept


def _reasoning(row: Mapping[str, Any], facts: Facts | None, pieces: Sequence[Piece]) -> str:
    said: str | None = row["said"]
    if facts is None:
        return said or str(row["scored"])
    if row["decided_by"] in _OWN_WORDS:
        return reasoning(facts, pieces, said)
    if row["is_outlier"] is None:
        return f"undecided ({said or 'not judged yet'}); {reasoning(facts, pieces)}"
    return reasoning(facts, pieces)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
