"""SROIE (ICDAR 2019): a file of boxes for each image, and a file of keys beside it.

A line of `box/NAME.csv` or `.txt` is `x1,y1,x2,y2,x3,y3,x4,y4,text`. `key/NAME.json` (in copies of
the data set also `entities/NAME.txt`) holds `company`, `date`, `address` and `total` as texts; the
words that make them up are looked for in the lines.

Format: https://rrc.cvc.uab.es/?ch=13&com=tasks
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.base.errors import InputError
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
from harmonizer_assets.core.importers.files import read_json, read_text
from harmonizer_assets.core.importers.images import size_beside
from harmonizer_assets.core.importers.texts import split_line
from harmonizer_assets.core.records.boxes import flat

_LINE: Final = re.compile(r"\s*" + r"(-?\d+(?:\.\d+)?)\s*,\s*" * 8 + r"(.*)")
_ENCODINGS: Final = ("utf-8-sig", "cp1252", "latin-1")
_KEYS: Final = ("key", "keys", "entities")
_IMAGES: Final = ("img", "image", "images")
_UNWRITTEN: Final = re.compile(r"[\W_]+")
FIELDS: Final = ("company", "date", "address", "total")


class Sroie(Importer):
    """Boxes of text lines, and keys."""

    name = "sroie"
    suffixes = (".csv", ".txt")
    describes = "SROIE: files of boxes, with files of keys and images beside them"

    def skips(self, path: Path) -> bool:
        """Skip the files of keys."""
        return path.parent.name.lower() in _KEYS

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the lines of an image, split into words."""
        path = source.path
        words: list[SourceWord] = []
        usable = 0
        for number, line in enumerate(read_text(path, _ENCODINGS).splitlines(), start=1):
            found = _LINE.fullmatch(line)
            if found is None:
                if line.strip():
                    yield Problem(
                        path,
                        f"line {number}",
                        "not eight coordinates and a text",
                        "write x1,y1,x2,y2,x3,y3,x4,y4,text",
                        content=line[:200],
                    )
                continue
            usable += 1
            words += _words(number, [float(one) for one in found.groups()[:8]], found[9])
        if not usable:
            raise InputError(
                f"{path}: not a file of boxes of SROIE: no line is x1,y1,x2,y2,x3,y3,x4,y4,text"
            )
        keys = yield from _keys(path)
        labelled = yield from _labelled(path, words, keys)
        yield SourceReceipt(
            source.name if source.name != path.stem else path.stem,
            path,
            labelled,
            size=size_beside(path, _folders(path, options)),
            merchant_name=keys.get("company"),
        )


def _folders(path: Path, options: ImportOptions) -> list[Path | None]:
    beside = [path.parent.parent / name for name in _IMAGES]
    return [options.images, *beside, path.parent]


def _words(number: int, corners: Sequence[float], text: str) -> Iterator[SourceWord]:
    parts = [*split_line(text, flat(corners))] or [("", flat(corners))]
    for place, (word, points) in enumerate(parts, start=1):
        yield SourceWord(word, points, line=number, row=f"line {number}, word {place}")


def _keys(path: Path) -> Generator[Problem, None, dict[str, str]]:
    """Read the keys of an image; return them by field."""
    for folder in (path.parent.parent / name for name in _KEYS):
        for suffix in (".json", ".txt"):
            file = folder / f"{path.stem}{suffix}"
            if file.is_file():
                return (yield from _read_keys(file))
    yield Problem(
        path, "", "no file of keys is beside it", "put it into key/ beside box/", is_left_out=False
    )
    return {}


def _read_keys(file: Path) -> Generator[Problem, None, dict[str, str]]:
    found = read_json(file)
    if not isinstance(found, Mapping):
        yield Problem(file, "", "not an object with company, date, address and total")
        return {}
    keys = {}
    for name, value in found.items():
        if isinstance(value, str):
            keys[name] = value
        elif value is not None:
            yield Problem(file, name, f"its value is no text: {str(value)[:40]}")
    return keys


def _labelled(
    path: Path, words: Sequence[SourceWord], keys: Mapping[str, str]
) -> Generator[Problem, None, list[SourceWord]]:
    """Label the words that make up the keys; return all words."""
    sought = _Sought.of(words)
    labels: dict[int, list[SourceLabel]] = {}
    for name, value in keys.items():
        if not value.strip():
            continue
        places = sought.find(value, prefers_total=name == "total")
        if not places:
            yield Problem(
                path,
                f"key {name}",
                "its text is not in the lines, so it labels no word",
                content=value[:200],
            )
        for place in places:
            labels.setdefault(place, []).append(SourceLabel(name, origin="key"))
    return [replace(word, labels=tuple(labels.get(place, ()))) for place, word in enumerate(words)]


def _plain(text: Any) -> str:
    return _UNWRITTEN.sub("", str(text)).casefold()


@dataclass(frozen=True)
class _Sought:
    """The letters and digits of all words in one text.

    Attributes:
        letters: the text.
        owner: the word of each letter.
        starts: where words start.
        total_lines: places of words on lines that speak of a total.
    """

    letters: str
    owner: Sequence[int]
    starts: frozenset[int]
    total_lines: frozenset[int]

    @classmethod
    def of(cls, words: Sequence[SourceWord]) -> _Sought:
        """Join the words of an image."""
        plain = [_plain(word.text) for word in words]
        owner = [place for place, text in enumerate(plain) for _ in text]
        starts = frozenset(n for n, place in enumerate(owner) if n == 0 or owner[n - 1] != place)
        lines = {word.line for word, text in zip(words, plain, strict=True) if "total" in text}
        total = frozenset(place for place, word in enumerate(words) if word.line in lines)
        return cls("".join(plain), owner, starts, total)

    def find(self, value: str, *, prefers_total: bool) -> list[int]:
        """Find the words that make up a text: its first occurrence.

        Of an amount that stands there several times, the first on a line that speaks of a total
        counts, else the last.
        """
        wanted = _plain(value)
        found = [*self._occurrences(wanted)] if wanted else []
        if not found:
            return []
        chosen = found[0]
        if prefers_total:
            on_total = [start for start in found if self.owner[start] in self.total_lines]
            chosen = on_total[0] if on_total else found[-1]
        return [*dict.fromkeys(self.owner[chosen : chosen + len(wanted)])]

    def _occurrences(self, wanted: str) -> Iterator[int]:
        """Yield where a text begins, at the start of words if it does anywhere."""
        found = [one.start() for one in re.finditer(re.escape(wanted), self.letters)]
        at_words = [
            start
            for start in found
            if start in self.starts
            and (start + len(wanted) == len(self.owner) or start + len(wanted) in self.starts)
        ]
        yield from at_words or found
