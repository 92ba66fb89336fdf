"""PaddleOCR: what it saves as JSON, lists as version 2 returns them, and files of PPOCRLabel.

Version 3 saves an object with `rec_texts` and `rec_polys` for each page. Version 2 returns
`[corners, [text, confidence]]` for each line of a page. PPOCRLabel writes a line for each image:
its path, a tabulator, and a list of lines with `transcription`, `points` and `key_cls`, the label.
Lines are split into words, each with its share of the line's box.

Format: https://www.paddleocr.ai/latest/en/version3.x/pipeline_usage/OCR.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
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
from harmonizer_assets.core.importers.files import (
    as_list,
    as_object,
    json_lines,
    parse_json,
    read_json,
)
from harmonizer_assets.core.importers.ids import of_path
from harmonizer_assets.core.importers.images import size_beside
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.importers.texts import split_line
from harmonizer_assets.core.records.boxes import Points, flat

_NO_LABELS: Final = ("None", "none", "")


class PaddleOcr(Importer):
    """Texts of lines with their corners."""

    name = "paddleocr"
    suffixes = (".json", ".txt")
    describes = "PaddleOCR: saved results, and labels of PPOCRLabel"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the pages of a file."""
        path = source.path
        pages = _labelled_images(path) if path.suffix.lower() == ".txt" else _saved(path)
        for number, (row, image, read) in enumerate(pages, start=1):
            try:
                words = [*_words(read(), row)]
            except MALFORMED as error:
                yield not_as("PaddleOCR", path, row, error)
                continue
            is_label_file = path.suffix.lower() == ".txt"
            yield SourceReceipt(
                of_path(image) if is_label_file and image else source.name,
                path,
                words,
                row,
                1 if is_label_file else number,
                size=size_beside(path, [options.images, path.parent, path.parent.parent], image),
                image=image,
            )


_Line = tuple[str, Any, Points | None, float | None, str | None]
"""Row, text, corners, confidence and label of a line."""


def _saved(path: Path) -> Iterator[tuple[str, str | None, Any]]:
    content = read_json(path)
    several = content if isinstance(content, list) and content else [content]
    if all(isinstance(one, Mapping) for one in several):
        for number, one in enumerate(several, start=1):
            page = one.get("res", one)
            if not isinstance(page, Mapping) or "rec_texts" not in page:
                raise InputError(f"{path}: not a result of PaddleOCR: it has no rec_texts")
            image = page.get("input_path")
            row = f"page {number}"
            yield row, image if isinstance(image, str) else None, _bound(_of_version_3, page, row)
        return
    pages = several if not _is_line(several[0]) else [several]
    if not all(isinstance(page, list | None) for page in pages):
        raise InputError(f"{path}: not a result of PaddleOCR: neither pages nor lines")
    for number, page in enumerate(pages, start=1):
        row = f"page {number}"
        yield row, None, _bound(_of_version_2, page or [], row)


def _bound(read: Any, page: Any, row: str) -> Any:
    return lambda: read(page, row)


def _is_line(value: Any) -> bool:
    """Return whether a value is corners and a text, as of version 2."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[1], list)
        and len(value[1]) == 2
        and isinstance(value[1][0], str)
    )


def _of_version_3(page: Mapping[str, Any], row: str) -> Iterator[_Line]:
    texts = as_list(page["rec_texts"], "rec_texts")
    places = as_list(page.get("rec_polys") or page.get("rec_boxes"), "rec_polys")
    scores = as_list(page.get("rec_scores"), "rec_scores")
    if places and len(places) != len(texts):
        raise ValueError(f"{len(texts)} texts and {len(places)} places")
    for number, text in enumerate(texts):
        points = _points(places[number]) if places else None
        score = scores[number] if number < len(scores) else None
        yield f"{row}, text {number}", text, points, score, None


def _of_version_2(page: Sequence[Any], row: str) -> Iterator[_Line]:
    for number, line in enumerate(page):
        if not _is_line(line):
            raise ValueError(f"line {number} is not corners and a text")
        yield f"{row}, line {number}", line[1][0], _points(line[0]), line[1][1], None


def _labelled_images(path: Path) -> Iterator[tuple[str, str | None, Any]]:
    for number, line in json_lines(path):
        image, tab, written = line.strip().partition("\t")
        if not tab:
            raise InputError(
                f"{path}: line {number}: not of PPOCRLabel: write the image, a tabulator and a list"
            )
        row = f"line {number}"
        yield row, image, _bound(_of_label_file, written, row)


def _of_label_file(written: str, row: str) -> Iterator[_Line]:
    try:
        lines = as_list(parse_json(written, row), "the list")
    except InputError as error:
        raise ValueError(str(error).removeprefix(f"{row}: ")) from error
    for number, line in enumerate(lines):
        one = as_object(line, f"text {number}")
        label = one.get("key_cls")
        name = label if isinstance(label, str) and label not in _NO_LABELS else None
        text = one.get("transcription")
        yield f"{row}, text {number}", text, _points(one.get("points")), None, name


def _points(corners: Any) -> Points | None:
    if corners is None:
        return None
    found = as_list(corners, "the corners")
    if found and not isinstance(found[0], list):
        return flat(found)
    return tuple((corner[0], corner[1]) for corner in found)


def _words(lines: Iterator[_Line], page: str) -> Iterator[SourceWord]:
    del page
    for number, (row, text, points, confidence, label) in enumerate(lines):
        labels = (SourceLabel(label, origin="annotation"),) if label else ()
        if not isinstance(text, str) or not text.strip():
            yield SourceWord(text, points, line=number, row=row)
            continue
        for place, (word, part) in enumerate(split_line(text, points)):
            yield SourceWord(
                word,
                part,
                line=number,
                labels=labels,
                row=f"{row}, word {place}",
                confidence=confidence,
            )
