"""WildReceipt: a receipt on each line as JSON, with quads that start at the lower left.

Classes are numbers; `class_list.txt` beside the file names them, else the names of the data set as
published are taken. `Ignore` and `Others` are no labels. An annotation is one word here, as the
data set has it, even where its text has blanks.

Format: https://mmocr.readthedocs.io/en/latest/api/generated/mmocr.datasets.WildReceiptDataset.html
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.importers.base import (
    ImportOptions,
    Place,
    Read,
    RoundTrip,
    SourceFile,
    SourceLabel,
    SourceReceipt,
    SourceWord,
    WrittenBack,
)
from harmonizer_assets.core.importers.files import as_list, as_object, json_records, read_text
from harmonizer_assets.core.importers.ids import of_path
from harmonizer_assets.core.importers.lines_text import lines_replaced
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.records.boxes import flat

_FIELDS: Final = (
    "Store_name Store_addr Tel Date Time Prod_item Prod_quantity Prod_price Subtotal Tax Tips Total"
)
CLASSES: Final = (
    "Ignore",
    *(f"{name}_{part}" for name in _FIELDS.split() for part in ("value", "key")),
    "Others",
)
"""Names of the 26 classes as published, by their number."""
_NO_LABEL: Final = ("Ignore", "Others")
_LIST: Final = "class_list.txt"


class WildReceipt(RoundTrip):
    """Receipts with annotated texts."""

    name = "wildreceipt"
    suffixes = (".txt", ".jsonl")
    describes = "WildReceipt: a receipt on each line"

    def skips(self, path: Path) -> bool:
        """Skip the list of classes."""
        return path.name == _LIST

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the receipts of a file."""
        del options
        names = class_names(source.path)
        for row, number, record in json_records(source.path):
            try:
                yield _receipt(source, row, number, record, names)
            except MALFORMED as error:
                yield not_as("WildReceipt", source.path, row, error)

    def write_back(
        self, source: SourceFile, changes: Mapping[Place, str | None], options: ImportOptions
    ) -> WrittenBack:
        """Replace the numbers of classes."""
        del options
        numbers = {name: number for number, name in class_names(source.path).items()}
        none = numbers.get("Others", numbers.get("Ignore"))
        values: dict[int, dict[tuple, Any]] = defaultdict(dict)
        refused = {}
        for (line, *path), name in changes.items():
            number = none if name is None else numbers.get(name)
            if number is None:
                refused[(line, *path)] = f"{_LIST} has no class {name}"
            else:
                values[line][tuple(path)] = number
        return WrittenBack(lines_replaced(source.path, values), refused)


def class_names(path: Path) -> dict[int, str]:
    """Read the names of the classes beside a file, else take those as published.

    Raises:
        InputError: the list cannot be read.
    """
    file = path.parent / _LIST
    if not file.is_file():
        return dict(enumerate(CLASSES))
    found = {}
    for line in read_text(file).splitlines():
        number, _, name = line.strip().partition(" ")
        if number.isdecimal() and name.strip():
            found[int(number)] = name.strip()
    return found


def _receipt(
    source: SourceFile, row: str, number: int, record: Any, names: Mapping[int, str]
) -> SourceReceipt:
    if isinstance(record, Exception):
        raise ValueError(str(record))
    receipt = as_object(record, "the receipt")
    image = receipt.get("file_name")
    width, height = receipt.get("width"), receipt.get("height")
    annotations = as_list(receipt["annotations"], "annotations")
    return SourceReceipt(
        of_path(image) if isinstance(image, str) and image else f"{source.name}/{number}",
        source.path,
        [*_words(annotations, row, number, names)],
        row,
        size=(width, height) if width and height else None,
        image=image if isinstance(image, str) else None,
    )


def _number(kind: Any) -> int:
    return kind if isinstance(kind, int) else -1


def _words(
    annotations: Sequence[Any], row: str, number: int, names: Mapping[int, str]
) -> Iterator[SourceWord]:
    for place, annotation in enumerate(annotations):
        one = as_object(annotation, f"annotation {place}")
        kind = one.get("label")
        name = kind if isinstance(kind, str) else names.get(_number(kind), f"class {kind}")
        where = (number, "annotations", place, "label") if "label" in one else None
        label = SourceLabel(name, origin="annotation", place=where)
        box = one.get("box")
        yield SourceWord(
            one.get("text"),
            None if box is None else flat(as_list(box, "box")),
            labels=() if kind is None or name in _NO_LABEL else (label,),
            row=f"{row}, annotation {place}",
            place=where,
        )
