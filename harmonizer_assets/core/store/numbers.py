"""Numbers that say in which order rows were written, since clocks are set back now and then.

Rows of earlier versions have none. They are older than all that have one; among themselves their
times decide.
"""

from __future__ import annotations


def next_number(*tables: str) -> str:
    """Write the SQL of the number after all that rows of these tables have.

    Transactions that write follow one another, so no two give the same number.
    """
    numbers = " UNION ALL ".join(f"SELECT number FROM {table}" for table in tables)
    return f"(SELECT coalesce(max(number), 0) + 1 FROM ({numbers}))"


def oldest_first(time: str) -> str:
    """Write the SQL of the order in which rows were written; `time` is their column of times."""
    return f"number NULLS FIRST, {time}"


def newest_first(time: str) -> str:
    """Write the SQL of the opposite order."""
    return f"number DESC NULLS LAST, {time} DESC"
