"""The `outliers` stage: flagged and unresolved labels, each with its reason."""

from __future__ import annotations

from typing import Final

import duckdb

from harmonizer_assets.core.stages import Chunk, ChunkRows, Stage, merchant_fingerprints
from harmonizer_assets.core.warehouse import Warehouse

ASSET: Final = "outliers"
_VERSION: Final = "1"

_OUTCOMES = """
SELECT label_type, merchant_key, CASE WHEN is_outlier THEN 'outlier' ELSE 'unresolved' END, count(*)
FROM outliers SEMI JOIN chunk USING (label_type, merchant_key) GROUP BY ALL
"""

_WORST = """
SELECT o.label_type, o.merchant_key, o.word_text, o.outlier_score, o.suggested_label, o.decided_by,
    o.reasoning, o.image_id, o.receipt_id, o.line_id, o.word_id
FROM outliers o SEMI JOIN chunk USING (label_type, merchant_key)
WHERE o.is_outlier
QUALIFY row_number() OVER (PARTITION BY o.label_type, o.merchant_key
    ORDER BY o.outlier_score DESC, o.image_id, o.receipt_id, o.line_id, o.word_id) <= {limit}
ORDER BY o.outlier_score DESC, o.image_id, o.receipt_id, o.line_id, o.word_id
"""

_OUTLIERS = """
SELECT d.image_id, d.receipt_id, d.line_id, d.word_id, d.label, d.label_type, d.merchant_key,
    d.merchant_name, d.word_text, d.outlier_score, d.decided_by, d.is_outlier, d.suggested_label,
    d.confidence,
    coalesce(d.reasoning, CASE
        WHEN s.scorer = 'count_rule' THEN
            format('{} VALID labels of this type at similarity {:.2f} or above in the merchant',
                s.valid_matches, $match_threshold)
        WHEN s.triage = 'outlier' THEN
            format('similar words are {} with probability {:.2f}, {} with {:.2f}',
                s.competing_label, s.competing_probability, d.label_type, s.label_probability)
            || CASE d.validation_status
                WHEN 'INVALID' THEN '; its status is INVALID already' ELSE '' END
        ELSE 'not scored yet' END) AS reasoning
FROM label_decisions d
SEMI JOIN chunk USING (label_type, merchant_key)
LEFT JOIN similarity_matches s
    USING (image_id, receipt_id, line_id, word_id, label_type, merchant_key)
WHERE d.is_outlier IS DISTINCT FROM false
ORDER BY d.merchant_key, d.label_type, d.image_id, d.receipt_id, d.line_id, d.word_id
"""


def outlier_stage(verdicts: Stage) -> Stage:
    """The stage: its rows depend on the scores and verdicts."""
    return Stage(ASSET, f"{_VERSION}\n{verdicts.identity}", _OUTCOMES, _WORST)


class OutlierPublishing:
    """Writes the outlier rows of chunks from their decisions."""

    def __init__(self, warehouse: Warehouse, match_threshold: float) -> None:
        self._warehouse = warehouse
        self._match_threshold = match_threshold

    def publish(self, chunk: Chunk) -> ChunkRows:
        """Select the chunk's flagged and unresolved labels."""
        rows, fingerprints = self._warehouse.read(
            lambda con: (
                con.register("chunk", chunk.table())
                .execute(_OUTLIERS, {"match_threshold": self._match_threshold})
                .to_arrow_table(),
                merchant_fingerprints(con, chunk.merchants),
            )
        )

        def write(con: duckdb.DuckDBPyConnection) -> None:
            self._warehouse.replace_partitions(con, ASSET, chunk.table(), rows)

        return ChunkRows(fingerprints, write)
