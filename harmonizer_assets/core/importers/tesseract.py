"""Tesseract: the table that `tesseract IMAGE OUT tsv` writes.

Rows of level 1 are pages, whose width and height are the image's; rows of level 5 are words.

Format: https://tesseract-ocr.github.io/tessdoc/Command-Line-Usage.html
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.base import (
    Importer,
    ImportOptions,
    Problem,
    Read,
    SourceFile,
    SourceReceipt,
    SourceWord,
)
from harmonizer_assets.core.importers.files import read_text
from harmonizer_assets.core.records.boxes import sized

_COLUMNS: Final = [
    *("level", "page_num", "block_num", "par_num", "line_num", "word_num"),
    *("left", "top", "width", "height", "conf", "text"),
]
_PAGE, _WORD = 1, 5


class Tesseract(Importer):
    """Words with boxes, as a table."""

    name = "tesseract"
    suffixes = (".tsv",)
    describes = "Tesseract: its output tsv"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the pages of a table."""
        del options
        path = source.path
        lines = read_text(path).split("\n")
        if lines[0].rstrip("\r").split("\t")[: len(_COLUMNS)] != _COLUMNS:
            raise InputError(f"{path}: not a table of Tesseract: its first line is not its header")
        sizes: dict[int, tuple[float, float]] = {}
        pages: dict[int, list[SourceWord]] = defaultdict(list)
        for number, line in enumerate(lines[1:], start=2):
            if not line.strip():
                continue
            cells = line.rstrip("\r").split("\t", len(_COLUMNS) - 1)
            try:
                row = _row(cells)
            except ValueError as error:
                yield Problem(
                    path, f"line {number}", f"not a row of Tesseract: {error}", content=line[:200]
                )
                continue
            page = row["page_num"]
            if row["level"] == _PAGE:
                sizes[page] = (row["width"], row["height"])
            elif row["level"] == _WORD and row["text"].strip():
                pages[page].append(_word(row, number))
        for page, words in sorted(pages.items()):
            yield SourceReceipt(
                source.name, path, words, f"page {page}", page, size=sizes.get(page)
            )


def _row(cells: list[str]) -> dict[str, Any]:
    """Read the cells of a row.

    Raises:
        ValueError: there are too few, or one is no number.
    """
    if len(cells) < len(_COLUMNS) - 1:
        raise ValueError(f"{len(cells)} columns, {len(_COLUMNS)} are needed")
    row: dict[str, Any] = dict(zip(_COLUMNS, [*cells, ""], strict=False))
    for name in _COLUMNS[:-2]:
        row[name] = int(row[name])
    row["conf"] = float(row["conf"])
    return row


def _word(row: dict[str, Any], number: int) -> SourceWord:
    return SourceWord(
        row["text"],
        sized(row["left"], row["top"], row["width"], row["height"]),
        line=(row["block_num"], row["par_num"], row["line_num"]),
        row=f"line {number}",
        confidence=row["conf"] / 100 if row["conf"] >= 0 else None,
    )
