"""Token classification as on the Hugging Face hub: Parquet, or JSON lines.

A record has words (`tokens` or `words`), boxes (`bboxes`, `boxes` or `bbox`) and labels
(`ner_tags`, `labels`, `tags`), as names or as numbers of classes. The names of the classes come
from the Parquet file, or from `dataset_info.json`, `dataset_infos.json`, `README.md` or
`classes.txt` (one name on each line) beside the file or one folder up. `id` and `image_path` are
optional.

What boxes count is told by all of them: shares of the image where none is above 1, thousandths up
to 1000 (as LayoutLM takes them), else pixels, for which sizes of images are needed.

Format: https://huggingface.co/docs/datasets/about_dataset_features
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.base import (
    ImportOptions,
    Place,
    Problem,
    Read,
    RoundTrip,
    SourceFile,
    SourceLabel,
    SourceReceipt,
    SourceWord,
    Unit,
    WrittenBack,
)
from harmonizer_assets.core.importers.files import (
    as_list,
    as_object,
    json_records,
    read_json,
    read_text,
    starts_with,
)
from harmonizer_assets.core.importers.ids import of_path
from harmonizer_assets.core.importers.images import size_beside
from harmonizer_assets.core.importers.json_text import written
from harmonizer_assets.core.importers.lines_text import lines_replaced
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.importers.prefixes import OUTSIDE, opening_of, prefixed, unprefixed
from harmonizer_assets.core.ingest.readers import readable
from harmonizer_assets.core.records.boxes import SLIGHTLY, flat

_WORDS: Final = ("tokens", "words", "texts")
_BOXES: Final = ("bboxes", "boxes", "bbox")
_LABELS: Final = ("ner_tags", "labels", "tags", "ner_labels", "word_labels")
_IMAGES: Final = ("image_path", "image_file", "file_name", "image")
_AT_ONCE: Final = 256


@dataclass(frozen=True)
class _Columns:
    """The columns of a file that are used; None where there is none."""

    words: str
    boxes: str | None
    labels: str | None
    image: str | None

    @classmethod
    def of(cls, names: Sequence[str], path: Path) -> _Columns:
        """Choose among the columns of a file.

        Raises:
            InputError: it has no words.
        """
        words = _first(_WORDS, names)
        if words is None:
            raise InputError(
                f"{path}: not token classification: it has none of the columns "
                f"{', '.join(_WORDS)} (found: {', '.join(map(str, names))[:200]})"
            )
        return cls(words, _first(_BOXES, names), _first(_LABELS, names), _first(_IMAGES, names))


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


class HuggingFace(RoundTrip):
    """Records of words with boxes and labels."""

    name = "hugging-face"
    suffixes = (".parquet", ".jsonl", ".ndjson", ".json")
    describes = "token classification as on the Hugging Face hub: Parquet or JSON lines"

    def skips(self, path: Path) -> bool:
        """Skip what describes a data set."""
        return path.name in _INFO

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the records of a file."""
        path = source.path
        columns = _columns(path)
        names = class_names(path, columns.labels)
        unit = options.unit or _unit(path, columns)
        for row, number, record in _records(path):
            try:
                yield from [*_receipt(source, row, number, record, columns, names, unit, options)]
            except MALFORMED as error:
                yield not_as("token classification", path, row, error)

    def write_back(
        self, source: SourceFile, changes: Mapping[Place, str | None], options: ImportOptions
    ) -> WrittenBack:
        """Replace tags of JSON lines; B- and I- stay as they are."""
        path = source.path
        if path.suffix.lower() == ".parquet":
            raise InputError(f"{path}: labels are written back to JSON lines, not to Parquet")
        tags = _Tags(path, options)
        values: dict[Place, Any] = {}
        refused: dict[Place, str] = {}
        for (line, column, place), name in changes.items():
            try:
                values[(line, column, place)] = tags.changed(line, place, name)
            except ValueError as error:
                refused[(line, column, place)] = str(error)
        if starts_with(path, b"["):
            return WrittenBack(written(path, values), refused)
        lines: dict[int, dict[Place, Any]] = defaultdict(dict)
        for (line, *inner), value in values.items():
            lines[line][tuple(inner)] = value
        return WrittenBack(lines_replaced(path, lines), refused)


