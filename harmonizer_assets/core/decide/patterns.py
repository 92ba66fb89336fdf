"""Patterns: wrong labels that recur, proposed to people as rules."""

from __future__ import annotations

import hashlib
from typing import Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.base.settings import PatternSettings
from harmonizer_assets.core.store.warehouse import Warehouse

# A pattern is as general as its precision allows: over all merchants, else beside one word or
# within one merchant. Undecided labels count for neither side.
_PATTERNS: Final = """
WITH decided AS (
    SELECT d.label_type, x.mask, list_last(string_split(x.left_context, ' ')) AS before,
        d.merchant_key, d.merchant_name, d.word_text, d.is_outlier, d.suggested_label,
        d.image_id, d.receipt_id
    FROM standing_decisions d
    JOIN word_documents wd USING (image_id, receipt_id, line_id, word_id)
    JOIN documents x USING (document_id)
    WHERE d.is_outlier IS NOT NULL AND d.decided_by <> 'rule' AND x.mask <> ''
),
grouped AS (
    SELECT label_type, mask, before, merchant_key,
        grouping(before) = 0 AS has_before, grouping(merchant_key) = 0 AS has_merchant,
        min(merchant_name) AS any_merchant_name, mode(word_text) AS word_text,
        count(*) FILTER (WHERE is_outlier) AS support,
        count(*) FILTER (WHERE NOT is_outlier) AS against,
        count(DISTINCT (image_id, receipt_id)) FILTER (WHERE is_outlier) AS receipts,
        mode(coalesce(suggested_label, '')) FILTER (WHERE is_outlier) AS suggestion
    FROM decided
    GROUP BY GROUPING SETS (
        (label_type, mask), (label_type, mask, before), (label_type, mask, merchant_key))
    HAVING support >= $min_support AND receipts > 1
        AND support >= $min_precision * (support + against)
),
most_general AS (
    FROM grouped g WHERE NOT (g.has_before OR g.has_merchant) OR NOT EXISTS (
        FROM grouped h WHERE h.label_type = g.label_type AND h.mask = g.mask
            AND NOT (h.has_before OR h.has_merchant))
)
SELECT label_type, mask, CASE WHEN has_before THEN before END AS before,
    CASE WHEN has_merchant THEN merchant_key END AS merchant_key,
    CASE WHEN has_merchant THEN any_merchant_name END AS merchant_name,
    nullif(suggestion, '') AS suggested_label, support, against,
    support / (support + against) AS precision, receipts,
    format('{}''{}''{}{} is not {}',
        CASE WHEN contains(mask, '0') THEN 'a word like ' ELSE '' END, word_text,
        CASE WHEN has_before AND before = '^' THEN ' at the start of a row'
            WHEN has_before THEN ' after ''' || before || '''' ELSE '' END,
        CASE WHEN has_merchant THEN ' at ' || coalesce(any_merchant_name, 'unknown') ELSE '' END,
        label_type)
    || CASE suggestion WHEN '' THEN ': it carries no label' ELSE ': it is ' || suggestion END
        AS sentence
FROM most_general g
ANTI JOIN current_rules r ON r.label_type = g.label_type AND r.mask = g.mask
    AND r.before IS NOT DISTINCT FROM (CASE WHEN g.has_before THEN g.before END)
    AND r.merchant_key IS NOT DISTINCT FROM (CASE WHEN g.has_merchant THEN g.merchant_key END)
ORDER BY support DESC, label_type, mask, before, merchant_key
"""


def update_patterns(warehouse: Warehouse, settings: PatternSettings) -> int:
    """Find recurring wrong labels and replace the table `label_patterns`.

    Returns:
        The number of patterns. The table is left alone when they have not changed.
    """
    found, stored = warehouse.read(
        lambda con: (
            con.execute(_PATTERNS, settings.model_dump()).to_arrow_table(),
            con.execute("SELECT * FROM label_patterns").to_arrow_table(),
        )
    )
    ids = [
        pattern_id(row["label_type"], row["mask"], row["before"], row["merchant_key"])
        for row in found.to_pylist()
    ]
    found = found.append_column("pattern_id", pa.array(ids, pa.string()))
    rows = found.select(stored.column_names)
    if rows.to_pylist() == stored.to_pylist():
        return int(rows.num_rows)

    def replace(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("DELETE FROM label_patterns")
        con.register("found", rows)
        con.execute("INSERT INTO label_patterns BY NAME SELECT * FROM found")

    warehouse.write(replace)
    return int(rows.num_rows)


def pattern_id(label_type: str, mask: str, before: str | None, merchant_key: str | None) -> str:
    """Derive the id of a pattern from its content; a pattern found again has the same id."""
    content = "\x1f".join(
        "\x1e" if part is None else part for part in (label_type, mask, before, merchant_key)
    )
    return hashlib.sha256(content.encode()).hexdigest()[:10]
