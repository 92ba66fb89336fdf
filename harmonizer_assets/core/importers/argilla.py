"""Argilla: records with spans, of version 2 and of token classification before.

Version 2 writes `fields`, `responses` and `suggestions` by question; a span is `{"start", "end",
"label"}`. Before, a record had `text`, `annotation` and `prediction` as lists of `[name, start,
end]`. What is suggested or predicted is taken with `--predictions`. Responses that are only drafts,
or discarded, are not taken.

Format: https://docs.argilla.io/latest/reference/argilla/records/records
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harmonizer_assets.core.importers.base import ImportOptions, Problem, Read, SourceLabel
from harmonizer_assets.core.importers.files import as_list, as_object
from harmonizer_assets.core.importers.json_tasks import Task, TaskImporter
from harmonizer_assets.core.importers.spans import Span
from harmonizer_assets.core.importers.texts import tokens


class Argilla(TaskImporter):
    """Texts with labelled spans."""

    name = "argilla"
    suffixes = (".json", ".jsonl", ".ndjson")
    describes = "Argilla: records with spans as JSON"
    tool = "Argilla"
    task = "the record"

    def receipts(self, task: Task, options: ImportOptions) -> Iterator[Read]:
        """Read a record."""
        content = task.content
        fields = as_object(content.get("fields") or content, "fields")
        text = fields.get("text")
        if not isinstance(text, str):
            text = next((value for value in fields.values() if isinstance(value, str)), None)
        if text is None:
            raise ValueError("it has no field with a text")
        given, proposed = [*_given(content)], [*_proposed(content)]
        if proposed and not options.predictions:
            yield Problem(
                task.source.path,
                task.row,
                f"{len(proposed)} labels that a model has proposed are not taken",
                "--predictions takes them",
                is_left_out=False,
            )
        spans = [*given, *(proposed if options.predictions else ())]
        yield from task.of_text(content.get("id"), tokens(text), spans, fields.get("merchant"))


def _given(record: Mapping[str, Any]) -> Iterator[Span]:
    """Yield what people have said."""
    for responses in as_object(record.get("responses") or {}, "responses").values():
        for response in as_list(responses, "responses"):
            one = as_object(response, "a response")
            if one.get("status", "submitted") == "submitted":
                by = one.get("user_id")
                yield from _spans(one.get("value"), None if by is None else str(by), "annotation")
    by = record.get("annotation_agent")
    yield from _old(record.get("annotation"), None if by is None else str(by), "annotation")


def _proposed(record: Mapping[str, Any]) -> Iterator[Span]:
    """Yield what models have said."""
    suggestions = as_object(record.get("suggestions") or {}, "suggestions")
    for suggestion in suggestions.values():
        one = as_object(suggestion, "a suggestion")
        yield from _spans(one.get("value"), None, f"prediction {one.get('agent') or ''}".strip())
    agent = record.get("prediction_agent") or ""
    yield from _old(record.get("prediction"), None, f"prediction {agent}".strip())


def _spans(value: Any, by: str | None, origin: str) -> Iterator[Span]:
    for span in value if isinstance(value, list) else ():
        if isinstance(span, Mapping) and "start" in span:
            label = SourceLabel(str(span["label"]), annotator=by, origin=origin)
            yield Span(span["start"], span.get("end"), label)


def _old(value: Any, by: str | None, origin: str) -> Iterator[Span]:
    for span in as_list(value, "annotation"):
        name, start, end, *_ = as_list(span, "a span")
        yield Span(start, end, SourceLabel(str(name), annotator=by, origin=origin))