class _Tags:
    """The tags of a file of JSON lines, as they are and as they are to be."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        columns = _columns(path)
        self._names = class_names(path, columns.labels)
        self._numbers = {name: number for number, name in self._names.items()}
        self._keeps = options.keep_prefix
        self._tags = {
            number: record.get(columns.labels)
            for _, number, record in _records(path)
            if isinstance(record, Mapping)
        }
        written = (self._written(tag) for tags in self._tags.values() for tag in tags or ())
        self._opening = opening_of(written)

    def _written(self, tag: Any) -> str:
        return self._names.get(tag, OUTSIDE) if isinstance(tag, int) else str(tag)

    def changed(self, line: int, place: int, name: str | None) -> Any:
        """Return a tag with another label.

        Raises:
            ValueError: the classes have no such name.
        """
        before = (self._tags[line] or [])[place]
        opening = "" if self._keeps else self._opening
        new = (
            name if self._keeps and name else prefixed(self._written(before), name, opening=opening)
        )
        if not isinstance(before, int):
            return new
        for tag in (new, name):
            if tag in self._numbers:
                return self._numbers[tag]
        raise ValueError(f"the data set has no class {new}")


def _columns(path: Path) -> _Columns:
    if path.suffix.lower() == ".parquet":
        with readable(path):
            return _Columns.of(pq.read_schema(path).names, path)
    for _, _, record in json_records(path):
        if isinstance(record, Mapping):
            return _Columns.of([*record], path)
    raise InputError(f"{path}: not token classification: no line is a JSON object")


def _records(path: Path) -> Iterator[tuple[str, int, Any]]:
    if path.suffix.lower() != ".parquet":
        yield from json_records(path)
        return
    with readable(path), pq.ParquetFile(path) as file:
        wanted = [name for name in file.schema_arrow.names if _is_small(file.schema_arrow, name)]
        number = 0
        for batch in file.iter_batches(_AT_ONCE, columns=wanted):
            for record in batch.to_pylist():
                number += 1
                yield f"row {number}", number, record


def _is_small(schema: pa.Schema, name: str) -> bool:
    """Leave the images themselves out; they are megabytes each."""
    kind = schema.field(name).type
    return not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) and not (
        pa.types.is_struct(kind) and any(field.name == "bytes" for field in kind)
    )


def _unit(path: Path, columns: _Columns) -> Unit:
    """Find out what boxes count, from all of them."""
    largest, has_sizes, exceeds = 0.0, False, False
    for _, _, record in _records(path):
        if not isinstance(record, Mapping) or columns.boxes is None:
            continue
        size = _size_of(record)
        has_sizes = has_sizes or size is not None
        top = max(_numbers(record.get(columns.boxes)), default=0.0)
        largest = max(largest, top)
        exceeds = exceeds or (size is not None and top > (1 + SLIGHTLY) * max(size))
    if largest <= 1:
        return "share"
    if largest > 1000 or (has_sizes and not exceeds):
        return "pixel"
    return "thousand"


def _numbers(boxes: Any) -> Iterator[float]:
    for box in boxes if isinstance(boxes, list) else ():
        for value in box if isinstance(box, list) else ():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield value


def _size_of(record: Mapping[str, Any]) -> tuple[float, float] | None:
    width, height = record.get("width"), record.get("height")
    size = record.get("image_size") or record.get("size")
    if isinstance(size, list | tuple) and len(size) == 2:
        width, height = size
    if isinstance(size, Mapping):
        width, height = size.get("width"), size.get("height")
    if isinstance(width, int | float) and isinstance(height, int | float) and width and height:
        return (width, height)
    return None


def _receipt(
    source: SourceFile,
    row: str,
    number: int,
    record: Any,
    columns: _Columns,
    names: Mapping[int, str],
    unit: Unit,
    options: ImportOptions,
) -> Iterator[Read]:
    if isinstance(record, Exception):
        raise ValueError(str(record))
    content = as_object(record, "the record")
    words = as_list(content[columns.words], columns.words)
    boxes = as_list(content.get(columns.boxes or ""), columns.boxes or "")
    tags = as_list(content.get(columns.labels or ""), columns.labels or "")
    for name, values in ((columns.boxes, boxes), (columns.labels, tags)):
        if values and len(values) != len(words):
            yield Problem(
                source.path,
                row,
                f"{len(words)} words and {len(values)} {name}",
                "give one for each word",
            )
            return
    image = content.get(columns.image or "")
    image = image if isinstance(image, str) else None
    size = _size_of(content)
    if size is None and unit == "pixel" and boxes:
        size = size_beside(Path(image or source.path), [options.images, source.path.parent], image)
    merchant = content.get("merchant_name")
    yield SourceReceipt(
        _name(source, number, content, image),
        source.path,
        [
            _word(row, number, place, text, boxes, tags, columns, names, options)
            for place, text in enumerate(words)
        ],
        row,
        size=size,
        unit=unit,
        merchant_name=merchant if isinstance(merchant, str) else None,
        image=image,
    )


def _name(source: SourceFile, number: int, record: Mapping[str, Any], image: str | None) -> str:
    own = record.get("image_id", record.get("id"))
    if own is not None and str(own).strip():
        return str(own)
    return of_path(image) if image else f"{source.name}/{number}"


def _word(
    row: str,
    number: int,
    place: int,
    text: Any,
    boxes: Sequence[Any],
    tags: Sequence[Any],
    columns: _Columns,
    names: Mapping[int, str],
    options: ImportOptions,
) -> SourceWord:
    box = boxes[place] if boxes else None
    where = (number, columns.labels, place) if tags else None
    name = None
    if tags and tags[place] is not None:
        name = _tag_name(tags[place], names)
        name = unprefixed(name, keeps=options.keep_prefix)
    return SourceWord(
        text,
        flat(as_list(box, "the box")) if box else None,
        labels=() if name is None else (SourceLabel(name, origin="annotation", place=where),),
        row=f"{row}, word {place}",
        place=where,
    )


def _tag_name(tag: Any, names: Mapping[int, str]) -> str:
    if isinstance(tag, str):
        return tag
    if isinstance(tag, bool) or not isinstance(tag, int):
        raise ValueError(f"{str(tag)[:40]!r} is neither the name nor the number of a class")
    if tag == -100:  # what trainers write for a word that does not count
        return OUTSIDE
    if tag not in names:
        raise ValueError(
            f"the name of class {tag} is not known: write the names of the classes, one on each "
            "line, into classes.txt beside the file"
        )
    return names[tag]


# Names of classes

_INFO: Final = ("dataset_info.json", "dataset_infos.json", "state.json", "README.md", "classes.txt")


def class_names(path: Path, column: str | None) -> dict[int, str]:
    """Find the names of the classes of a file; empty where nothing tells them.

    Raises:
        InputError: a file that tells them cannot be read.
    """
    if column is None:
        return {}
    for features in _features(path):
        names = _names_in(features, column)
        if names:
            return dict(enumerate(names))
    for folder in (path.parent, path.parent.parent):
        file = folder / "classes.txt"
        if file.is_file():
            lines = [line.strip() for line in read_text(file).splitlines()]
            return dict(enumerate(line for line in lines if line))
    return {}


def _features(path: Path) -> Iterator[Any]:
    """Yield what may describe the columns of a file, nearest first."""
    if path.suffix.lower() == ".parquet":
        with readable(path):
            metadata = pq.read_schema(path).metadata or {}
        if b"huggingface" in metadata:
            yield json.loads(metadata[b"huggingface"])
    for folder in (path.parent, path.parent.parent):
        for name in _INFO[:2]:
            if (folder / name).is_file():
                yield read_json(folder / name)
        if (folder / "README.md").is_file():
            yield _front_matter(folder / "README.md")


def _front_matter(file: Path) -> Any:
    text = read_text(file)
    if not text.startswith("---"):
        return None
    try:
        return yaml.safe_load(text.split("---")[1])
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{file}: its front matter is not valid YAML") from error


def _names_in(features: Any, column: str) -> list[str]:
    """Find the names of the classes of a column, wherever in a description they stand."""
    open_: list[Any] = [features]
    while open_:
        one = open_.pop()
        if isinstance(one, list):
            open_ += one
        elif isinstance(one, Mapping):
            described = (
                one.get(column) if column in one else one if one.get("name") == column else 0
            )
            if described and (names := _class_label(described)):
                return names
            open_ += one.values()
    return []


def _class_label(described: Any) -> list[str]:
    open_: list[Any] = [described]
    while open_:
        one = open_.pop()
        if isinstance(one, Mapping):
            names = one.get("names")
            if isinstance(names, list):
                return [str(name) for name in names]
            if isinstance(names, Mapping):
                return [str(names[key]) for key in sorted(names, key=int)]
            open_ += one.values()
        elif isinstance(one, list):
            open_ += one
    return []
