"""Spreadsheets: CSV, TSV and Excel files with a word on each row.

Which column is what stands in a small YAML file, given with `--columns`; without it, a guess by the
names of the columns is shown, to be checked. Rows of one image stand together.
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from harmonizer_assets.core.base.config_files import load_config
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.extras import needs_extra
from harmonizer_assets.core.base.formulas import restored
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
from harmonizer_assets.core.importers.ids import of_path
from harmonizer_assets.core.importers.images import size_beside
from harmonizer_assets.core.ingest.readers import readable
from harmonizer_assets.core.records.boxes import Points, rectangle, sized
from harmonizer_assets.core.records.status import Status

_SEPARATORS: Final = ",;\t"
_MAX_CELL: Final = 1 << 20
_MAX_UNPACKED: Final = 2_000_000_000
"""Bytes of an Excel file once it is unpacked."""

_GUESSES: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("text", "word", "token", "value", "wordtext", "ocrtext", "content"),
    "image": (
        "imageid",
        "image",
        "file",
        "filename",
        "document",
        "doc",
        "docid",
        "receipt",
        "imagepath",
    ),
    "page": ("receiptid", "page", "pageid", "pagenumber"),
    "line": ("lineid", "line", "linenumber", "lineno"),
    "word": ("wordid", "wordnumber", "wordno", "tokenid"),
    "label": ("label", "tag", "class", "category", "type", "entity", "labeltype", "nertag"),
    "status": ("validationstatus", "status"),
    "merchant": ("merchantname", "merchant", "vendor", "company", "store", "shop"),
    "annotator": ("annotator", "annotatedby", "user", "labeller", "labeler"),
    "left": ("left", "xmin", "x1", "x0"),
    "top": ("top", "ymin", "y1", "y0"),
    "right": ("right", "xmax", "x2"),
    "bottom": ("bottom", "ymax", "y2"),
    "x": ("x",),
    "y": ("y",),
    "width": ("width", "w"),
    "height": ("height", "h"),
    "image_width": ("imagewidth", "imgwidth", "pagewidth"),
    "image_height": ("imageheight", "imgheight", "pageheight"),
}
"""Names of columns by what they hold, in lower case and without signs between words."""


class Columns(BaseModel):
    """Which column is what; a name as it stands in the first row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    image: str | None = None
    page: str | None = None
    line: str | None = None
    word: str | None = None
    label: str | None = None
    status: str | None = None
    merchant: str | None = None
    annotator: str | None = None
    left: str | None = None
    top: str | None = None
    right: str | None = None
    bottom: str | None = None
    x: str | None = None
    y: str | None = None
    width: str | None = None
    height: str | None = None
    image_width: str | None = None
    image_height: str | None = None
    coordinates: Literal["pixel", "thousand", "percent", "share"] = "pixel"
    sheet: str | None = None


class Spreadsheet(Importer):
    """Rows of words."""

    name = "spreadsheet"
    suffixes = (".csv", ".tsv", ".xlsx")
    describes = "CSV, TSV and Excel files with a word on each row"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the rows of a file."""
        path = source.path
        if options.columns is None:
            raise InputError(_guess(path))
        columns = load_config(options.columns, Columns, InputError)
        rows = _rows(path, columns.sheet)
        _, header = next(rows, (0, []))
        missing = [name for name in _named(columns).values() if name not in header]
        if missing:
            raise InputError(
                f"{path}: it has no column {missing[0]!r}, which {options.columns} names (found: "
                f"{', '.join(header)[:200]})"
            )
        yield from _Reading(source, options, columns).receipts(header, rows)


def _named(columns: Columns) -> dict[str, str]:
    """Return the columns that are named, by what they hold."""
    given = columns.model_dump(exclude={"coordinates", "sheet"}, exclude_none=True)
    return {name: str(column) for name, column in given.items()}


def _guess(path: Path) -> str:
    """Write the guess of a file's columns, as the end of the command."""
    _, header = next(_rows(path, None), (0, []))
    by_name = {re.sub(r"[\W_]+", "", name).casefold(): name for name in reversed(header)}
    found = {
        kind: next((by_name[name] for name in names if name in by_name), None)
        for kind, names in _GUESSES.items()
    }
    lines = [f"  {kind}: {name}" for kind, name in found.items() if name]
    if found["text"] is None:
        lines.insert(0, "  text: (the column with the words)")
    guess = "\n".join(lines)
    return (
        f"{path}: say which column is what, in a file given with --columns. A guess, to be "
        f"checked:\n{guess}\n  coordinates: pixel  # or share, thousand, percent"
    )


