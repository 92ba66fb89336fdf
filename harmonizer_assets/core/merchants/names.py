"""The table `merchant_names`: which names have arrived, and when first."""

from __future__ import annotations

from typing import Final

from harmonizer_assets.core.records.merchant import UNKNOWN_MERCHANT
from harmonizer_assets.core.store.database import Connection

NEW: Final = "new"
"""`how` of a name that has just arrived; its merchant is found at the end of ingest."""

_ARRIVED: Final = f"""
CREATE OR REPLACE TEMP TABLE arrived_names AS
SELECT merchant_name AS name, merchant_key AS own_key, count(*) AS first_labels
FROM staged.checked_labels WHERE merchant_key <> '{UNKNOWN_MERCHANT}' GROUP BY ALL
"""
_SEEN_EARLIER: Final = """
UPDATE merchant_names m SET since = $batch_time, first_labels = a.first_labels
FROM arrived_names a WHERE m.name = a.name AND m.since > $batch_time
"""
_SEEN_FIRST: Final = f"""
INSERT INTO merchant_names BY NAME
SELECT name, trim(name) AS merchant, '{NEW}' AS how, $batch_time AS since,
    own_key AS merchant_key, own_key, first_labels
FROM arrived_names ANTI JOIN merchant_names USING (name)
"""
_KNOWN_MERCHANTS: Final = """
CREATE OR REPLACE TEMP VIEW arriving_labels AS
SELECT s.* REPLACE (coalesce(m.merchant_key, s.merchant_key) AS merchant_key)
FROM staged.checked_labels s LEFT JOIN merchant_names m ON m.name = s.merchant_name
"""


def note_names(con: Connection, batch_time: object) -> str:
    """Note the names of a staged batch; used inside `Warehouse.write`.

    Args:
        con: the connection that `write` gave, with the staging database attached as `staged`.
        batch_time: the time of the batch.

    Returns:
        A view of the batch's labels, with the keys of the merchants that are known.
    """
    con.execute(_ARRIVED)
    con.execute(_SEEN_EARLIER, {"batch_time": batch_time})
    con.execute(_SEEN_FIRST, {"batch_time": batch_time})
    con.execute("DROP TABLE arrived_names")
    con.execute(_KNOWN_MERCHANTS)
    return "arriving_labels"
