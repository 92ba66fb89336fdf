"""Amazon Textract: blocks of a response, and the fields of AnalyzeExpense as labels.

A file holds one response as JSON, or the list of responses of a document with several parts. Words
within the value of a field carry the field's type as label, such as `TOTAL`, with the origin
`AnalyzeExpense`.

Format: https://docs.aws.amazon.com/textract/latest/dg/how-it-works-document-layout.html
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.base import (
    Importer,
    ImportOptions,
    Problem,
    Read,
    SourceFile,
    SourceLabel,
    SourceReceipt,
    SourceWord,
)
from harmonizer_assets.core.importers.files import as_list, as_object, read_json
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.records.boxes import Points, sized

_WRAPPERS: Final = ("Blocks", "ExpenseDocuments")
_NO_FILE: Final = Path()
_ORIGIN: Final = "AnalyzeExpense"
_TOO_VAGUE: Final = ("OTHER", "EXPENSE_ROW", "")
"""Types of fields that say nothing about a word."""


class Textract(Importer):
    """Responses of DetectDocumentText, AnalyzeDocument and AnalyzeExpense."""

    name = "textract"
    suffixes = (".json",)
    describes = "Amazon Textract: lines and words, and the fields of AnalyzeExpense as labels"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the pages of a response."""
        del options
        blocks, fields = _parts(source, read_json(source.path))
        pages: dict[int, list[SourceWord]] = defaultdict(list)
        for page, word in _words(blocks):
            if isinstance(word, Problem):
                yield replace(word, file=source.path)
            else:
                pages[page].append(word)
        for page, words in sorted(pages.items()):
            labelled = _labelled(words, [field for field in fields if field.page == page])
            yield SourceReceipt(
                source.name, source.path, labelled, f"page {page}", page, unit="share"
            )


@dataclass(frozen=True)
class _Field:
    """A field of an expense: its type, where its value is, and how sure Textract is of it."""

    name: str
    page: int
    area: tuple[float, float, float, float]
    confidence: float | None


def _parts(source: SourceFile, content: Any) -> tuple[list[Any], list[_Field]]:
    """Collect the blocks and fields of all responses.

    Raises:
        InputError: it is no response of Textract.
    """
    path = source.path
    responses = content if isinstance(content, list) else [content]
    blocks: list[Any] = []
    fields: list[_Field] = []
    for response in responses:
        if not isinstance(response, Mapping) or not any(name in response for name in _WRAPPERS):
            raise InputError(f"{path}: not a response of Textract: it has no Blocks")
        try:
            blocks += as_list(response.get("Blocks"), "Blocks")
            for document in as_list(response.get("ExpenseDocuments"), "ExpenseDocuments"):
                blocks += as_list(as_object(document, "a document").get("Blocks"), "Blocks")
                fields += _fields(document)
        except MALFORMED as error:
            raise InputError(str(not_as("Textract", path, "", error))) from error
    return blocks, fields


def _words(blocks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the words with their pages, in the order of the lines that hold them."""
    lines = _lines(blocks)
    for number, block in enumerate(blocks):
        row = f"block {number}"
        if not isinstance(block, Mapping):
            yield 1, Problem(_NO_FILE, row, "not as Textract has it: no object")
        elif block.get("BlockType") == "WORD":
            try:
                page, confidence = int(block.get("Page") or 1), block.get("Confidence")
                identity = block.get("Id")
                yield (
                    page,
                    SourceWord(
                        block.get("Text"),
                        _points(block.get("Geometry")),
                        line=lines.get(identity, f"word {number}"),
                        row=f"{row}, word {str(block.get('Text'))[:20]!r}",
                        confidence=None if confidence is None else float(confidence) / 100,
                    ),
                )
            except MALFORMED as error:
                yield 1, not_as("Textract", _NO_FILE, row, error)


def _lines(blocks: Sequence[Any]) -> dict[Any, Any]:
    """Return the line of each word, by their ids."""
    found: dict[Any, Any] = {}
    for block in blocks:
        if isinstance(block, Mapping) and block.get("BlockType") == "LINE":
            relations = block.get("Relationships")
            for relation in relations if isinstance(relations, list) else ():
                if isinstance(relation, Mapping) and relation.get("Type") == "CHILD":
                    ids = relation.get("Ids")
                    for word in ids if isinstance(ids, list) else ():
                        if isinstance(word, str):
                            found.setdefault(word, str(block.get("Id")))
    return found


def _points(geometry: Any) -> Points | None:
    """Return the corners of a word: its polygon, else its box."""
    if geometry is None:
        return None
    polygon = as_list(as_object(geometry, "Geometry").get("Polygon"), "Polygon")
    if len(polygon) == 4:
        corners = [as_object(point, "a point") for point in polygon]
        return tuple((point.get("X"), point.get("Y")) for point in corners)
    box = geometry.get("BoundingBox")
    return (
        None
        if box is None
        else sized(
            *(
                as_object(box, "BoundingBox").get(side)
                for side in ("Left", "Top", "Width", "Height")
            )
        )
    )


def _fields(document: Mapping[str, Any]) -> Iterator[_Field]:
    open_ = [*as_list(document.get("SummaryFields"), "SummaryFields")]
    for group in as_list(document.get("LineItemGroups"), "LineItemGroups"):
        for item in as_list(as_object(group, "a group").get("LineItems"), "LineItems"):
            inner = as_object(item, "an item").get("LineItemExpenseFields")
            open_ += as_list(inner, "LineItemExpenseFields")
    for field in open_:
        found = _field(as_object(field, "a field"))
        if found is not None:
            yield found


def _field(field: Mapping[str, Any]) -> _Field | None:
    kind = as_object(field.get("Type") or {}, "Type")
    value = as_object(field.get("ValueDetection") or {}, "ValueDetection")
    box = as_object(value.get("Geometry") or {}, "Geometry").get("BoundingBox")
    name = str(kind.get("Text") or "")
    if name in _TOO_VAGUE or box is None:
        return None
    left, top, width, height = (float(box[side]) for side in ("Left", "Top", "Width", "Height"))
    confidence = value.get("Confidence")
    return _Field(
        name,
        int(field.get("PageNumber") or 1),
        (left, top, left + width, top + height),
        None if confidence is None else float(confidence) / 100,
    )


def _labelled(words: Sequence[SourceWord], fields: Sequence[_Field]) -> list[SourceWord]:
    """Label words whose middle is within the value of a field."""
    found = []
    for word in words:
        middle = _middle(word.points)
        labels = [
            SourceLabel(field.name, origin=_ORIGIN, confidence=field.confidence)
            for field in fields
            if middle is not None and _holds(field.area, middle)
        ]
        found.append(replace(word, labels=tuple(labels)) if labels else word)
    return found


def _middle(points: Points | None) -> tuple[float, float] | None:
    try:
        numbers = [(float(x), float(y)) for x, y in points or ()]
    except (TypeError, ValueError):
        return None
    if not numbers:
        return None
    return (
        sum(x for x, _ in numbers) / len(numbers),
        sum(y for _, y in numbers) / len(numbers),
    )


def _holds(area: tuple[float, float, float, float], point: tuple[float, float]) -> bool:
    left, top, right, bottom = area
    return left <= point[0] <= right and top <= point[1] <= bottom
