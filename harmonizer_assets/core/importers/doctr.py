"""docTR: what `Document.export()` returns, as JSON.

Geometries are shares of the page: two opposite corners, or four corners of turned words.

Format: https://mindee.github.io/doctr/modules/io.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.base import (
    Importer,
    ImportOptions,
    Read,
    SourceFile,
    SourceReceipt,
    SourceWord,
)
from harmonizer_assets.core.importers.files import as_list, as_object, read_json
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.records.boxes import Points


class DocTr(Importer):
    """Exported documents."""

    name = "doctr"
    suffixes = (".json",)
    describes = "docTR: exported documents as JSON"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the pages of a document."""
        del options
        path = source.path
        content = read_json(path)
        if not isinstance(content, Mapping) or not isinstance(content.get("pages"), list):
            raise InputError(f"{path}: not an export of docTR: it has no list `pages`")
        for number, page in enumerate(content["pages"], start=1):
            row = f"page {number}"
            try:
                words = [*_words(as_object(page, row), row)]
            except MALFORMED as error:
                yield not_as("docTR", path, row, error)
                continue
            yield SourceReceipt(source.name, path, words, row, number, unit="share")


def _words(page: Mapping[str, Any], row: str) -> Iterator[SourceWord]:
    line_number = number = 0
    for block in as_list(page["blocks"], "blocks"):
        for line in as_list(as_object(block, "a block").get("lines"), "lines"):
            line_number += 1
            for word in as_list(as_object(line, "a line").get("words"), "words"):
                one = as_object(word, "a word")
                yield SourceWord(
                    one.get("value"),
                    _points(one.get("geometry")),
                    line=line_number,
                    row=f"{row}, word {number}",
                    confidence=one.get("confidence"),
                )
                number += 1


def _points(geometry: Any) -> Points | None:
    if geometry is None:
        return None
    corners = [as_list(corner, "a corner") for corner in as_list(geometry, "geometry")]
    return tuple((corner[0], corner[1]) for corner in corners)
