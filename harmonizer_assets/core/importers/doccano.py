"""doccano: documents of a project for sequence labelling, as JSONL.

`label` (or `labels`) holds `[start, end, name]`, `entities` objects with offsets. A document is a
receipt, its lines are those of its text, and it has no positions.

Format: https://doccano.github.io/doccano/tutorial/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
from harmonizer_assets.core.importers.files import as_list, as_object, json_records
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.importers.spans import Span, labelled
from harmonizer_assets.core.importers.texts import tokens


class Doccano(Importer):
    """Texts with labelled spans."""

    name = "doccano"
    suffixes = (".jsonl", ".json")
    describes = "doccano: texts with labelled spans as JSONL"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the documents of a file."""
        del options
        for row, number, document in json_records(source.path):
            try:
                yield from [*_document(source, row, number, document)]
            except MALFORMED as error:
                yield not_as("doccano", source.path, row, error)


def _document(source: SourceFile, row: str, number: int, document: Any) -> Iterator[Read]:
    if isinstance(document, Exception):
        raise ValueError(str(document))
    content = as_object(document, "the document")
    text = content.get("text", content.get("data"))
    if not isinstance(text, str):
        raise ValueError("text is missing")
    by = content.get("username", content.get("annotator"))
    words = []
    for one in labelled(
        tokens(text), _spans(content, None if by is None else str(by)), source.path, row
    ):
        if isinstance(one, Problem):
            yield one
        elif isinstance(one, SourceWord):
            words.append(one)
    own = content.get("id")
    merchant = content.get("merchant")
    yield SourceReceipt(
        f"{source.name}/{number}" if own is None else str(own),
        source.path,
        words,
        row,
        merchant_name=merchant if isinstance(merchant, str) else None,
    )


def _spans(document: Mapping[str, Any], by: str | None) -> Iterator[Span]:
    for one in as_list(document.get("entities"), "entities"):
        entity = as_object(one, "an entity")
        label = SourceLabel(str(entity["label"]), annotator=by, origin="annotation")
        yield Span(entity.get("start_offset"), entity.get("end_offset"), label)
    for one in as_list(document.get("label", document.get("labels")), "label"):
        start, end, name = as_list(one, "a span")
        yield Span(start, end, SourceLabel(str(name), annotator=by, origin="annotation"))
