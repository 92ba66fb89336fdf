"""Alarms on whole receipts: another merchant's labels, or many label types that moved together."""

from __future__ import annotations

from typing import Final

import duckdb

from harmonizer_assets.core.store.warehouse import Warehouse

MIN_LABELS: Final = 5
"""A receipt with fewer labels raises no alarm."""
MIN_RECEIPTS: Final = 3
"""A merchant with fewer receipts raises no alarm."""
MIN_SHARE: Final = 0.4
"""Share of a receipt's labels that must disagree; common words neither agree nor disagree."""
NEARLY_ALL: Final = 0.9
"""Share of the labels that agree or disagree that must disagree."""
MIN_CONCENTRATION: Final = 0.5
"""Share of the disagreeing labels that must look like one and the same other merchant's."""
MARGIN: Final = 0.02
"""How much more similar, in cosine, a label of another merchant must be."""

MIN_MOVED: Final = 2
"""Labels of one type that have moved to one other type."""
MIN_MOVED_SHARE: Final = 0.7
"""Share of the type's labels on the receipt that have."""
MIN_SHIFTED_TYPES: Final = 2
"""Types that have moved, for columns to have shifted."""
MIN_TYPES: Final = 3
"""Label types with wrong labels, for a receipt to be wrong as a whole."""
MIN_WRONG_SHARE: Final = 0.4
"""Share of its labels that must be wrong then."""

# Labels that a person has rejected (`looks_right` is null for all others) are left out. A label
# disagrees when a label of another merchant is more similar to it than any label on the
# other receipts of its own merchant, and agrees when it is the other way round.
# A word votes for each merchant that uses the document nearest to it, of which there can be
# thousands. A merchant that enough words vote for has the vote of one of the rarest of them, as
# many as may be without its vote: only those are counted.
_ALARMS = """
WITH disagreeing AS (
    SELECT image_id, receipt_id, line_id, word_id, merchant_key, nearest_document,
        corpus_similarity > own_similarity + $margin AS disagrees,
        own_similarity > corpus_similarity + $margin AS agrees
    FROM similarity_matches WHERE label_probability > 0 AND looks_right IS NULL
),
sizes AS (
    SELECT merchant_key, count(DISTINCT (image_id, receipt_id)) AS receipts
    FROM disagreeing GROUP BY ALL
),
suspects AS (
    SELECT image_id, receipt_id, merchant_key, count(*) AS n_labels,
        count(*) FILTER (WHERE disagrees) AS n_disagree
    FROM disagreeing JOIN sizes USING (merchant_key)
    WHERE receipts >= $min_receipts AND merchant_key <> 'unknown'
    GROUP BY ALL
    HAVING count(*) >= $min_labels
        AND count(*) FILTER (WHERE disagrees) >= $min_share * count(*)
        AND count(*) FILTER (WHERE disagrees)
            >= $nearly_all * count(*) FILTER (WHERE disagrees OR agrees)
),
names AS (
    SELECT merchant_key, coalesce(min(n.merchant), min(merchant_name)) AS merchant_name
    FROM labels
    LEFT JOIN (SELECT DISTINCT merchant_key, merchant FROM merchant_names) n USING (merchant_key)
    GROUP BY ALL
),
voting AS (
    SELECT DISTINCT image_id, receipt_id, line_id, word_id, merchant_key, n_disagree,
        nearest_document AS document_id
    FROM suspects JOIN disagreeing USING (image_id, receipt_id, merchant_key)
    WHERE disagrees
),
uses AS (
    SELECT DISTINCT d.document_id, l.merchant_key AS other
    FROM word_documents d JOIN labels l USING (image_id, receipt_id, line_id, word_id)
    WHERE l.merchant_key <> 'unknown' AND d.document_id IN (SELECT document_id FROM voting)
),
rarest_first AS (
    SELECT v.*, row_number() OVER (of_receipt ORDER BY u.n) AS place,
        count(*) OVER of_receipt AS n_votes
    FROM voting v JOIN (SELECT document_id, count(*) AS n FROM uses GROUP BY ALL) u
        USING (document_id)
    WINDOW of_receipt AS (PARTITION BY image_id, receipt_id, merchant_key)
),
candidates AS (
    SELECT DISTINCT r.image_id, r.receipt_id, r.merchant_key, u.other
    FROM rarest_first r JOIN uses u USING (document_id)
    WHERE r.place <= r.n_votes - ceil($min_concentration * r.n_disagree) + 1
        AND u.other <> r.merchant_key
),
lookalikes AS (
    SELECT image_id, receipt_id, merchant_key, other AS suggested_merchant_key,
        count(DISTINCT (line_id, word_id)) AS votes
    FROM candidates
    JOIN voting USING (image_id, receipt_id, merchant_key)
    JOIN uses USING (document_id, other)
    GROUP BY image_id, receipt_id, merchant_key, other
    QUALIFY row_number() OVER (PARTITION BY image_id, receipt_id, merchant_key
        ORDER BY count(DISTINCT (line_id, word_id)) DESC, other) = 1
)
SELECT s.image_id, s.receipt_id, s.merchant_key, own.merchant_name, s.n_labels::INTEGER AS n_labels,
    s.n_disagree::INTEGER AS n_disagree, s.n_disagree / s.n_labels AS share,
    k.suggested_merchant_key, other.merchant_name AS suggested_merchant_name,
    format('{} of {} labels are more like another merchant''s than like those on this merchant''s '
        || 'other receipts', s.n_disagree, s.n_labels)
    || format('; {} of them like those of {}', k.votes, other.merchant_name) AS reasoning
FROM suspects s
JOIN names own USING (merchant_key)
JOIN lookalikes k USING (image_id, receipt_id, merchant_key)
JOIN names other ON other.merchant_key = k.suggested_merchant_key
WHERE k.votes >= $min_concentration * s.n_disagree
ORDER BY s.merchant_key, s.image_id, s.receipt_id
"""


