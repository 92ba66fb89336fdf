"""Merchant alarms: receipts whose labels look like another merchant's."""

from __future__ import annotations

from typing import Final

import duckdb

from harmonizer_assets.core.warehouse import Warehouse

MIN_LABELS: Final = 5
"""A receipt with fewer labels raises no alarm."""
MIN_RECEIPTS: Final = 3
"""A merchant with fewer receipts is too thin to disagree with."""
MIN_SHARE: Final = 0.4
"""Share of a receipt's labels that must disagree: words that are alike everywhere do neither."""
NEARLY_ALL: Final = 0.9
"""Share of the labels which take a side that must disagree."""
MIN_CONCENTRATION: Final = 0.5
"""Share of the disagreeing labels that must look like one and the same other merchant's."""
MARGIN: Final = 0.02
"""How much more similar, in cosine, a label of another merchant must be."""

# A label disagrees when a label of another merchant is more similar to it than any label on the
# other receipts of its own merchant, and agrees when it is the other way round.
_ALARMS = """
WITH disagreeing AS (
    SELECT s.*, corpus_similarity > own_similarity + $margin AS disagrees,
        own_similarity > corpus_similarity + $margin AS agrees
    FROM similarity_matches s WHERE s.label_probability > 0
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
    SELECT merchant_key, min(merchant_name) AS merchant_name FROM labels GROUP BY ALL
),
lookalikes AS (
    SELECT s.image_id, s.receipt_id, s.merchant_key, l.merchant_key AS suggested_merchant_key,
        count(DISTINCT (s.line_id, s.word_id)) AS votes
    FROM suspects
    JOIN disagreeing s USING (image_id, receipt_id, merchant_key)
    JOIN word_documents d ON d.document_id = s.nearest_document
    JOIN labels l ON (l.image_id, l.receipt_id, l.line_id, l.word_id)
        = (d.image_id, d.receipt_id, d.line_id, d.word_id)
    WHERE s.disagrees AND l.merchant_key NOT IN (s.merchant_key, 'unknown')
    GROUP BY s.image_id, s.receipt_id, s.merchant_key, l.merchant_key
    QUALIFY row_number() OVER (
        PARTITION BY s.image_id, s.receipt_id, s.merchant_key
        ORDER BY count(DISTINCT (s.line_id, s.word_id)) DESC, l.merchant_key) = 1
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
    found, stored = warehouse.read(
        lambda con: (
            con.execute(_ALARMS, parameters).to_arrow_table(),
            con.execute(
                "FROM merchant_alarms ORDER BY merchant_key, image_id, receipt_id"
            ).to_arrow_table(),
        )
    )
    if found.to_pylist() == stored.to_pylist():
        return int(found.num_rows)

    def replace(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("DELETE FROM merchant_alarms")
        con.register("found", found)
        con.execute("INSERT INTO merchant_alarms BY NAME SELECT * FROM found")

    warehouse.write(replace)
    return int(found.num_rows)
