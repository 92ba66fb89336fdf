"""Prodigy: tasks on texts (`ner_manual`) and images (`image_manual`), as `db-out` writes them.

Spans of rejected or ignored tasks are not taken. Spans on images are words where they have a text.

Format: https://prodi.gy/docs/api-interfaces
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from harmonizer_assets.core.importers.boxes import Points, sized
from harmonizer_assets.core.importers.files import as_list, as_object, json_records
from harmonizer_assets.core.importers.ids import of_path
from harmonizer_assets.core.importers.images import size_beside
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.importers.spans import Span, labelled
from harmonizer_assets.core.importers.texts import Token, tokens


class Prodigy(Importer):
    """Tasks with spans on texts or images."""

    name = "prodigy"
    suffixes = (".jsonl",)
    describes = "Prodigy: spans on texts or images as JSONL"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the tasks of a file."""
        for row, number, task in json_records(source.path):
            try:
                yield from [*_task(source, row, number, task, options)]
            except MALFORMED as error:
                yield not_as("Prodigy", source.path, row, error)


def _task(
    source: SourceFile, row: str, number: int, task: Any, options: ImportOptions
) -> Iterator[Read]:
    if isinstance(task, Exception):
        raise ValueError(str(task))
    content = as_object(task, "the task")
    answer = content.get("answer", "accept")
    spans = as_list(content.get("spans"), "spans")
    if answer != "accept" and spans:
        yield Problem(
            source.path,
            row,
            f"its {len(spans)} spans are not taken: the answer is {answer}",
            is_left_out=False,
        )
    taken = [as_object(span, "a span") for span in spans] if answer == "accept" else []
    by = content.get("_annotator_id") or content.get("_session_id")
    annotator = None if by is None else str(by)
    if isinstance(content.get("text"), str):
        yield from _of_text(source, row, number, content, taken, annotator)
    elif isinstance(content.get("image"), str):
        yield _of_image(source, row, number, content, taken, annotator, options)
    else:
        raise ValueError("it has neither text nor image")


def _name(source: SourceFile, number: int, task: Mapping[str, Any]) -> str:
    meta = task.get("meta")
    own = task.get("id") or (meta.get("id") if isinstance(meta, Mapping) else None)
    return f"{source.name}/{number}" if own is None else str(own)


def _of_text(
    source: SourceFile,
    row: str,
    number: int,
    task: Mapping[str, Any],
    spans: Sequence[Mapping[str, Any]],
    by: str | None,
) -> Iterator[Read]:
    given = as_list(task.get("tokens"), "tokens")
    found = _tokens(task["text"], given) if given else tokens(task["text"])
    labels = [
        Span(
            span.get("start"),
            span.get("end"),
            SourceLabel(str(span["label"]), annotator=by, origin="annotation"),
        )
        for span in spans
    ]
    words = []
    for one in labelled(found, labels, source.path, row):
        if isinstance(one, Problem):
            yield one
        else:
            words.append(one)
    yield SourceReceipt(_name(source, number, task), source.path, words, row)


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
    source: SourceFile,
    row: str,
    number: int,
    task: Mapping[str, Any],
    spans: Sequence[Mapping[str, Any]],
    by: str | None,
    options: ImportOptions,
) -> SourceReceipt:
    image = str(task.get("path") or task["image"])
    image = "" if image.startswith("data:") else image
    width, height = task.get("width"), task.get("height")
    words = []
    for place, span in enumerate(spans):
        label = span.get("label")
        words.append(
            SourceWord(
                span.get("text", span.get("transcription")),
                _points(span),
                labels=()
                if label is None
                else (SourceLabel(str(label), annotator=by, origin="annotation"),),
                row=f"{row}, span {place}",
            )
        )
    size = (
        (width, height)
        if width and height
        else size_beside(source.path, [options.images, source.path.parent], image or None)
    )
    name = of_path(image) if image and task.get("id") is None else _name(source, number, task)
    return SourceReceipt(name, source.path, words, row, size=size, image=image or None)


def _points(span: Mapping[str, Any]) -> Points | None:
    points = as_list(span.get("points"), "points")
    if points:
        corners = [as_list(point, "a point") for point in points]
        return tuple((corner[0], corner[1]) for corner in corners)
    if "x" in span:
        return sized(*(span.get(side) for side in ("x", "y", "width", "height")))
    return None
