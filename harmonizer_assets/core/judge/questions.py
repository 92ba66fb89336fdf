"""Questions: the labels that a judge is asked about, with what is known about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    LABEL_KEY,
    WORD_COLUMNS,
    WORD_KEY,
    LabelKey,
    Question,
    qualified,
)
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.stages.stage import Chunk
from harmonizer_assets.core.stages.state import merchant_fingerprints

_QUESTIONS: Final = f"""
WITH merchant_keys AS (SELECT DISTINCT own_key, merchant_key FROM merchant_names),
bought AS (
    SELECT DISTINCT v.label_type, c.merchant_key, v.word_text
    FROM llm_verdicts v LEFT JOIN merchant_keys k ON k.own_key = v.merchant_key
    JOIN chunk c ON c.label_type = v.label_type
        AND c.merchant_key = coalesce(k.merchant_key, v.merchant_key)
    WHERE $bought
)
SELECT {qualified("s", LABEL_KEY)}, s.merchant_key,
    coalesce(n.merchant, l.merchant_name) AS merchant_name, w.text AS word_text, s.outlier_score,
    s.label_probability, s.competing_label,
    s.competing_probability,
    s.unknown_because, s.scorer = 'model' AS calibrated,
    coalesce(d.left_context, '') AS "left", coalesce(d.right_context, '') AS "right",
    (d.row_bin + 0.5) / 8 AS height, s.alternatives,
    s.triage = 'ambiguous' OR $all OR ($free AND s.triage = 'unasked') AS is_open,
    b.word_text IS NOT NULL OR c.verdict_key IS NOT NULL AS is_bought,
    c.verdict_key AS carried_answer
FROM similarity_matches s SEMI JOIN chunk USING (label_type, merchant_key)
JOIN labels l USING ({LABEL_COLUMNS}, merchant_key)
LEFT JOIN words w USING ({WORD_COLUMNS})
LEFT JOIN word_documents wd USING ({WORD_COLUMNS})
LEFT JOIN documents d USING (document_id)
LEFT JOIN merchant_names n ON n.name = l.merchant_name
LEFT JOIN carried_answers c USING ({LABEL_COLUMNS})
LEFT JOIN bought b ON (b.label_type, b.merchant_key, b.word_text)
    = (s.label_type, s.merchant_key, w.text)
ANTI JOIN rule_decisions USING ({LABEL_COLUMNS})
WHERE (s.triage = 'ambiguous' OR $all OR ($free AND s.triage = 'unasked')
        OR b.word_text IS NOT NULL
        OR ($bought AND c.verdict_key IS NOT NULL))
    AND l.validation_status <> 'INVALID'
ORDER BY s.merchant_key, s.label, {qualified("s", WORD_KEY)}
"""

_EXAMPLES_PER_TYPE: Final = 5
_EXAMPLES: Final = f"""
WITH texts AS (
    SELECT l.merchant_key, l.label, w.text, count(*) AS uses
    FROM labels l JOIN words w USING ({WORD_COLUMNS})
    WHERE l.validation_status = 'VALID' AND l.merchant_key IN (SELECT merchant_key FROM chunk)
    GROUP BY ALL
)
SELECT merchant_key, label, list(text ORDER BY uses DESC, text)[:{_EXAMPLES_PER_TYPE}]
FROM texts GROUP BY merchant_key, label
"""

_SKIPPED: Final = f"""
SELECT s.label_type, s.merchant_key,
    count(*) FILTER (WHERE r.rule_id IS NOT NULL OR s.looks_right IS NOT NULL
        OR (s.triage NOT IN ('ambiguous', 'unasked') AND NOT $all))
FROM similarity_matches s SEMI JOIN chunk USING (label_type, merchant_key)
LEFT JOIN rule_decisions r USING ({LABEL_COLUMNS})
GROUP BY ALL
"""

_UNASKED: Final = f"""
SELECT {qualified("s", LABEL_KEY)}, s.merchant_key
FROM similarity_matches s SEMI JOIN chunk USING (label_type, merchant_key)
ANTI JOIN rule_decisions USING ({LABEL_COLUMNS})
WHERE s.triage = 'unasked'
"""


@dataclass(frozen=True)
class ChunkQuestions:
    """The questions of a chunk.

    Attributes:
        questions: per partition, in the order of the labels' keys; every partition is there.
        without_word: labels whose word has not arrived, per partition; they cannot be judged.
        unasked: labels that are not worth a question, per partition; those with a question that an
            answer may have been bought to are among them.
        skipped: labels that similarity, a rule or a person's rejection decides, per partition;
            questions about labels that are not open are among them.
        fingerprints: per merchant, read in the same transaction.
    """

    questions: Mapping[PartitionKey, list[Question]]
    without_word: Mapping[PartitionKey, list[LabelKey]]
    unasked: Mapping[PartitionKey, set[LabelKey]]
    skipped: Mapping[PartitionKey, int]
    fingerprints: dict[str, str]


def read_questions(
    con: duckdb.DuckDBPyConnection,
    chunk: Chunk,
    *,
    all_labels: bool = False,
    bought: bool = False,
    free: bool = False,
) -> ChunkQuestions:
    """Read the questions of a chunk of scored labels.

    Args:
        con: a connection inside a transaction.
        chunk: whose labels.
        all_labels: ask about the labels that similarity has decided, too; never about those that
            a person has rejected.
        bought: include those that an answer may have been bought about, open or not.
        free: questions cost nothing, so that none is left unasked.
    """
    con.register("chunk", chunk.table())
    examples = {
        (merchant, label_type): tuple(texts)
        for merchant, label_type, texts in con.execute(_EXAMPLES).fetchall()
    }
    questions: dict[PartitionKey, list[Question]] = {key: [] for key in chunk.partitions}
    without_word: dict[PartitionKey, list[LabelKey]] = {key: [] for key in chunk.partitions}
    for row in _rows(con, all_labels, bought, free):
        key = LabelKey(*(row.pop(name) for name in LABEL_KEY))
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
    unasked: dict[PartitionKey, set[LabelKey]] = {key: set() for key in chunk.partitions}
    if not (all_labels or free):
        for *values, merchant in con.execute(_UNASKED).fetchall():
            label = LabelKey(*values)
            unasked[PartitionKey(label.label, merchant)].add(label)
    fingerprints = merchant_fingerprints(con, chunk.merchants)
    return ChunkQuestions(questions, without_word, unasked, skipped, fingerprints)


def _rows(
    con: duckdb.DuckDBPyConnection, all_labels: bool, bought: bool, free: bool
) -> list[dict[str, Any]]:
    parameters = {"all": all_labels, "bought": bought, "free": free}
    return con.execute(_QUESTIONS, parameters).to_arrow_table().to_pylist()
