"""Google Vision: the responses of text detection, as JSON.

Coordinates that are zero are left out by Google, so a missing one is 0. Lines end where a detected
break says so. Names are read as REST writes them (`fullTextAnnotation`) and as Python's
`MessageToDict` may (`full_text_annotation`).

Format: https://cloud.google.com/vision/docs/reference/rest/v1/AnnotateImageResponse
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.base import (
    Importer,
    ImportOptions,
    Problem,
    Read,
    SourceFile,
    SourceReceipt,
    SourceWord,
)
from harmonizer_assets.core.importers.files import as_list, as_object, read_json
from harmonizer_assets.core.importers.images import size_beside
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.records.boxes import Points

_ENDS_LINE: Final = frozenset({"EOL_SURE_SPACE", "LINE_BREAK", "HYPHEN", 3, 4, 5})
"""Kinds of breaks after which a new line begins, by name and by number."""
_CAPITAL: Final = re.compile(r"(?<!^)(?=[A-Z])")


class GoogleVision(Importer):
    """Responses of TEXT_DETECTION and DOCUMENT_TEXT_DETECTION."""

    name = "google-vision"
    suffixes = (".json",)
    describes = "Google Vision: text annotations"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the pages of all responses in a file."""
        path = source.path
        responses = _responses(read_json(path))
        if responses is None:
            raise InputError(f"{path}: not a response of Google Vision: it has no text annotations")
        for number, response in enumerate(responses):
            name = source.name if len(responses) == 1 else f"{source.name}/{number}"
            row = f"response {number}"
            try:
                yield from [*_pages(source, name, row, as_object(response, row), options)]
            except MALFORMED as error:
                yield not_as("Google Vision", path, row, error)


def _get(of: Mapping[str, Any], name: str) -> Any:
    """Return a member by its name in camel case or in snake case."""
    return of.get(name, of.get(_CAPITAL.sub("_", name).lower()))


def _responses(content: Any) -> Sequence[Any] | None:
    if isinstance(content, Mapping) and isinstance(content.get("responses"), list):
        return [*content["responses"]]
    several = content if isinstance(content, list) else [content]
    names = ("fullTextAnnotation", "textAnnotations")
    is_known = all(
        isinstance(one, Mapping) and any(_get(one, name) is not None for name in names)
        for one in several
    )
    return several if is_known and several else None


def _pages(
    source: SourceFile, name: str, row: str, response: Mapping[str, Any], options: ImportOptions
) -> Iterator[Read]:
    error = response.get("error")
    if error:
        yield Problem(source.path, row, f"Google reported an error: {str(error)[:200]}")
        return
    full = _get(response, "fullTextAnnotation")
    pages = as_list(as_object(full, "fullTextAnnotation").get("pages"), "pages") if full else ()
    for number, page in enumerate(pages, start=1):
        one = as_object(page, "a page")
        words = [*_words(one, f"{row}, page {number}")]
        size = _size(one, source, options)
        in_shares = any(is_share for _, is_share in words)
        yield SourceReceipt(
            name,
            source.path,
            [word for word, _ in words],
            f"{row}, page {number}",
            number,
            size=size,
            unit="share" if in_shares else "pixel",
        )
    if not pages:
        yield _simple(source, name, row, response, options)


def _size(
    page: Mapping[str, Any], source: SourceFile, options: ImportOptions
) -> tuple[float, float] | None:
    width, height = page.get("width"), page.get("height")
    if width and height:
        return (width, height)
    return size_beside(source.path, [options.images, source.path.parent])


def _words(page: Mapping[str, Any], row: str) -> Iterator[tuple[SourceWord, bool]]:
    line = number = 0
    for block in as_list(page.get("blocks"), "blocks"):
        for paragraph in as_list(as_object(block, "a block").get("paragraphs"), "paragraphs"):
            line += 1
            for word in as_list(as_object(paragraph, "a paragraph").get("words"), "words"):
                one = as_object(word, "a word")
                symbols = [as_object(s, "a symbol") for s in as_list(one.get("symbols"), "symbols")]
                points, is_share = _points(_get(one, "boundingBox"))
                yield (
                    SourceWord(
                        "".join(str(symbol.get("text", "")) for symbol in symbols),
                        points,
                        line=line,
                        row=f"{row}, word {number}",
                        confidence=one.get("confidence"),
                    ),
                    is_share,
                )
                number += 1
                line += _ends_line(symbols)


def _ends_line(symbols: Sequence[Mapping[str, Any]]) -> bool:
    if not symbols:
        return False
    told = as_object(symbols[-1].get("property") or {}, "property")
    return as_object(_get(told, "detectedBreak") or {}, "a break").get("type") in _ENDS_LINE


def _points(box: Any) -> tuple[Points | None, bool]:
    """Return the corners, and whether they are shares of the image."""
    if box is None:
        return None, False
    inner = as_object(box, "the box")
    shares = _get(inner, "normalizedVertices")
    corners = as_list(shares or inner.get("vertices"), "vertices")
    if not corners:
        return None, False
    found = [as_object(corner, "a vertex") for corner in corners]
    return tuple((corner.get("x", 0), corner.get("y", 0)) for corner in found), bool(shares)


def _simple(
    source: SourceFile,
    name: str,
    row: str,
    response: Mapping[str, Any],
    options: ImportOptions,
) -> SourceReceipt:
    """Read `textAnnotations`: the first is the whole text, the others are its words."""
    annotations = as_list(_get(response, "textAnnotations"), "textAnnotations")
    words = []
    for number, annotation in enumerate(annotations[1:], start=1):
        one = as_object(annotation, f"annotation {number}")
        points, _ = _points(_get(one, "boundingPoly"))
        where = f"{row}, annotation {number}"
        words.append(SourceWord(one.get("description"), points, row=where))
    size = size_beside(source.path, [options.images, source.path.parent])
    return SourceReceipt(name, source.path, words, row, size=size)
