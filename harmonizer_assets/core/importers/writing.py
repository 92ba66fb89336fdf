"""What importers read, as tables of words and labels in Parquet.

Receipts are written as they come, so memory does not grow with the source. Folders appear as a
whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.importers import ids
from harmonizer_assets.core.importers.base import (
    NO_SIZE,
    ImportOptions,
    Problem,
    Read,
    SourceLabel,
    SourceReceipt,
    SourceWord,
    Unit,
)
from harmonizer_assets.core.importers.names import Names
from harmonizer_assets.core.ingest import left_out
from harmonizer_assets.core.records.boxes import Normalised, normalise
from harmonizer_assets.core.records.label import WORD_KEY

_ROWS_AT_ONCE: Final = 20_000
_MOST: Final = 1e300
_SHOWN_PROBLEMS: Final = 1_000
"""Problems that are kept in memory; the file holds them all."""
_SCALES: Final[Mapping[str, float]] = {"thousand": 1000.0, "percent": 100.0, "share": 1.0}

_IDS: Final = [("image_id", pa.string()), *((name, pa.int64()) for name in WORD_KEY[1:])]
WORDS_SCHEMA: Final = pa.schema(
    [
        *_IDS,
        ("text", pa.string()),
        *((name, pa.float64()) for name in ("x", "y", "width", "height")),
        ("quad", pa.list_(pa.float64())),
        ("ocr_confidence", pa.float64()),
        ("image_uri", pa.string()),
        ("imported_by", pa.string()),
    ]
)
LABELS_SCHEMA: Final = pa.schema(
    [
        *_IDS,
        ("label", pa.string()),
        ("validation_status", pa.string()),
        ("merchant_name", pa.string()),
        ("annotator", pa.string()),
        ("origin", pa.string()),
        ("source_label", pa.string()),
        ("source_confidence", pa.float64()),
        ("imported_by", pa.string()),
    ]
)


@dataclass
class Written:
    """What was written.

    Attributes:
        receipts, words, labels: how many.
        names: how many labels of each name there are, as they stand in the tables.
        padded: how many of each name were left out for nothing but the blanks around it.
        without_position: words whose place on the image is not known.
        clipped: words whose box reached slightly outside of the image.
        without_size: receipts the size of whose image is not known.
        left_out: words and labels that could not be used; `changed`: those that were changed.
        units: how many receipts have coordinates of each unit.
        problems: the first of them.
    """

    receipts: int = 0
    words: int = 0
    labels: int = 0
    names: dict[str, int] = field(default_factory=dict)
    padded: dict[str, int] = field(default_factory=dict)
    without_position: int = 0
    clipped: int = 0
    without_size: int = 0
    left_out: int = 0
    changed: int = 0
    units: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class TableWriter:
    """Writes `words.parquet`, `labels.parquet` and `problems.parquet` into a folder."""

    def __init__(
        self,
        folder: Path,
        format_name: str,
        options: ImportOptions,
        names: Names,
        sources: Iterable[Path] = (),
    ) -> None:
        """Open the files.

        Args:
            folder: that gets them.
            format_name: of the source.
            options: of the import.
            names: decides about the names of labels.
            sources: the files that are read.
        """
        self.written = Written()
        self._format = format_name
        self._options = options
        self._names = names
        self._words = _Rows(folder / "words.parquet", WORDS_SCHEMA)
        self._labels = _Rows(folder / "labels.parquet", LABELS_SCHEMA)
        self._problems = _Rows(folder / left_out.FILE, left_out.SCHEMA)
        paths = json.dumps([str(path) for path in sources], ensure_ascii=False)
        self._problems.note({left_out.SOURCES: paths})
        self._seen: set[tuple[str, int]] = set()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for rows in (self._words, self._labels, self._problems):
            rows.close()

    def add(self, read: Iterable[Read]) -> Iterator[int]:
        """Write what an importer reads; yield the number of words after each receipt."""
        for one in read:
            if isinstance(one, Problem):
                self._problem(one)
            else:
                self._receipt(one)
                yield self.written.words

    def _problem(self, problem: Problem) -> None:
        if problem.is_left_out:
            self.written.left_out += 1
        else:
            self.written.changed += 1
        if len(self.written.problems) < _SHOWN_PROBLEMS:
            self.written.problems.append(problem)
        self._problems.append(
            {
                "file": str(problem.file),
                "row": problem.row,
                "reason": problem.reason,
                "remedy": problem.remedy,
                "content": problem.content,
                "is_left_out": problem.is_left_out,
                **problem.key,
                "label": problem.label,
            }
        )

    def _receipt(self, receipt: SourceReceipt) -> None:
        image = ids.image_id(receipt.source_id)
        key = (image, receipt.receipt_id)
        if key in self._seen:
            self._problem(
                Problem(
                    receipt.file,
                    receipt.row,
                    f"a receipt with the id {image} has come before",
                    "give each receipt an id of its own",
                    key={"image_id": image, "receipt_id": receipt.receipt_id},
                )
            )
            return
        self._seen.add(key)
        self.written.receipts += 1
        area = self._area(receipt)
        merchant = receipt.merchant_name or self._options.merchant
        for line_id, word_id, word in ids.numbered(receipt.words):
            where = dict(zip(WORD_KEY, (*key, line_id, word_id), strict=True))
            self._word(receipt, word, where, area, merchant)

    def _area(self, receipt: SourceReceipt) -> tuple[float, float] | None:
        """Return the width and height of the image in the unit of the coordinates."""
        unit: Unit | None = self._options.unit or receipt.unit
        if not any(word.points for word in receipt.words):
            return None
        scale = _SCALES.get(unit or "")
        size = receipt.size if scale is None else (scale, scale)
        if size is None:
            self.written.without_size += 1
            self._problem(Problem(receipt.file, receipt.row, NO_SIZE, is_left_out=False))
        elif unit:
            self.written.units[unit] = self.written.units.get(unit, 0) + 1
        return size

    def _word(
        self,
        receipt: SourceReceipt,
        word: SourceWord,
        where: Mapping[str, Any],
        area: tuple[float, float] | None,
        merchant: str | None,
    ) -> None:
        text = self._text(receipt, word, where)
        if text is None:
            return
        position = self._position(receipt, word, where, area)
        box = position.box if position else None
        self.written.words += 1
        self.written.without_position += box is None
        self._words.append(
            {
                **where,
                "text": text,
                "x": box.x if box else None,
                "y": box.y if box else None,
                "width": box.width if box else None,
                "height": box.height if box else None,
                "quad": list(position.quad) if position and position.quad else None,
                "ocr_confidence": _number(word.confidence),
                "image_uri": receipt.image,
                "imported_by": self._format,
            }
        )
        for name, labels in _by_name(word.labels).items():
            self._label(receipt, word, where, name, labels, merchant)

    def _text(
        self, receipt: SourceReceipt, word: SourceWord, where: Mapping[str, Any]
    ) -> str | None:
        text = word.text
        if isinstance(text, str) and text.strip():
            return text
        if isinstance(text, int | float) and not isinstance(text, bool):
            return str(text)
        reason = (
            "the text is empty"
            if text is None or text == "" or isinstance(text, str)
            else (f"the text is no text: {str(text)[:40]}")
        )
        remedy = "give the text, or leave the word out"
        self._problem(Problem(receipt.file, self._row(receipt, word), reason, remedy, key=where))
        return None

    def _position(
        self,
        receipt: SourceReceipt,
        word: SourceWord,
        where: Mapping[str, Any],
        area: tuple[float, float] | None,
    ) -> Normalised | None:
        if word.points is None or area is None:
            return None
        try:
            found = normalise(word.points, *area)
        except (ValueError, TypeError) as error:
            self._problem(
                Problem(
                    receipt.file,
                    self._row(receipt, word),
                    f"its position is left out: {error}",
                    is_left_out=False,
                    content=str(word.text)[:200],
                    key=where,
                )
            )
            return None
        self.written.clipped += found.is_clipped
        return found

    def _label(
        self,
        receipt: SourceReceipt,
        word: SourceWord,
        where: Mapping[str, Any],
        name: str,
        labels: list[SourceLabel],
        merchant: str | None,
    ) -> None:
        chosen = self._names.chosen(name)
        if chosen.refused is not None:
            self._problem(
                Problem(
                    receipt.file,
                    self._row(receipt, word),
                    f"the label {name[:60]!r} {chosen.refused}",
                    "map it to a type with --map",
                    content=str(word.text)[:200],
                    key=where,
                    label=name[:200],
                )
            )
        if chosen.is_padded:
            self.written.padded[name] = self.written.padded.get(name, 0) + 1
        if chosen.name is None:
            return
        self.written.labels += 1
        self.written.names[chosen.name] = self.written.names.get(chosen.name, 0) + 1
        first = labels[0]
        self._labels.append(
            {
                **where,
                "label": chosen.name,
                "validation_status": first.status or self._options.status,
                "merchant_name": merchant,
                "annotator": _joined(label.annotator for label in labels),
                "origin": _joined(label.origin for label in labels),
                "source_label": name if name != chosen.name else None,
                "source_confidence": _number(first.confidence),
                "imported_by": self._format,
            }
        )

    @staticmethod
    def _row(receipt: SourceReceipt, word: SourceWord) -> str:
        return word.row or receipt.row


def _by_name(labels: Iterable[SourceLabel]) -> dict[str, list[SourceLabel]]:
    """Group the labels of a word; those that say the same become one."""
    found: dict[str, list[SourceLabel]] = {}
    for label in labels:
        found.setdefault(label.name, []).append(label)
    return found


def _number(value: Any) -> float | None:
    """Return a value that a source gives as a number; None for whatever else stands there."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < _MOST else None


def _joined(texts: Iterable[str | None]) -> str | None:
    return ", ".join(dict.fromkeys(text for text in texts if text)) or None


class _Rows:
    """The rows of one Parquet file, written some thousand at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = pq.ParquetWriter(path, schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def note(self, metadata: Mapping[str, str]) -> None:
        """Add metadata to the file."""
        self._file.add_key_value_metadata(dict(metadata))

    def append(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows = []

    def close(self) -> None:
        self._flush()
        self._file.close()
