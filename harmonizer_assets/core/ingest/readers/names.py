"""Names of columns: what a file may call them, so that they can be exported again."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from harmonizer_assets.core.ingest.readers.layout import TableLayout

MAX_COLUMNS: Final = 1_000
"""Different names in one file."""

_MAX_NAME: Final = 200
_NAMELESS: Final = "unnamed"


def named(names: Sequence[str]) -> list[str]:
    """Give columns without a name one: `unnamed`, `unnamed_2` and so on.

    pandas writes such a column for its index.
    """
    found = []
    nameless = 0
    for name in names:
        if name.strip():
            found.append(name)
        else:
            nameless += 1
            found.append(_NAMELESS if nameless == 1 else f"{_NAMELESS}_{nameless}")
    return found


def problem_of(names: Sequence[str], layout: TableLayout) -> str | None:
    """Describe what is wrong with the names of a file's columns; None where nothing is.

    Names that differ only in case are one name in SQL, so they are refused together.
    """
    if len(names) > MAX_COLUMNS:
        return f"{len(names)} columns; the limit is {MAX_COLUMNS}"
    own = {name.lower(): name for name in (*layout.columns, *layout.derived)}
    seen: dict[str, str] = {}
    for name in names:
        problem = _problem_of_one(name, own, seen)
        if problem is not None:
            return problem
        seen[name.lower()] = name
    return None


def _problem_of_one(name: str, own: dict[str, str], seen: dict[str, str]) -> str | None:
    lowered = name.lower()
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        return f"the column name {name!r} holds a control character: rename the column"
    if len(name) > _MAX_NAME:
        return f"the column name {name[:40]}... is longer than {_MAX_NAME} characters"
    if seen.get(lowered) == name:
        return f"column {name} stands twice"
    if lowered in seen:
        return f"the columns {seen[lowered]} and {name} differ only in case: rename one of them"
    if own.get(lowered, name) != name:
        return f"column {name}: write it {own[lowered]}, or give it another name"
    return None
