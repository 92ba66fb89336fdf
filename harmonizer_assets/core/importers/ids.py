"""Ids that last: made of a source's own ids and order, and the same on every import.

The id of an image is the source's own, or the path of its file within the folder that was given.
Lines are numbered from 1 in the order in which they appear in the source, and words within their
line. Words that cannot be used keep their number, so that mending one moves no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from harmonizer_assets.core.importers.base import SourceWord

_LONGEST: Final = 500
"""Characters of an id; `ingest` takes 512."""


def image_id(source_id: str) -> str:
    """Return the id of an image; one that is too long is cut and ends with its hash."""
    cleaned = " ".join(source_id.split())
    if len(cleaned) <= _LONGEST:
        return cleaned
    digest = hashlib.sha256(source_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{cleaned[: _LONGEST - 17]}-{digest}"


def of_path(path: str) -> str:
    """Return the id of an image that is named by its path or address: the path without suffix."""
    plain = path.partition("?")[0].replace("\\", "/")
    return str(PurePosixPath(plain).with_suffix("")) if PurePosixPath(plain).name else path


def numbered(words: Sequence[SourceWord]) -> Iterator[tuple[int, int, SourceWord]]:
    """Number words: yield line id, word id and word, in the source's order; its own ids stay."""
    lines: dict[Any, int] = {}
    counts: dict[int, int] = {}
    for word in words:
        if word.ids is not None:
            yield (*word.ids, word)
            continue
        key = word.line if isinstance(word.line, Hashable) else repr(word.line)
        line_id = lines.setdefault(key, len(lines) + 1)
        word_id = counts[line_id] = counts.get(line_id, 0) + 1
        yield line_id, word_id, word
