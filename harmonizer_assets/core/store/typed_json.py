"""Values of columns that pass through: written as JSON, and read back with their types."""

from __future__ import annotations

import re
from typing import Final

_DECIMAL: Final = re.compile(r"DECIMAL\((\d+),\d+\)")
_EXACT_DIGITS: Final = 15
"""Decimal digits that a number in JSON keeps, since readers take it for a double."""


def json_of(value: str, type_name: str) -> str:
    """Write the SQL that turns a value of a DuckDB type into JSON.

    Args:
        value: SQL of the value.
        type_name: as DuckDB writes it.
    """
    decimal = _DECIMAL.fullmatch(type_name)
    is_text = decimal is not None and int(decimal[1]) > _EXACT_DIGITS
    return f"to_json(({value})::VARCHAR)" if is_text else f"to_json({value})"


def readings_of(value: str, type_name: str) -> tuple[str, ...]:
    """Write the SQL of the ways to read JSON back as a DuckDB type; null where it does not fit.

    Which of them is right depends on the type; `json_of` of the right one is the JSON again.

    Args:
        value: SQL of the JSON.
        type_name: as DuckDB writes it.
    """
    return (f"TRY_CAST(({value})->>'$' AS {type_name})", f"TRY_CAST({value} AS {type_name})")
