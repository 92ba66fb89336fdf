"""Texts that a spreadsheet would take for formulas, in CSV files.

A text such as `=HYPERLINK(...)` on a receipt becomes a formula when the CSV is opened in a
spreadsheet. Escaped texts have an apostrophe before what would start the formula, at the start of a
cell or of what another separator would make a cell. One more is added where there are some already,
so that nothing is lost: `unescaped(escaped(text)) == text`.

Source: OWASP, CSV Injection, https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

MARKER: Final = "harmonizer_formulas_escaped"
"""Column of a CSV file whose texts are escaped; readers leave it out and unescape the others."""

START: Final = r"(^|[;\t\r\n])( *)('*)([=+\-@\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}])"
"""What would start a formula, in the syntax of RE2; `REPLACEMENT` escapes it."""
REPLACEMENT: Final = r"\1\2'\3\4"
NUMBER: Final = "[+-][0-9.,]*[0-9]%?"
"""A signed number: spreadsheets take it for one, and it stays one."""

_START: Final = re.compile(re.sub(r"\\x\{(\w{4})\}", r"\\u\1", START))
_ESCAPED: Final = re.compile(_START.pattern.replace("('*)", "'('*)"))


def escaped(text: str) -> str:
    """Escape a text; signed numbers stay as they are."""
    return text if re.fullmatch(NUMBER, text) else _START.sub(REPLACEMENT, text)


def unescaped(text: str) -> str:
    """Return the text that `escaped` was given."""
    return _ESCAPED.sub(r"\1\2\3\4", text)


def restored_names(names: Sequence[str]) -> list[str]:
    """Return the column names of a file as they were before they were escaped, if they were."""
    if MARKER not in names:
        return [*names]
    return [unescaped(name) for name in names if name != MARKER]


def restored(row: Mapping[str, str]) -> dict[str, str]:
    """Return a row of a file as it was before it was escaped, if it was."""
    if MARKER not in row:
        return dict(row)
    return {unescaped(name): unescaped(text) for name, text in row.items() if name != MARKER}
