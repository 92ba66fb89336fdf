"""Help for labels that the taxonomy does not know: which type may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Final

import duckdb
import pyarrow as pa

_HELPED: Final = 1_000
"""Different unknown labels of a batch that get help, the most frequent ones."""
_CLOSE: Final = 0.75
_SEPARATORS: Final = re.compile(r"[\W_]+")

_UNKNOWN: Final = """
SELECT trim(label) AS label, count(*) AS n FROM raw_labels
WHERE problem IS NULL AND trim(label) <> '' AND length(label) <= 100
    AND trim(label) NOT IN (SELECT label FROM label_types)
GROUP BY ALL ORDER BY n DESC, label LIMIT $limit
"""


def help_table(con: duckdb.DuckDBPyConnection, label_types: Sequence[str]) -> pa.Table:
    """Propose a label type for each unknown label of a batch.

    Args:
        con: a database with the tables `raw_labels` and `label_types`.
        label_types: the known label types.

    Returns:
        Columns `unknown` and `help`, a part of a sentence.
    """
    found = con.execute(_UNKNOWN, {"limit": _HELPED}).fetchall()
    helps = [(label, _help(label, rows, label_types)) for label, rows in found]
    return pa.table(
        {
            "unknown": pa.array([label for label, _ in helps], pa.string()),
            "help": pa.array([text for _, text in helps], pa.string()),
        }
    )


def nearest_type(label: str, label_types: Sequence[str]) -> str | None:
    """Find the label type that a label may have been meant to be; None where none is near.

    A type counts that is spelled alike, or that is one of the words of the label.
    """
    plain = {_plain(name): name for name in label_types}
    wanted = _plain(label)
    for close in difflib.get_close_matches(wanted, plain, 1, _CLOSE):
        return plain[close]
    inside = [name for key, name in plain.items() if key and f" {key} " in f" {wanted} "]
    return max(inside, key=len, default=None)


def _plain(name: str) -> str:
    return _SEPARATORS.sub(" ", name).strip().casefold()


def _help(label: str, rows: int, label_types: Sequence[str]) -> str | None:
    counted = f"{rows:,} row{'s' if rows != 1 else ''}"
    nearest = nearest_type(label, label_types)
    if nearest is not None:
        return f"did you mean {nearest} ({counted})? "
    if not any(character.isalpha() for character in label):
        return f"this looks like the text of a word ({counted}); "
    return None
