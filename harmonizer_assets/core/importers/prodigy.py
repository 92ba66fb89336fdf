"""Prodigy: tasks on texts (`ner_manual`) and images (`image_manual`), as `db-out` writes them.

Spans of rejected or ignored tasks are not taken. Spans on images are words where they have a text.

Format: https://prodi.gy/docs/api-interfaces
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harmonizer_assets.core.importers.base import (
    ImportOptions,
    Problem,
    Read,
    SourceLabel,
    SourceReceipt,
    SourceWord,
)
from harmonizer_assets.core.importers.files import as_list, as_object
from harmonizer_assets.core.importers.ids import of_path
from harmonizer_assets.core.importers.images import size_beside
from harmonizer_assets.core.importers.json_tasks import Task, TaskImporter
from harmonizer_assets.core.importers.spans import Span
from harmonizer_assets.core.importers.texts import Token, tokens
from harmonizer_assets.core.records.boxes import Points, sized


class Prodigy(TaskImporter):
    """Tasks with spans on texts or images."""

    name = "prodigy"
    suffixes = (".jsonl",)
    describes = "Prodigy: spans on texts or images as JSONL"
    tool = "Prodigy"
    task = "the task"

    def receipts(self, task: Task, options: ImportOptions) -> Iterator[Read]:
        """Read a task."""
        content = task.content
        answer = content.get("answer", "accept")
        spans = as_list(content.get("spans"), "spans")
        if answer != "accept" and spans:
            yield Problem(
                task.source.path,
                task.row,
                f"its {len(spans)} spans are not taken: the answer is {answer}",
                is_left_out=False,
            )
        taken = [as_object(span, "a span") for span in spans] if answer == "accept" else []
        if isinstance(content.get("text"), str):
            yield from _of_text(task, taken)
        elif isinstance(content.get("image"), str):
            yield _of_image(task, taken, options)
        else:
            raise ValueError("it has neither text nor image")


def _own_id(task: Task) -> Any:
    meta = task.content.get("meta")
    return task.content.get("id") or (meta.get("id") if isinstance(meta, Mapping) else None)


def _label(task: Task, name: Any) -> SourceLabel:
    by = task.content.get("_annotator_id") or task.content.get("_session_id")
    annotator = None if by is None else str(by)
    return SourceLabel(str(name), annotator=annotator, origin="annotation")


def _of_text(task: Task, spans: Sequence[Mapping[str, Any]]) -> Iterator[Read]:
    text = task.content["text"]
    given = as_list(task.content.get("tokens"), "tokens")
    labels = [
        Span(span.get("start"), span.get("end"), _label(task, span["label"])) for span in spans
    ]
    yield from task.of_text(_own_id(task), _tokens(text, given) if given else tokens(text), labels)


def _tokens(text: str, given: Sequence[Any]) -> list[Token]:
    """Read Prodigy's own tokens; those that are only white space are none."""
    found = []
    line = at = 0
    for one in given:
        token = as_object(one, "a token")
        start, end = int(token["start"]), int(token["end"])
        line += text.count("\n", at, start)
        at = max(at, start)
        if str(token["text"]).strip():
            found.append(Token(str(token["text"]), start, end, line))
    return found


def _of_image(
    task: Task, spans: Sequence[Mapping[str, Any]], options: ImportOptions
) -> SourceReceipt:
    content, path = task.content, task.source.path
    image = str(content.get("path") or content["image"])
    image = "" if image.startswith("data:") else image
    words = [
        SourceWord(
            span.get("text", span.get("transcription")),
            _points(span),
            labels=() if span.get("label") is None else (_label(task, span["label"]),),
            row=f"{task.row}, span {place}",
        )
        for place, span in enumerate(spans)
    ]
    width, height = content.get("width"), content.get("height")
    size = (
        (width, height)
        if width and height
        else size_beside(path, [options.images, path.parent], image or None)
    )
    by_image = image and content.get("id") is None
    name = of_path(image) if by_image else task.source_id(_own_id(task))
    return SourceReceipt(name, path, words, task.row, size=size, image=image or None)


def _points(span: Mapping[str, Any]) -> Points | None:
    points = as_list(span.get("points"), "points")
    if points:
        corners = [as_list(point, "a point") for point in points]
        return tuple((corner[0], corner[1]) for corner in corners)
    if "x" in span:
        return sized(*(span.get(side) for side in ("x", "y", "width", "height")))
    return None
