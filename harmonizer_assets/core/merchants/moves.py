"""Moves: labels go to other merchants, with their decisions and the answers about them.

The partitions that they leave and join become stale by their fingerprints. Until they are computed
again, what was decided stays with the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from harmonizer_assets.core.merchants.grouping import Merchant
from harmonizer_assets.core.merchants.names import NEW
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LABEL_KEY
from harmonizer_assets.core.records.reports import MerchantMove
from harmonizer_assets.core.store.database import Connection

_DECIDED: Final = ("similarity_matches", "judgements", "outliers")
"""Tables with a row per label that name its merchant."""

_MOVES: Final = f"""
CREATE OR REPLACE TEMP TABLE moves AS
SELECT m.name, m.merchant AS left_merchant, a.merchant, a.how, m.merchant_key AS left_key,
    a.merchant_key, m.how = '{NEW}' AS is_new
FROM merchant_names m JOIN assigned a USING (name)
WHERE m.merchant_key <> a.merchant_key
"""
_REPORTED: Final = """
SELECT m.name, m.left_merchant, m.merchant, m.how, m.left_key, m.merchant_key, m.is_new,
    (SELECT count(*) FROM labels l WHERE l.merchant_name = m.name) AS labels
FROM moves m ORDER BY m.merchant, m.name
"""
_AFFECTED: Final = """
CREATE OR REPLACE TEMP TABLE affected AS
SELECT left_key AS merchant_key FROM moves UNION SELECT merchant_key FROM moves
"""
_CARRIED: Final = f"""
CREATE OR REPLACE TEMP TABLE carried AS
SELECT {", ".join(f"j.{name}" for name in LABEL_KEY)},
    coalesce(a.answered_by, j.verdict_key) AS verdict_key
FROM judgements j SEMI JOIN affected USING (merchant_key)
LEFT JOIN answer_aliases a ON a.verdict_key = j.verdict_key
WHERE j.decided_by IN ('llm', 'cache') AND j.verdict_key IS NOT NULL
"""
_RENAMED: Final = """
UPDATE merchant_names m SET merchant = a.merchant, how = a.how, merchant_key = a.merchant_key
FROM assigned a WHERE m.name = a.name
    AND (m.merchant, m.how, m.merchant_key) IS DISTINCT FROM (a.merchant, a.how, a.merchant_key)
"""
_MOVED: Final = """
UPDATE labels l SET merchant_key = m.merchant_key
FROM moves m WHERE l.merchant_name = m.name AND l.merchant_key <> m.merchant_key
"""


def move(con: Connection, assigned: Mapping[str, Merchant]) -> list[MerchantMove]:
    """Give names their merchants, and move their labels; used inside `Warehouse.write`.

    Args:
        con: the connection that `write` gave.
        assigned: the merchant of each name.

    Returns:
        The names that have left one merchant for another, by merchant and name.
    """
    con.register("assigned", _table(assigned))
    con.execute(_MOVES)
    found = con.execute(_REPORTED).to_arrow_table().to_pylist()
    if found:
        con.execute(_AFFECTED)
        _carry_answers(con)
        con.execute(_MOVED)
        for table in _DECIDED:
            con.execute(_follow(table))
        con.execute("DROP TABLE affected")
    con.execute(_RENAMED)
    con.execute("DROP TABLE moves")
    con.unregister("assigned")
    return [MerchantMove(**row) for row in found]


def _table(assigned: Mapping[str, Merchant]) -> pa.Table:
    merchants = list(assigned.values())
    return pa.table(
        {
            "name": pa.array(assigned, pa.string()),
            "merchant": pa.array([one.name for one in merchants], pa.string()),
            "merchant_key": pa.array([one.key for one in merchants], pa.string()),
            "how": pa.array([one.how for one in merchants], pa.string()),
        }
    )


def _carry_answers(con: Connection) -> None:
    """Keep which answer has decided each label of the merchants: the questions change with them."""
    con.execute(_CARRIED)
    con.execute(
        f"DELETE FROM carried_answers WHERE ({LABEL_COLUMNS}) IN "
        f"(SELECT ({LABEL_COLUMNS}) FROM carried)"
    )
    con.execute("INSERT INTO carried_answers BY NAME FROM carried")
    con.execute("DROP TABLE carried")


def _follow(table: str) -> str:
    """Write the SQL that moves the rows of a table after their labels."""
    same = " AND ".join(f"t.{name} = l.{name}" for name in LABEL_KEY)
    return (
        f"UPDATE {table} t SET merchant_key = l.merchant_key FROM labels l SEMI JOIN affected "
        f"USING (merchant_key) WHERE {same} AND t.merchant_key <> l.merchant_key"
    )
