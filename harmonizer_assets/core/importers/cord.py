"""CORD: the JSON of each receipt, one in a file, on each line, or in a column of Parquet.

`valid_line` holds phrases with a category, and words with the corners of their quads by name, which
may begin anywhere. `is_key` marks words of captions: their label is the category with `.key`. Words
with the same `row_id` are on one printed row.

Format: https://github.com/clovaai/cord
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

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
    json_records,
    parse_json,
    read_json,
)
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.ingest.readers import readable
from harmonizer_assets.core.records.boxes import Points

_COLUMN: Final = "ground_truth"
_AT_ONCE: Final = 64
_CORNERS: Final = ((f"x{n}", f"y{n}") for n in range(1, 5))
_NAMES: Final = tuple(_CORNERS)


class Cord(Importer):
    """Phrases with categories, and their words."""

    name = "cord"
    suffixes = (".json", ".jsonl", ".parquet")
    describes = "CORD: receipts as JSON, or as published in Parquet"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the receipts of a file."""
        del options
        several = source.path.suffix.lower() != ".json"
        for row, number, record in _records(source.path):
            name = f"{source.name}/{number}" if several else source.name
            try:
                yield from [*_receipt(source, row, name, record)]
            except MALFORMED as error:
                yield not_as("CORD", source.path, row, error)


def _records(path: Path) -> Iterator[tuple[str, int, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".json":
        yield "", 0, read_json(path)
    elif suffix == ".jsonl":
        yield from json_records(path)
    else:
        yield from _parquet(path)


def _parquet(path: Path) -> Iterator[tuple[str, int, Any]]:
    with readable(path):
        if _COLUMN not in pq.read_schema(path).names:
            raise InputError(f"{path}: not CORD: it has no column {_COLUMN}")
        number = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_AT_ONCE, columns=[_COLUMN]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    yield f"row {number}", number, _parsed(text, number)


def _parsed(text: Any, number: int) -> Any:
    try:
        return parse_json(text, f"row {number}") if isinstance(text, str) else text
    except InputError as error:
        return error


def _receipt(source: SourceFile, row: str, name: str, record: Any) -> Iterator[Read]:
    if isinstance(record, Exception):
        raise ValueError(str(record))
    content = as_object(record, "the receipt")
    if "valid_line" not in content:
        raise ValueError("valid_line is missing")
    meta = as_object(content.get("meta") or {}, "meta")
    size = as_object(meta.get("image_size") or {}, "meta.image_size")
    known = size.get("width") and size.get("height")
    words: list[SourceWord] = []
    for place, phrase in enumerate(as_list(content["valid_line"], "valid_line")):
        where = f"{row}, valid_line {place}" if row else f"valid_line {place}"
        try:
            words += _words(as_object(phrase, "the phrase"), where)
        except MALFORMED as error:
            yield not_as("CORD", source.path, where, error)
    yield SourceReceipt(
        _name(name, meta),
        source.path,
        words,
        row,
        size=(size["width"], size["height"]) if known else None,
    )


def _name(name: str, meta: Mapping[str, Any]) -> str:
    """Take the path for the id, and beside it CORD's own, which is unique in its split only."""
    own = meta.get("image_id")
    if own is None or "/" not in name:
        return name
    return f"{name.rpartition('/')[0]}/{meta['split']}-{own}" if meta.get("split") else name


def _words(phrase: Mapping[str, Any], where: str) -> Iterator[SourceWord]:
    category = phrase.get("category")
    if category is not None and not isinstance(category, str):
        raise ValueError(f"category is no text: {str(category)[:40]}")
    for place, word in enumerate(as_list(phrase.get("words"), "words")):
        one = as_object(word, f"word {place}")
        name = f"{category}.key" if category and one.get("is_key") else category
        yield SourceWord(
            one.get("text"),
            _corners(one.get("quad")),
            line=one.get("row_id", where),
            labels=(SourceLabel(name, origin="annotation"),) if name else (),
            row=f"{where}, word {place}",
        )


def _corners(quad: Any) -> Points | None:
    if quad is None:
        return None
    corners = as_object(quad, "quad")
    return tuple((corners.get(x), corners.get(y)) for x, y in _NAMES)
