"""Queries of the tables: counts, usage, the worst outliers, failures."""

from __future__ import annotations

from typing import Any, Final

from harmonizer_assets.core.records.label import WORD_COLUMNS
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import Counts, PartitionFailure
from harmonizer_assets.core.store.warehouse import Warehouse

_COUNTS: Final = """
SELECT
    (SELECT count(*) FROM labels) AS labels,
    decided.*,
    (SELECT count(*) FROM rejected_labels WHERE looks_right) AS rejected_look_right,
    (SELECT count(*) FROM dead_letters) AS dead_letters,
    (SELECT count(*) FROM quarantine) AS quarantined,
    (SELECT count(*) FROM batches) AS batches,
    (SELECT count(*) FROM label_partitions) AS partitions,
    (SELECT count(DISTINCT merchant_key) FROM labels) AS merchants,
    (SELECT count(*) FROM merchant_alarms) AS merchant_alarms,
    (SELECT count(*) FROM receipt_alarms) AS receipt_alarms,
    (SELECT count(*) FROM label_patterns) AS patterns,
    (SELECT count(*) FROM missing_labels) AS missing_labels
FROM (
    SELECT count(*) FILTER (NOT is_outlier AND stands) AS valid,
        count(*) FILTER (is_outlier AND stands) AS outliers,
        count(*) FILTER (is_outlier IS NULL AND stands) AS unresolved,
        count(*) FILTER (NOT stands) AS rejected
    FROM (SELECT is_outlier, validation_status <> 'INVALID' AS stands FROM label_decisions)
) AS decided
"""

_UNINDEXED: Final = f"""
SELECT count(*) AS n
FROM (SELECT DISTINCT {WORD_COLUMNS} FROM labels) l
SEMI JOIN words w USING ({WORD_COLUMNS})
LEFT JOIN word_documents d USING ({WORD_COLUMNS})
LEFT JOIN document_metadata m USING (document_id)
WHERE m.document_id IS NULL
"""

_USAGE: Final = """
SELECT label_type, sum(calls)::BIGINT AS calls, sum(words_asked)::BIGINT AS words_asked,
    sum(cache_hits)::BIGINT AS cache_hits,
    sum(skipped_by_similarity)::BIGINT AS skipped_by_similarity,
    sum(prompt_tokens)::BIGINT AS prompt_tokens,
    sum(completion_tokens)::BIGINT AS completion_tokens,
    CASE WHEN count(*) = count(cost_usd) THEN sum(cost_usd) END AS cost_usd,
    sum(retries)::BIGINT AS retries, sum(rate_limited)::BIGINT AS rate_limited,
    sum(coalesce(estimated_calls, 0))::BIGINT AS estimated_calls
FROM llm_usage WHERE $run_id IS NULL OR run_id = $run_id
GROUP BY label_type ORDER BY cost_usd DESC NULLS LAST, calls DESC, label_type
"""

_WORST: Final = f"""
SELECT label, label_type, merchant_key, merchant_name, word_text, line, reasoning, outlier_score,
    suggested_label, {WORD_COLUMNS}
FROM outliers WHERE is_outlier
ORDER BY outlier_score DESC, {WORD_COLUMNS}, label_type LIMIT $limit
"""

_MERCHANT_NAMES: Final = """
SELECT m.name, m.merchant, m.how, m.since, m.merchant_key, coalesce(l.labels, 0) AS labels
FROM merchant_names m
LEFT JOIN (SELECT merchant_name AS name, count(*) AS labels FROM labels GROUP BY ALL) l USING (name)
ORDER BY m.merchant, m.merchant_key, m.how <> 'itself', m.name
"""
_REJECTED_LOOK_RIGHT: Final = f"""
FROM rejected_labels WHERE looks_right ORDER BY score_without_status, {WORD_COLUMNS}, label
"""

_MISSING: Final = f"""
FROM missing_labels ORDER BY score DESC, {WORD_COLUMNS} LIMIT $limit
"""

_BATCH_JOBS: Final = """
SELECT batch_id, status, words, submitted_at, error FROM llm_batches ORDER BY submitted_at DESC
"""

_COMPUTED: Final = """
SELECT asset, count(*) AS partitions, sum(labels)::BIGINT AS labels
FROM partition_state WHERE run_id = $run_id GROUP BY asset
"""


