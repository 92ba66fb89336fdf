"""Questions: the labels that a judge is asked about, with what is known about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import duckdb

from harmonizer_assets.core.judge import LabelKey, Question
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.stages import Chunk, merchant_fingerprints

_QUESTIONS: Final = """
SELECT s.image_id, s.receipt_id, s.line_id, s.word_id, s.label, s.merchant_key,
    l.merchant_name, w.text AS word_text, s.outlier_score, s.label_probability, s.competing_label,
    s.competing_probability,
    s.merchant_for + s.merchant_against + s.corpus_for + s.corpus_against AS support,
    s.scorer = 'model' AS calibrated,
    coalesce(d.left_context, '') AS "left", coalesce(d.right_context, '') AS "right",
    (d.row_bin + 0.5) / 8 AS height, s.alternatives
FROM similarity_matches s SEMI JOIN chunk USING (label_type, merchant_key)
JOIN labels l USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
LEFT JOIN words w USING (image_id, receipt_id, line_id, word_id)
LEFT JOIN word_documents wd USING (image_id, receipt_id, line_id, word_id)
LEFT JOIN documents d USING (document_id)
ANTI JOIN rule_decisions USING (image_id, receipt_id, line_id, word_id, label)
WHERE s.triage = 'ambiguous' OR $all
ORDER BY s.merchant_key, s.label, s.image_id, s.receipt_id, s.line_id, s.word_id
"""

_EXAMPLES_PER_TYPE: Final = 5
_EXAMPLES: Final = f"""
WITH texts AS (
    SELECT l.merchant_key, l.label, w.text, count(*) AS uses
    FROM labels l JOIN words w USING (image_id, receipt_id, line_id, word_id)
    WHERE l.validation_status = 'VALID' AND l.merchant_key IN (SELECT merchant_key FROM chunk)
    GROUP BY ALL
)
SELECT merchant_key, label, list(text ORDER BY uses DESC, text)[:{_EXAMPLES_PER_TYPE}]
FROM texts GROUP BY merchant_key, label
"""

_SKIPPED: Final = """
SELECT s.label_type, s.merchant_key,
    count(*) FILTER (WHERE r.rule_id IS NOT NULL OR (s.triage <> 'ambiguous' AND NOT $all))
FROM similarity_matches s SEMI JOIN chunk USING (label_type, merchant_key)
LEFT JOIN rule_decisions r USING (image_id, receipt_id, line_id, word_id, label)
GROUP BY ALL
"""


@dataclass(frozen=True)
class ChunkQuestions:
    """The questions of a chunk.

    Attributes:
        questions: per partition, in the order of the labels' keys; every partition is there.
        without_word: labels whose word has not arrived, per partition; nobody can judge them.
        skipped: labels that similarity or a rule decides, per partition.
        fingerprints: per merchant, read in the same transaction.
    """

    questions: Mapping[PartitionKey, list[Question]]
    without_word: Mapping[PartitionKey, list[LabelKey]]
    skipped: Mapping[PartitionKey, int]
    fingerprints: dict[str, str]


def read_questions(
    con: duckdb.DuckDBPyConnection, chunk: Chunk, *, all_labels: bool = False
) -> ChunkQuestions:
    """Read the questions of a chunk of scored labels.

    Args:
        con: a connection inside a transaction.
        chunk: whose labels.
        all_labels: ask about the labels that similarity has decided, too.
    """
    con.register("chunk", chunk.table())
    examples = {
        (merchant, label_type): tuple(texts)
        for merchant, label_type, texts in con.execute(_EXAMPLES).fetchall()
    }
    questions: dict[PartitionKey, list[Question]] = {key: [] for key in chunk.partitions}
    without_word: dict[PartitionKey, list[LabelKey]] = {key: [] for key in chunk.partitions}
    for row in con.execute(_QUESTIONS, {"all": all_labels}).to_arrow_table().to_pylist():
        key = LabelKey(*(row.pop(name) for name in LabelKey._fields))
        partition = PartitionKey(key.label, row["merchant_key"])
        if row["word_text"] is None:
            without_word[partition].append(key)
            continue
        alternatives = json.loads(row.pop("alternatives") or "{}")
        questions[partition].append(
            Question(
                key,
                **row,
                alternatives=alternatives,
                examples=examples.get((partition.merchant_key, key.label), ()),
                competing_examples=examples.get(
                    (partition.merchant_key, row["competing_label"]), ()
                ),
            )
        )
    skipped = {
        PartitionKey(label_type, merchant): count
        for label_type, merchant, count in con.execute(_SKIPPED, {"all": all_labels}).fetchall()
    }
    return ChunkQuestions(
        questions, without_word, skipped, merchant_fingerprints(con, chunk.merchants)
    )
