"""Rows of other words that quote deleted texts: reasons, examples, answers, patterns."""

from __future__ import annotations

from typing import Final

from harmonizer_assets.core.base.sql import quoted, text_list, texts_in
from harmonizer_assets.core.erase.texts import REPLACED_KEY, DeletedTexts
from harmonizer_assets.core.records.reports import ASSETS
from harmonizer_assets.core.stages.state import invalidate
from harmonizer_assets.core.store import Connection
from harmonizer_assets.core.store.catalog import columns_by_table

_FREE_TEXTS: Final = (
    "word_text",
    "reasoning",
    "evidence",
    "examples",
    "line",
    "sentence",
    "mask",
    "before",
    "error",
    "traceback",
    "row",
    "reason",
    "merchant_name",
    "suggested_merchant_name",
)
"""Columns that may quote a receipt, in whatever table."""
_KEPT: Final = ("words", "labels", "documents", "label_rules", "suspicion_models")
"""Words and labels are those that stay; documents follow them; rules are decisions of people."""
_KEYS: Final = ("merchant_key", "own_key", "suggested_merchant_key")
"""Columns that hold the key of a merchant, in whatever table."""
_ACCOUNTS: Final = ("llm_usage",)
"""Tables whose rows stay, since they are added up."""


def delete_quotes(con: Connection, texts: DeletedTexts) -> int:
    """Delete the rows that quote deleted texts, so that they are computed anew.

    Used inside `Warehouse.write`.

    Returns:
        The number of rows.
    """
    deleted = 0
    for table, columns in _tables(con).items():
        quotes = " OR ".join(
            f"regexp_matches({quoted(name)}::VARCHAR, $pattern)"
            for name in columns
            if name in _FREE_TEXTS
        )
        if {"label_type", "merchant_key"} <= set(columns):
            con.execute(
                "CREATE OR REPLACE TEMP TABLE quoting AS SELECT DISTINCT label_type, merchant_key "
                f"FROM {quoted(table)} WHERE {quotes}",
                {"pattern": texts.sql_pattern},
            )
            invalidate(con, ASSETS, "quoting")
        found = con.execute(
            f"DELETE FROM {quoted(table)} WHERE {quotes}", {"pattern": texts.sql_pattern}
        ).fetchone()
        deleted += int(found[0]) if found else 0
    return deleted + _delete_merchants(con, texts)


def _delete_merchants(con: Connection, texts: DeletedTexts) -> int:
    """Delete the rows about merchants that are gone, rules that are for them alone included."""
    deleted = 0
    for table, columns in columns_by_table(con).items():
        for column in set(columns).intersection(_KEYS):
            where = f"{quoted(column)} IN {texts_in('$keys')}"
            parameters = {"keys": text_list(texts.keys)}
            if table in _ACCOUNTS:
                con.execute(
                    f"UPDATE {quoted(table)} SET {quoted(column)} = $key WHERE {where}",
                    {**parameters, "key": REPLACED_KEY},
                )
            elif table not in ("words", "labels"):
                found = con.execute(
                    f"DELETE FROM {quoted(table)} WHERE {where}", parameters
                ).fetchone()
                deleted += int(found[0]) if found else 0
    return deleted


def _tables(con: Connection) -> dict[str, list[str]]:
    """List the columns of each table that has one which may quote a receipt."""
    return {
        table: columns
        for table, columns in columns_by_table(con).items()
        if table not in _KEPT and not set(columns).isdisjoint(_FREE_TEXTS)
    }