class Tables:
    """Queries of the tables of one home; each is one short transaction."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def counts(self) -> Counts:
        """Count labels by outcome, and everything else that has a total."""
        return Counts(**self._warehouse.query(_COUNTS).to_pylist()[0])

    def dead_letters(self) -> int:
        """Count the questions that could not be judged after all attempts."""
        return self._number("SELECT count(*) AS n FROM dead_letters")

    def labels(self) -> int:
        """Count the labels."""
        return self._number("SELECT count(*) AS n FROM labels")

    def quarantined(self) -> int:
        """Count the rows and files that could not be used."""
        return self._number("SELECT count(*) AS n FROM quarantine")

    def decided_by(self) -> dict[str, int]:
        """Count the labels by who or what has decided them."""
        rows = self._warehouse.query(
            "SELECT decided_by, count(*) AS n FROM label_decisions GROUP BY ALL ORDER BY ALL"
        ).to_pylist()
        return {row["decided_by"]: row["n"] for row in rows}

    def usage(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """Sum what was used per label type, by one run or by all; most expensive first."""
        return self._warehouse.query(_USAGE, {"run_id": run_id}).to_pylist()

    def computed_by(self, run_id: str) -> dict[str, tuple[int, int]]:
        """Count the partitions and labels that a run has computed, per asset."""
        rows = self._warehouse.query(_COMPUTED, {"run_id": run_id}).to_pylist()
        return {row["asset"]: (row["partitions"], row["labels"]) for row in rows}

    def failures(self, run_id: str | None = None) -> list[PartitionFailure]:
        """List the partitions that could not be computed, by one run or by any; latest first."""
        rows = self._warehouse.query(
            "SELECT * FROM partition_failures WHERE $run_id IS NULL OR run_id = $run_id "
            "ORDER BY failed_at DESC, asset, label_type, merchant_key",
            {"run_id": run_id},
        ).to_pylist()
        return [
            PartitionFailure(
                row["asset"],
                PartitionKey(row["label_type"], row["merchant_key"]),
                row["error"],
                row["traceback"],
                row["run_id"],
                row["failed_at"],
            )
            for row in rows
        ]

    def worst_outliers(self, limit: int) -> list[dict[str, Any]]:
        """List the most suspicious labels of all, with their lines and reasons."""
        return self._warehouse.query(_WORST, {"limit": limit}).to_pylist()

    def rejected_that_look_right(self) -> list[dict[str, Any]]:
        """List the labels that people have rejected and that look right; the surest first."""
        return self._warehouse.query(_REJECTED_LOOK_RIGHT).to_pylist()

    def contradictions(self) -> list[dict[str, Any]]:
        """List equal words that are validated with different label types."""
        return self._warehouse.query(
            "SELECT * FROM label_contradictions "
            "ORDER BY n_a + n_b DESC, sentence, merchant_key, document_id"
        ).to_pylist()

    def patterns(self) -> list[dict[str, Any]]:
        """List recurring wrong labels that could become rules; the most frequent first."""
        return self._warehouse.query(
            "SELECT * FROM label_patterns ORDER BY support DESC, pattern_id"
        ).to_pylist()

    def missing_labels(self, limit: int | None = None) -> list[dict[str, Any]]:
        """List words that carry no label and look as if they should; the surest first."""
        return self._warehouse.query(_MISSING, {"limit": limit}).to_pylist()

    def last_operation(self) -> str | None:
        """Return the id of the last apply, undo or redo; None before the first."""
        found = self._warehouse.query(
            "SELECT operation_id FROM label_operations ORDER BY done_at DESC LIMIT 1"
        )
        return str(found["operation_id"][0]) if found.num_rows else None

    def validation_queue(self, limit: int | None = None) -> list[dict[str, Any]]:
        """List the labels whose validation would teach most, the most useful first."""
        return self._warehouse.query(
            "FROM validation_queue ORDER BY rank LIMIT $limit", {"limit": limit}
        ).to_pylist()

    def findings(self) -> list[dict[str, Any]]:
        """List equal wrong texts with their counts; the most frequent first."""
        return self._warehouse.query(
            "SELECT * FROM findings ORDER BY n_labels DESC, sentence"
        ).to_pylist()

    def merchant_names(self) -> list[dict[str, Any]]:
        """List the names of merchants with their labels; by merchant, its own name first."""
        return self._warehouse.query(_MERCHANT_NAMES).to_pylist()

    def left_merchants(self) -> list[str]:
        """List the keys of merchants that are part of others now, so that they hold no labels."""
        found = self._warehouse.query(
            "SELECT DISTINCT own_key FROM merchant_names "
            "WHERE own_key NOT IN (SELECT merchant_key FROM labels) ORDER BY own_key"
        )
        return found["own_key"].to_pylist()

    def unindexed_words(self) -> int:
        """Count the labelled words that have arrived and are not in the vector index."""
        return self._number(_UNINDEXED)

    def has_open_batch_jobs(self) -> bool:
        """Return whether batch jobs have answers to be collected."""
        return self._number("SELECT count(*) AS n FROM llm_batch_items") > 0

    def batch_jobs(self) -> list[dict[str, Any]]:
        """List all batch jobs with status, words, time and error; the latest first.

        `batch_id` is None where a job was never submitted.
        """
        return self._warehouse.query(_BATCH_JOBS).to_pylist()

    def batch_sources(self) -> list[str]:
        """List the sources of the ingested inbox batches."""
        found = self._warehouse.query("SELECT DISTINCT source FROM batches ORDER BY source")
        return found["source"].to_pylist()

    def label_types(self) -> list[str]:
        """List the label types that occur, sorted."""
        found = self._warehouse.query("SELECT DISTINCT label FROM labels ORDER BY label")
        return found["label"].to_pylist()

    def _number(self, sql: str) -> int:
        return int(self._warehouse.query(sql)["n"][0].as_py())
