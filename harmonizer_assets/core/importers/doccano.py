"""doccano: documents of a project for sequence labelling, as JSONL.

`label` (or `labels`) holds `[start, end, name]`, `entities` objects with offsets. A document is a
receipt, its lines are those of its text, and it has no positions.

Format: https://doccano.github.io/doccano/tutorial/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harmonizer_assets.core.importers.base import ImportOptions, Read, SourceLabel
from harmonizer_assets.core.importers.files import as_list, as_object
from harmonizer_assets.core.importers.json_tasks import Task, TaskImporter
from harmonizer_assets.core.importers.spans import Span
from harmonizer_assets.core.importers.texts import tokens


class Doccano(TaskImporter):
    """Texts with labelled spans."""

    name = "doccano"
    suffixes = (".jsonl", ".json")
    describes = "doccano: texts with labelled spans as JSONL"
    tool = "doccano"
    task = "the document"

    def receipts(self, task: Task, options: ImportOptions) -> Iterator[Read]:
        """Read a document."""
        del options
        content = task.content
        text = content.get("text", content.get("data"))
        if not isinstance(text, str):
            raise ValueError("text is missing")
        by = content.get("username", content.get("annotator"))
        spans = [*_spans(content, None if by is None else str(by))]
        yield from task.of_text(content.get("id"), tokens(text), spans, content.get("merchant"))


def _spans(document: Mapping[str, Any], by: str | None) -> Iterator[Span]:
    for one in as_list(document.get("entities"), "entities"):
        entity = as_object(one, "an entity")
        label = SourceLabel(str(entity["label"]), annotator=by, origin="annotation")
        yield Span(entity.get("start_offset"), entity.get("end_offset"), label)
    for one in as_list(document.get("label", document.get("labels")), "label"):
        start, end, name = as_list(one, "a span")
        yield Span(start, end, SourceLabel(str(name), annotator=by, origin="annotation"))
