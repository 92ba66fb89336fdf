"""Azure Document Intelligence: the result of an analysis, as JSON.

Words carry polygons in pixels or inches of their page. A line holds the words whose place in the
text is within its own. Fields of prebuilt models, such as `MerchantName`, are labels of the words
that they are made of, with the origin `documents`. Results of Form Recognizer 2 (`readResults`) are
read, too.

Format: https://learn.microsoft.com/rest/api/aiservices/document-models/get-analyze-result
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.base import (
    Importer,
    ImportOptions,
    Read,
    SourceFile,
    SourceLabel,
    SourceReceipt,
    SourceWord,
)
from harmonizer_assets.core.importers.files import as_list, as_object, read_json
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.records.boxes import Points, flat

_Span = tuple[int, int]
_Fields = list[tuple[_Span, str, float | None]]
_DEEPEST: Final = 10


class Azure(Importer):
    """Results of the read, layout and prebuilt models."""

    name = "azure"
    suffixes = (".json",)
    describes = "Azure Document Intelligence: pages, and the fields of prebuilt models as labels"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the pages of a result."""
        del options
        path = source.path
        content = read_json(path)
        result = content.get("analyzeResult", content) if isinstance(content, Mapping) else None
        if not isinstance(result, Mapping) or not ("pages" in result or "readResults" in result):
            raise InputError(
                f"{path}: not a result of Azure Document Intelligence: it has no pages"
            )
        try:
            fields = [*_all_fields(result)]
            pages = as_list(result.get("pages") or result.get("readResults"), "pages")
        except MALFORMED as error:
            raise InputError(str(not_as("Azure", path, "", error))) from error
        for number, page in enumerate(pages, start=1):
            row = f"page {number}"
            try:
                yield _page(source, row, number, as_object(page, row), fields)
            except MALFORMED as error:
                yield not_as("Azure", path, row, error)


def _page(
    source: SourceFile, row: str, number: int, page: Mapping[str, Any], fields: _Fields
) -> SourceReceipt:
    width, height = page.get("width"), page.get("height")
    old = "words" not in page and any("words" in line for line in page.get("lines") or ())
    words = _words_of_lines(page, row) if old else _words(page, row, fields)
    return SourceReceipt(
        source.name,
        source.path,
        [*words],
        row,
        int(page.get("pageNumber") or page.get("page") or number),
        size=(width, height) if width and height else None,
    )


def _words(page: Mapping[str, Any], row: str, fields: _Fields) -> Iterator[SourceWord]:
    lines = sorted(
        (span, place)
        for place, line in enumerate(as_list(page.get("lines"), "lines"))
        for span in _spans(as_object(line, f"line {place}"))
    )
    starts = [span for span, _ in lines]
    for place, word in enumerate(as_list(page.get("words"), "words")):
        one = as_object(word, f"word {place}")
        span = _span(one.get("span"))
        yield SourceWord(
            one.get("content"),
            _points(one.get("polygon", one.get("boundingBox"))),
            line=_line_at(span, lines, starts),
            labels=tuple(_labels_at(span, fields)),
            row=f"{row}, word {place}",
            confidence=one.get("confidence"),
        )


def _words_of_lines(page: Mapping[str, Any], row: str) -> Iterator[SourceWord]:
    for number, line in enumerate(as_list(page.get("lines"), "lines")):
        for place, word in enumerate(as_list(as_object(line, "a line").get("words"), "words")):
            one = as_object(word, "a word")
            yield SourceWord(
                one.get("text"),
                _points(one.get("boundingBox")),
                line=number,
                row=f"{row}, line {number}, word {place}",
                confidence=one.get("confidence"),
            )


def _points(polygon: Any) -> Points | None:
    if polygon is None:
        return None
    numbers = as_list(polygon, "polygon")
    if numbers and isinstance(numbers[0], Mapping):
        return tuple((corner.get("x"), corner.get("y")) for corner in numbers)
    return flat(numbers)


def _span(value: Any) -> _Span | None:
    if value is None:
        return None
    one = as_object(value, "span")
    return int(one.get("offset", 0)), int(one.get("offset", 0)) + int(one.get("length", 0))


def _spans(of: Mapping[str, Any]) -> list[_Span]:
    return [span for one in as_list(of.get("spans"), "spans") if (span := _span(one)) is not None]


def _line_at(
    span: _Span | None, lines: Sequence[tuple[_Span, int]], starts: Sequence[_Span]
) -> int | None:
    if span is None:
        return None
    place = bisect_right(starts, (span[0], 1 << 62)) - 1
    if place >= 0 and span[0] < lines[place][0][1]:
        return lines[place][1]
    return None


def _all_fields(result: Mapping[str, Any]) -> Iterator[tuple[_Span, str, float | None]]:
    for document in as_list(result.get("documents"), "documents"):
        fields = as_object(as_object(document, "a document").get("fields") or {}, "fields")
        for name, field in fields.items():
            yield from _fields(name, field, 0)


def _fields(name: str, field: Any, depth: int) -> Iterator[tuple[_Span, str, float | None]]:
    """Yield the spans of a field with its name; of a composed one, those of its parts."""
    if not isinstance(field, Mapping) or depth > _DEEPEST:
        return
    inner = field.get("valueObject") or {}
    for part, value in inner.items() if isinstance(inner, Mapping) else ():
        yield from _fields(f"{name}.{part}", value, depth + 1)
    items = field.get("valueArray") or ()
    for item in items if isinstance(items, list) else ():
        yield from _fields(name, item, depth + 1)
    if not inner and not items:
        for span in _spans(field):
            yield span, name, field.get("confidence")


def _labels_at(span: _Span | None, fields: _Fields) -> Iterator[SourceLabel]:
    for (start, end), name, confidence in fields:
        if span is not None and start <= span[0] and span[1] <= end:
            yield SourceLabel(name, origin="documents", confidence=confidence)
