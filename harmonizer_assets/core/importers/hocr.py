"""hOCR: HTML with the boxes of pages, lines and words in the titles of its elements.

Tesseract, OCRopus, docTR and Kraken write it. It is read as HTML, which knows no entities but
characters, so no file can blow up.

Format: https://kba.github.io/hocr-spec/1.2/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

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
from harmonizer_assets.core.importers.images import size_beside
from harmonizer_assets.core.records.boxes import Points, rectangle

_LINES: Final = frozenset({"ocr_line", "ocrx_line", "ocr_header", "ocr_caption", "ocr_textfloat"})
_WORDS: Final = frozenset({"ocrx_word", "ocr_word"})
_EMPTY: Final = frozenset(
    {"br", "img", "meta", "link", "hr", "input", "wbr", "col", "area", "base"}
)
"""Elements that never end."""
_IMAGE: Final = re.compile(r"""image\s+(?:"([^"]*)"|'([^']*)'|([^;]+))""")
_BOX: Final = re.compile(r"(?:^|;)\s*bbox((?:\s+-?[\d.]+){4})")
_CONFIDENCE: Final = re.compile(r"(?:^|;)\s*x_wconf\s+([\d.]+)")


class Hocr(Importer):
    """Pages, lines and words as HTML."""

    name = "hocr"
    suffixes = (".hocr", ".html", ".htm", ".xhtml")
    describes = "hOCR of Tesseract and others"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the pages of a file."""
        path = source.path
        parser = _Parser()
        parser.feed(read_text(path))
        parser.close()
        if not parser.pages:
            raise InputError(f"{path}: not hOCR: it has no element of the class ocr_page")
        if parser.is_open:
            yield Problem(
                path, "", "the file ends within an element", "was it cut off?", is_left_out=False
            )
        for number, page in enumerate(parser.pages, start=1):
            size = page.size or size_beside(path, [options.images, path.parent], page.image)
            yield SourceReceipt(
                source.name,
                path,
                page.words,
                f"page {number}",
                number,
                size=size,
                image=page.image,
            )


@dataclass
class _Page:
    """A page while it is read."""

    title: str
    words: list[SourceWord] = field(default_factory=list)
    line: int = 0

    @property
    def image(self) -> str | None:
        """The path of the image, where the page names one."""
        found = _IMAGE.search(self.title)
        named = next((one for one in found.groups() if one), "").strip() if found else ""
        return named or None

    @property
    def size(self) -> tuple[float, float] | None:
        """Width and height, where the box of the page tells them."""
        box = _points(self.title)
        if box is None:
            return None
        (left, top), (right, bottom) = box
        return (right, bottom) if right > left and bottom > top else None


class _Parser(HTMLParser):
    """Collects the words of the pages."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pages: list[_Page] = []
        self._open: list[str] = []
        self._word: str | None = None
        self._word_depth = 0
        self._text: list[str] = []
        self._where = ""

    @property
    def is_open(self) -> bool:
        """Whether a word has not ended."""
        return self._word is not None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        told = dict(attrs)
        classes = set((told.get("class") or "").split())
        title = told.get("title") or ""
        if tag not in _EMPTY:
            self._open.append(tag)
        if "ocr_page" in classes:
            self.pages.append(_Page(title))
        elif classes & _LINES and self.pages:
            self.pages[-1].line += 1
        elif classes & _WORDS and self.pages and self._word is None:
            self._word, self._word_depth, self._text = title, len(self._open), []
            self._where = f"line {self.getpos()[0]}, word {told.get('id') or ''}".rstrip()

    def handle_data(self, data: str) -> None:
        """Take the text of a word."""
        if self._word is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        """End an element, and the word that it holds."""
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if self._word is not None and len(self._open) < self._word_depth:
            self._end_word(self._word)
            self._word = None

    def _end_word(self, title: str) -> None:
        page = self.pages[-1]
        confidence = _CONFIDENCE.search(title)
        page.words.append(
            SourceWord(
                "".join(self._text).strip(),
                _points(title),
                line=page.line,
                row=self._where,
                confidence=float(confidence[1]) / 100 if confidence else None,
            )
        )


def _points(title: str) -> Points | None:
    found = _BOX.search(title)
    if found is None:
        return None
    try:
        return rectangle(*(float(number) for number in found[1].split()))
    except ValueError:
        return None
