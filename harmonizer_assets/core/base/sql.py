"""Quoting for SQL that is put together from names and texts, and lists of texts as parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable


def quoted(identifier: str) -> str:
    """Quote a name of a table or column."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text as a string literal, for places such as ATTACH and COPY that bind no values."""
    return "'" + text.replace("'", "''") + "'"


def text_list(texts: Iterable[str]) -> str:
    """Turn texts into the value of a parameter that `texts_in` reads.

    DuckDB looks for pandas anew at every element of a list that is bound as one, a tenth of a
    millisecond each where it is not installed. One text costs nothing.
    """
    return json.dumps(list(texts))


def texts_in(parameter: str) -> str:
    """Select the texts of a parameter that `text_list` has made, as the column `value`."""
    return f"""(SELECT unnest(from_json({parameter}, '["VARCHAR"]')) AS value)"""
