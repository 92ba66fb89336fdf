"""The texts that are to be found and removed."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

SHORTEST: Final = 3
"""Shorter texts are not searched for: they stand in nearly every sentence, by chance."""
REPLACEMENT: Final = "[deleted]"
REPLACED_KEY: Final = "deleted-merchant"
"""What stands in accounts and events in place of the key of a merchant that is gone."""


class DeletedTexts:
    """Texts that stood on deleted words only, found in other texts as whole words.

    Attributes:
        keys: those of them that are keys of merchants, which nothing else is called.
    """

    def __init__(self, texts: Iterable[str], keys: Sequence[str] = ()) -> None:
        """Take the texts; those of fewer than three characters are left out."""
        # As they are, and as JSON has them.
        self.keys = sorted({spelling for key in keys for spelling in (key, json.dumps(key)[1:-1])})
        self._keys = re.compile(_any_of(self.keys)) if self.keys else None
        kept = sorted({text for text in (*texts, *keys) if len(text) >= SHORTEST})
        spelt = sorted({spelling for text in kept for spelling in (text, html.escape(text))})
        words = _any_of(spelt)
        self._pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)") if spelt else None
        self.sql_pattern = rf"(^|\W)(?:{words})(\W|$)" if spelt else ""
        """The same for DuckDB, whose regular expressions cannot look behind."""

    def __bool__(self) -> bool:
        """Return whether there is anything to be found."""
        return self._pattern is not None

    def occur_in(self, content: str) -> bool:
        """Return whether one of the texts stands in a content."""
        return self._pattern is not None and self._pattern.search(content) is not None

    def replaced_in(self, content: str) -> str:
        """Return the content with each of the texts replaced."""
        content = self.without_keys(content)
        return self._pattern.sub(REPLACEMENT, content) if self._pattern else content

    def without_keys(self, content: str) -> str:
        """Return the content with another key in place of each of the merchants' keys."""
        return self._keys.sub(REPLACED_KEY, content) if self._keys else content


def _any_of(spellings: Iterable[str]) -> str:
    """Return the pattern of any of the spellings, of the longest that fits."""
    return "|".join(map(re.escape, sorted(spellings, key=len, reverse=True)))
