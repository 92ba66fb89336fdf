"""Examples: labels on similar words, for and against a doubted label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.decide.facts import Lines
from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    LABEL_KEY,
    WORD_COLUMNS,
    WORD_KEY,
    LabelKey,
    label_keys,
    qualified,
    word_key,
)

_PER_SIDE: Final = 2
_PER_POOL: Final = 3

# Joining every doubted label with all labels on equal texts would be quadratic for texts such as
# '0.00'. So a few labels stand for each text of each merchant, each text beside each word, each
# text, each merchant and each type; one more than is shown, since an example must be on another
# receipt.
_EXAMPLES: Final = f"""
WITH labelled AS (
    SELECT {qualified("l", LABEL_KEY)}, l.merchant_key,
        coalesce(l.merchant_name, 'unknown') AS merchant_name, l.validation_status, d.mask,
        list_last(string_split(d.left_context, ' ')) AS before,
        (l.validation_status <> 'VALID')::INTEGER AS doubt
    FROM labels l
    ANTI JOIN doubted o USING ({LABEL_COLUMNS})
    JOIN similarity_matches s USING ({LABEL_COLUMNS})
    JOIN word_documents wd USING ({WORD_COLUMNS})
    JOIN documents d USING (document_id)
    WHERE l.validation_status = 'VALID' OR s.triage = 'valid'
),
doubted_words AS (
    SELECT {qualified("o", LABEL_KEY)}, o.merchant_key, d.mask,
        list_last(string_split(d.left_context, ' ')) AS before, side.side, side.wanted
    FROM doubted o
    JOIN word_documents wd USING ({WORD_COLUMNS})
    JOIN documents d USING (document_id),
    LATERAL (VALUES ('for', o.label),
        ('against', CASE WHEN NOT o.no_label THEN o.competing_label END)) AS side(side, wanted)
    WHERE side.wanted IS NOT NULL
),
beside AS (
    FROM labelled QUALIFY row_number() OVER (PARTITION BY mask, before, label
        ORDER BY doubt, {WORD_COLUMNS}) <= {_PER_POOL}
),
alike_at_home AS (
    FROM labelled QUALIFY row_number() OVER (PARTITION BY merchant_key, mask, label
        ORDER BY doubt, {WORD_COLUMNS}) <= {_PER_POOL}
),
alike AS (
    FROM labelled QUALIFY row_number() OVER (PARTITION BY mask, label
        ORDER BY doubt, {WORD_COLUMNS}) <= {_PER_POOL}
),
at_home AS (
    FROM labelled QUALIFY row_number() OVER (PARTITION BY merchant_key, label
        ORDER BY doubt, {WORD_COLUMNS}) <= {_PER_POOL}
),
anywhere AS (
    FROM labelled QUALIFY row_number() OVER (PARTITION BY label
        ORDER BY doubt, {WORD_COLUMNS}) <= {_PER_POOL}
),
candidates AS (
    SELECT o.*, e, 0 AS distance FROM doubted_words o
        JOIN alike_at_home e
            ON (e.merchant_key, e.mask, e.label) = (o.merchant_key, o.mask, o.wanted)
    UNION ALL SELECT o.*, e, 1 FROM doubted_words o
        JOIN beside e ON (e.mask, e.before, e.label) = (o.mask, o.before, o.wanted)
    UNION ALL SELECT o.*, e, 2 FROM doubted_words o
        JOIN alike e ON (e.mask, e.label) = (o.mask, o.wanted)
    UNION ALL SELECT o.*, e, 3 FROM doubted_words o
        JOIN at_home e ON (e.merchant_key, e.label) = (o.merchant_key, o.wanted)
    UNION ALL SELECT o.*, e, 4 FROM doubted_words o
        JOIN anywhere e ON e.label = o.wanted
),
distinct_ones AS (
    SELECT DISTINCT ON ({LABEL_COLUMNS}, side, {qualified("e", WORD_KEY)}) *
    FROM candidates
    WHERE (e.image_id, e.receipt_id) <> (image_id, receipt_id)
    ORDER BY distance
)
SELECT image_id AS o_image_id, receipt_id AS o_receipt_id, line_id AS o_line_id,
    word_id AS o_word_id, label AS o_label, side, e.image_id AS image_id,
    e.receipt_id AS receipt_id, e.line_id AS line_id, e.word_id AS word_id, e.label AS label,
    e.merchant_name AS merchant_name, e.validation_status AS validation_status
FROM distinct_ones
QUALIFY row_number() OVER (
    PARTITION BY {LABEL_COLUMNS}, side
    ORDER BY distance, e.merchant_key <> merchant_key, e.doubt,
        {qualified("e", WORD_KEY)}) <= {_PER_SIDE}
ORDER BY ALL
"""

Examples = dict[str, list[dict[str, Any]]]
"""Under `for` and `against`, examples with the label's key, merchant, status and marked line."""


def find_examples(
    con: duckdb.DuckDBPyConnection, doubted: pa.Table, label_types: Sequence[str]
) -> list[Examples]:
    """Find up to two examples for and two against each of n labels.

    An example for carries the same label type, one against the competing type. Words with the same
    text come first, those of the merchant before those beside the same word and all others, then
    other words of the merchant, then any; validated ones first. There is none against where a word
    looks like one that carries no label.

    Args:
        con: a connection inside a transaction.
        doubted: n rows with the labels' keys, `merchant_key`, `competing_label` and `no_label`.
        label_types: names of all label types.
    """
    con.register("doubted", doubted)
    found = con.execute(_EXAMPLES).to_arrow_table()
    con.unregister("doubted")
    lines = Lines.read(con, found, label_types)
    by_label: dict[LabelKey, Examples] = {}
    for row in found.to_pylist():
        doubted_key = LabelKey(*(row.pop(f"o_{name}") for name in LABEL_KEY))
        sides = by_label.setdefault(doubted_key, {"for": [], "against": []})
        number = lines.number(word_key(row))
        if number is not None:
            sides[row.pop("side")].append(row | {"line": lines.line(number).to_text()})
    return [by_label.get(key, {"for": [], "against": []}) for key in label_keys(doubted)]