class _Reading:
    """The rows of a file while they become receipts."""

    def __init__(self, source: SourceFile, options: ImportOptions, columns: Columns) -> None:
        self._source = source
        self._options = options
        self._columns = columns
        self._named = _named(columns)
        self._words: list[SourceWord] = []
        self._first: dict[str, str] = {}
        self._row = ""
        self._seen: set[tuple[str, str]] = set()
        self._key: tuple[str, str] | None = None

    def receipts(
        self, header: Sequence[str], rows: Iterator[tuple[int, list[str]]]
    ) -> Iterator[Read]:
        """Yield a receipt for each run of rows of one image.

        Raises:
            InputError: rows of one image do not stand together.
        """
        for number, cells in rows:
            raw = restored(dict(zip(header, cells, strict=False)))
            row = {kind: raw.get(name, "").strip() for kind, name in self._named.items()}
            if row.get("label"):
                # Blanks around a label are the person's to be told about, see `names`.
                row["label"] = raw[self._named["label"]]
            key = (row.get("image") or self._source.name, row.get("page") or "1")
            if key != self._key:
                yield from self._receipt()
                self._begin(key, row, number)
            try:
                self._words.append(self._word(row, number))
            except ValueError as error:
                yield Problem(self._source.path, f"row {number}", str(error))
        yield from self._receipt()

    def _begin(self, key: tuple[str, str], row: dict[str, str], number: int) -> None:
        if key in self._seen:
            raise InputError(
                f"{self._source.path}: row {number}: the image {key[0]} comes again after others: "
                "sort the rows by image"
            )
        self._seen.add(key)
        self._key, self._first, self._row = key, row, f"row {number}"

    def _receipt(self) -> Iterator[SourceReceipt]:
        if self._key is None or not self._words:
            return
        path = self._source.path
        size = _pair(self._first.get("image_width"), self._first.get("image_height"))
        image = self._key[0]
        if size is None and self._columns.coordinates == "pixel":
            size = size_beside(path, [self._options.images, path.parent], image)
        page = self._key[1]
        yield SourceReceipt(
            of_path(image),
            path,
            self._words,
            self._row,
            int(page) if page.isdecimal() else 1,
            size=size,
            unit=self._columns.coordinates,
            merchant_name=self._first.get("merchant") or None,
            image=image if "." in image else None,
        )
        self._words = []

    def _word(self, row: Mapping[str, str], number: int) -> SourceWord:
        """Make a word of a row.

        Raises:
            ValueError: its status or an id is not usable.
        """
        name, status = row.get("label"), (row.get("status") or "").upper() or None
        if status is not None and status not in set(Status):
            raise ValueError(f"the status {row['status'][:40]!r} is none of {', '.join(Status)}")
        by = row.get("annotator") or None
        label = SourceLabel(name or "", status, by, "annotation")
        return SourceWord(
            row.get("text"),
            _points(row),
            line=row.get("line"),
            labels=(label,) if name else (),
            row=f"row {number}",
            ids=_ids(row),
        )


def _ids(row: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the ids of a word, where the sheet has both."""
    line, word = row.get("line"), row.get("word")
    if not line or not word:
        return None
    if not (line.isdecimal() and word.isdecimal()):
        raise ValueError(f"line {line[:20]!r} and word {word[:20]!r} are no whole numbers")
    return int(line), int(word)


def _points(row: Mapping[str, str]) -> Points | None:
    if row.get("left") and "right" in row:
        return rectangle(*(row.get(side) or None for side in ("left", "top", "right", "bottom")))
    left, top = (row.get(a) or row.get(b) for a, b in (("x", "left"), ("y", "top")))
    if not left:
        return None
    numbers = [_number(side) for side in (left, top, row.get("width"), row.get("height"))]
    return sized(*numbers)


def _number(text: str | None) -> float | str | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise ValueError(f"{str(text)[:40]!r} is no number") from None


def _pair(width: str | None, height: str | None) -> tuple[float, float] | None:
    try:
        return (float(width), float(height)) if width and height else None
    except ValueError:
        return None


# Rows of files


def _rows(path: Path, sheet: str | None) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a file, each with its number from 1; the first is the header."""
    with readable(path):
        if not path.stat().st_size:
            raise InputError(f"{path}: the file is empty")
        yield from _excel(path, sheet) if path.suffix.lower() == ".xlsx" else _text(path)


def _text(path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_MAX_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(_MAX_CELL)
            separator = max(_SEPARATORS, key=first.count)
            file.seek(0)
            for number, cells in enumerate(csv.reader(file, delimiter=separator), start=1):
                if cells:
                    yield number, cells
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8: save the file as CSV UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path}: not a table: {error}") from error


def _excel(path: Path, sheet: str | None) -> Iterator[tuple[int, list[str]]]:
    with needs_extra("xlsx", str(path), InputError):
        import openpyxl
    _check_size(path)
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:
        raise InputError(f"{path}: not an Excel file, or a damaged one ({error})") from error
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise InputError(f"{path}: it has no sheet {sheet!r}: {', '.join(book.sheetnames)}")
        rows = (book[sheet] if sheet else book.worksheets[0]).iter_rows(values_only=True)
        for number, cells in enumerate(rows, start=1):
            if any(cell is not None for cell in cells):
                yield number, ["" if cell is None else str(cell) for cell in cells]
    finally:
        book.close()


def _check_size(path: Path) -> None:
    """Refuse an archive that would fill memory or disk once it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(one.file_size for one in archive.infolist())
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not an Excel file, or a damaged one ({error})") from error
    if unpacked > _MAX_UNPACKED:
        raise InputError(
            f"{path}: {unpacked:,} bytes when unpacked; the limit is {_MAX_UNPACKED:,}"
        )
