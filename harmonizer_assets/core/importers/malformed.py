"""What is said about a part of a source that is not as its format has it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harmonizer_assets.core.importers.base import Problem

MALFORMED: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Errors of reading values that are of other kinds than the format has them."""
_LONGEST: Final = 300


def not_as(format_name: str, path: Path, row: str, error: Exception) -> Problem:
    """Describe a part that is left out since it is not as its format has it."""
    said = str(error).splitlines()[0][:_LONGEST] if str(error) else type(error).__name__
    if isinstance(error, KeyError):
        said = f"{said} is missing"
    return Problem(path, row, f"not as {format_name} has it: {said}", "mend or remove it")
