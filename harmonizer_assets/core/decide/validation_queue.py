"""The validation queue: the labels whose validation by a person would teach most.

A person's answer teaches much where the score is uncertain, where it stands for many labels alike,
and where nobody has validated labels of that kind yet. Labels are of one kind if they have the same
type and the same likeliest other explanation. Uncertainty alone would ask about the same kind again
and again (Settles 2012, "Active Learning", on density and diversity), so each further label of a
kind, and of a text, counts less.
"""

from __future__ import annotations

from typing import Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.records.label import LABEL_COLUMNS, WORD_COLUMNS
from harmonizer_assets.core.store.warehouse import Warehouse, replace_ranking

LISTED: Final = 1_000
"""Labels that the table holds."""

# Even a label that looks certain teaches a little: a whole kind may be wrong.
_RANKED: Final = f"""
WITH known AS (
    SELECT {LABEL_COLUMNS}, d.label_type, d.merchant_key, d.merchant_name, d.word_text,
        coalesce(d.outlier_score, 0.5) AS outlier_score,
        CASE WHEN s.no_label THEN NULL ELSE s.competing_label END AS likeliest_label,
        coalesce(x.mask, lower(trim(d.word_text))) AS mask,
        d.validation_status IN ('VALID', 'INVALID') AND d.decided_by <> 'policy' AS is_validated,
        d.decided_by IN ('rule', 'policy') AS by_rule
    FROM label_decisions d
    LEFT JOIN similarity_matches s USING ({LABEL_COLUMNS})
    LEFT JOIN word_documents USING ({WORD_COLUMNS})
    LEFT JOIN documents x USING (document_id)
    WHERE d.word_text IS NOT NULL
),
kinds AS (
    SELECT *,
        count(CASE WHEN NOT is_validated THEN 1 END) OVER kind AS n_alike,
        count(CASE WHEN is_validated THEN 1 END) OVER kind AS n_validated,
        count(CASE WHEN is_validated THEN 1 END) OVER same_text AS text_validated,
        4 * outlier_score * (1 - outlier_score) + 0.02 AS uncertainty
    FROM known
    WINDOW kind AS (PARTITION BY label_type, likeliest_label),
        same_text AS (PARTITION BY label_type, likeliest_label, mask)
),
texts AS (
    SELECT *, row_number() OVER (
        PARTITION BY label_type, likeliest_label, mask
        ORDER BY uncertainty DESC, {LABEL_COLUMNS}) - 1 AS text_before
    FROM kinds WHERE NOT is_validated AND NOT by_rule
),
discounted AS (
    SELECT *, uncertainty * ln(1 + n_alike) / (1 + text_validated + text_before) AS fresh FROM texts
),
ordered AS (
    SELECT *, row_number() OVER (
        PARTITION BY label_type, likeliest_label ORDER BY fresh DESC, {LABEL_COLUMNS}
    ) - 1 AS kind_before
    FROM discounted
),
valued AS (
    SELECT *, fresh / sqrt(1 + n_validated + kind_before) AS teaches FROM ordered
)
SELECT row_number() OVER (ORDER BY teaches DESC, {LABEL_COLUMNS}) AS rank, {LABEL_COLUMNS},
    label_type, merchant_key, merchant_name, word_text, outlier_score, likeliest_label, n_alike,
    n_validated, round(teaches, 6) AS teaches,
    format('the score says {{:.2f}} that it is wrong; {{:,}} labels of {{}} that {{}} are not '
        'validated, {{:,}} are', outlier_score, n_alike, label_type,
        coalesce('could be ' || likeliest_label, 'could be no label'), n_validated) AS reasoning
FROM valued ORDER BY rank LIMIT $limit
"""


def rank_for_validation(con: duckdb.DuckDBPyConnection, limit: int | None = LISTED) -> pa.Table:
    """Rank the labels that no person has validated by how much their validation would teach.

    Args:
        con: a connection inside a transaction.
        limit: how many; None for all.

    Returns:
        Rows of the table `validation_queue`, the most useful first.
    """
    return con.execute(_RANKED, {"limit": limit}).to_arrow_table()


def update_validation_queue(warehouse: Warehouse) -> int:
    """Rank again and replace the table `validation_queue`.

    Returns:
        The number of rows. The table is left alone when they have not changed.
    """
    return replace_ranking(warehouse, "validation_queue", rank_for_validation, "rank")
