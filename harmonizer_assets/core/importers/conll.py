"""CoNLL: a word on each line, its tag in the last column, blank lines between sentences.

A document begins with `-DOCSTART-` or `# newdoc`; its sentences are lines of a receipt. In a file
without documents, each block between blank lines is a receipt. B- and I- are taken from the names
of labels unless they are to be kept.

Format: https://www.clips.uantwerpen.be/conll2003/ner/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

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
    WrittenBack,
)
from harmonizer_assets.core.importers.files import MAX_LINE_BYTES
from harmonizer_assets.core.importers.lines_text import lines_changed
from harmonizer_assets.core.importers.prefixes import OUTSIDE, opening_of, prefixed, unprefixed
from harmonizer_assets.core.ingest.readers import bounded_lines, readable

_START: Final = "-DOCSTART-"
_NEW: Final = re.compile(r"#\s*newdoc(?:\s+id\s*=\s*(.*))?")
_LAST_COLUMN: Final = re.compile(r"(.*\S[ \t]+)(\S+)([ \t]*)")


class Conll(RoundTrip):
    """Words with tags in columns."""

    name = "conll"
    suffixes = (".conll", ".bio", ".iob", ".txt", ".tsv")
    describes = "CoNLL: a word and its tag on each line"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the documents of a file."""
        path = source.path
        has_documents = any(_begins(line) for _, line in _lines(path))
        reading = _Reading(source, options, has_documents)
        for number, line in _lines(path):
            yield from reading.take(number, line)
        yield from reading.receipt()
        if not reading.rows:
            raise InputError(f"{path}: not CoNLL: no line holds a word and a tag")

    def write_back(
        self, source: SourceFile, changes: Mapping[Place, str | None], options: ImportOptions
    ) -> WrittenBack:
        """Replace tags; B- and I- stay as they are."""
        path = source.path
        opening = (
            ""
            if options.keep_prefix
            else opening_of(line.split()[-1] for _, line in _lines(path) if line.strip())
        )

        def change(number: int, line: str) -> str:
            found = _LAST_COLUMN.fullmatch(line)
            if (number,) not in changes or found is None:
                return line
            name = changes[(number,)]
            kept = options.keep_prefix and name is not None
            tag = name if kept else prefixed(found[2], name, opening=opening)
            return f"{found[1]}{tag}{found[3]}"

        return WrittenBack(lines_changed(path, change))


class _Reading:
    """A file while it is read, line by line."""

    def __init__(self, source: SourceFile, options: ImportOptions, has_documents: bool) -> None:
        self._source = source
        self._options = options
        self._has_documents = has_documents
        self._words: list[SourceWord] = []
        self._name: str | None = None
        self._number = self._sentence = 0
        self.rows = 0

    def take(self, number: int, line: str) -> Iterator[Read]:
        """Read a line; yield the receipt that ends with it."""
        begins = _begins(line)
        if begins:
            yield from self.receipt()
            named = _NEW.fullmatch(line.strip())
            self._name = (named[1] or "").strip() or None if named else None
        elif not line.strip():
            self._sentence += 1
            if not self._has_documents:
                yield from self.receipt()
        elif not line.startswith("# "):
            yield from self._word(number, line)

    def _word(self, number: int, line: str) -> Iterator[Read]:
        cells = line.split("\t") if "\t" in line else line.split()
        cells = [cell.strip() for cell in cells]
        row = f"line {number}"
        if len(cells) < 2:
            yield Problem(
                self._source.path,
                row,
                "one column, a word and a tag are needed",
                content=line[:200],
            )
            return
        self.rows += 1
        name = unprefixed(cells[-1], keeps=self._options.keep_prefix)
        label = SourceLabel(name or OUTSIDE, origin="annotation", place=(number,))
        self._words.append(
            SourceWord(
                cells[0],
                line=self._sentence,
                labels=() if name is None else (label,),
                row=row,
                place=(number,),
            )
        )

    def receipt(self) -> Iterator[SourceReceipt]:
        """Yield the words that have been read since the last receipt, if there are any."""
        if not self._words:
            return
        self._number += 1
        own = self._name or f"{self._source.name}/{self._number}"
        yield SourceReceipt(own, self._source.path, self._words, self._words[0].row)
        self._words, self._name = [], None


def _begins(line: str) -> bool:
    return line.startswith(_START) or _NEW.fullmatch(line.strip()) is not None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read the lines of a file, without their ends."""
    with readable(path), path.open("rb") as file:
        for line in bounded_lines(file, MAX_LINE_BYTES):
            if not line.is_whole:
                raise InputError(f"{path}: line {line.number} is too long to be a word and a tag")
            try:
                text = line.text.decode("utf-8-sig" if line.number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise InputError(
                    f"{path}: line {line.number}: not UTF-8: save the file as UTF-8"
                ) from None
            yield line.number, text.rstrip("\r\n")