# A shift: the labels of several types have each moved, as a whole, to one other type.
_RECEIPTS = """
WITH decided AS (
    SELECT image_id, receipt_id, merchant_key, merchant_name, label_type,
        coalesce(is_outlier, false) AS is_outlier, suggested_label
    FROM standing_decisions
),
receipts AS (
    SELECT image_id, receipt_id, merchant_key, min(merchant_name) AS merchant_name,
        count(*) AS n_labels, count(*) FILTER (WHERE is_outlier) AS n_outliers,
        list(DISTINCT label_type ORDER BY label_type) FILTER (WHERE is_outlier) AS label_types
    FROM decided GROUP BY ALL
),
types AS (
    SELECT image_id, receipt_id, label_type, count(*) AS n,
        mode(suggested_label) FILTER (WHERE is_outlier) AS target
    FROM decided GROUP BY ALL
),
moves AS (
    SELECT t.image_id, t.receipt_id, t.label_type, any_value(t.target) AS target,
        count(*) FILTER (WHERE d.is_outlier AND d.suggested_label = t.target) AS moved
    FROM types t JOIN decided d USING (image_id, receipt_id, label_type)
    WHERE t.target IS NOT NULL
    GROUP BY t.image_id, t.receipt_id, t.label_type, t.n
    HAVING moved >= $min_moved AND moved >= $min_moved_share * t.n
),
shifts AS (
    SELECT image_id, receipt_id, count(*) AS types, sum(moved) AS moved,
        string_agg(format('{} like {}', label_type, target), ', ' ORDER BY label_type) AS told
    FROM moves GROUP BY ALL HAVING count(*) >= $min_shifted_types
)
SELECT r.image_id, r.receipt_id, r.merchant_key, r.merchant_name,
    CASE WHEN s.types IS NOT NULL THEN 'columns_shifted' ELSE 'many_types' END AS kind,
    r.n_labels, r.n_outliers, r.n_outliers / r.n_labels AS share, r.label_types,
    CASE WHEN s.types IS NOT NULL
        THEN format('labels have moved together, {} of them: {}', s.moved::BIGINT, s.told)
        ELSE format('{} of {} labels are wrong, of {} label types', r.n_outliers, r.n_labels,
            len(r.label_types)) END AS reasoning
FROM receipts r LEFT JOIN shifts s USING (image_id, receipt_id)
WHERE s.types IS NOT NULL
    OR (r.n_outliers >= $min_labels AND len(r.label_types) >= $min_types
        AND r.n_outliers >= $min_wrong_share * r.n_labels)
ORDER BY r.merchant_key, r.image_id, r.receipt_id
"""


def update_receipt_alarms(warehouse: Warehouse) -> int:
    """Find receipts on which many label types are wrong and replace the table `receipt_alarms`.

    Returns:
        The number of alarms. The table is left alone when they have not changed.
    """
    parameters = {
        "min_moved": MIN_MOVED,
        "min_moved_share": MIN_MOVED_SHARE,
        "min_shifted_types": MIN_SHIFTED_TYPES,
        "min_labels": MIN_LABELS,
        "min_types": MIN_TYPES,
        "min_wrong_share": MIN_WRONG_SHARE,
    }
    return _update(warehouse, "receipt_alarms", _RECEIPTS, parameters)


def update_merchant_alarms(warehouse: Warehouse) -> int:
    """Find receipts whose merchant name is suspect and replace the table `merchant_alarms`.

    Returns:
        The number of alarms. The table is left alone when they have not changed.
    """
    parameters = {
        "margin": MARGIN,
        "min_receipts": MIN_RECEIPTS,
        "min_labels": MIN_LABELS,
        "min_share": MIN_SHARE,
        "nearly_all": NEARLY_ALL,
        "min_concentration": MIN_CONCENTRATION,
    }
    return _update(warehouse, "merchant_alarms", _ALARMS, parameters)


def _update(warehouse: Warehouse, table: str, sql: str, parameters: dict[str, float]) -> int:
    found, stored = warehouse.read(
        lambda con: (
            con.execute(sql, parameters).to_arrow_table(),
            con.execute(
                f"FROM {table} ORDER BY merchant_key, image_id, receipt_id"
            ).to_arrow_table(),
        )
    )
    if found.to_pylist() == stored.to_pylist():
        return int(found.num_rows)

    def replace(con: duckdb.DuckDBPyConnection) -> None:
        con.execute(f"DELETE FROM {table}")
        con.register("found", found)
        con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM found")

    warehouse.write(replace)
    return int(found.num_rows)
