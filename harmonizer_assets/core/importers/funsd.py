"""FUNSD: a JSON file for each form, with entities, their words, and upright boxes in pixels.

The class `other` of FUNSD is no label. An entity has one label: words of it that were corrected in
different ways cannot be written back.

Format: https://guillaumejaume.github.io/FUNSD/description/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.base.errors import InputError
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
from harmonizer_assets.core.importers.files import as_list, as_object, read_json
from harmonizer_assets.core.importers.images import size_beside
from harmonizer_assets.core.importers.json_text import written
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.records.boxes import flat

OTHER: Final = "other"


class Funsd(RoundTrip):
    """Forms with entities."""

    name = "funsd"
    suffixes = (".json",)
    describes = "FUNSD: forms as JSON, with images beside them"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read a form."""
        path = source.path
        form = read_json(path)
        if not isinstance(form, Mapping) or not isinstance(form.get("form"), list):
            raise InputError(f"{path}: not FUNSD: it has no list `form`")
        words: list[SourceWord] = []
        for number, entity in enumerate(form["form"]):
            row = f"entity {number}"
            try:
                words += _words(as_object(entity, "the entity"), number, row)
            except MALFORMED as error:
                yield not_as("FUNSD", path, row, error)
        yield SourceReceipt(
            source.name, path, words, size=size_beside(path, _folders(path, options))
        )

    def write_back(
        self, source: SourceFile, changes: Mapping[Place, str | None], options: ImportOptions
    ) -> WrittenBack:
        """Replace the labels of entities."""
        del options
        values = {place: OTHER if name is None else name for place, name in changes.items()}
        return WrittenBack(written(source.path, values))


def _folders(path: Path, options: ImportOptions) -> list[Path | None]:
    return [options.images, path.parent.parent / "images", path.parent / "images", path.parent]


def _words(entity: Mapping[str, Any], number: int, row: str) -> Iterator[SourceWord]:
    name = entity.get("label")
    if name is not None and not isinstance(name, str):
        raise ValueError(f"label is no text: {str(name)[:40]}")
    place = ("form", number, "label") if "label" in entity else None
    has_label = bool(name) and name != OTHER
    labels = (SourceLabel(name or "", origin="annotation", place=place),) if has_label else ()
    for count, word in enumerate(as_list(entity.get("words"), "words")):
        one = as_object(word, f"word {count}")
        box = one.get("box")
        yield SourceWord(
            one.get("text"),
            None if box is None else flat(as_list(box, "box")),
            line=number,
            labels=labels,
            row=f"{row}, word {count}",
            place=place,
        )
