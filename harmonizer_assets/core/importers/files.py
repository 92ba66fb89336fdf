"""Files of a source: which ones there are, and how they are read without trusting them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import ijson
import numpy as np

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.base import Importer, SourceFile
from harmonizer_assets.core.ingest.readers import bounded_lines, readable

MAX_FILE_BYTES: Final = 200_000_000
"""Of a file that is read as a whole."""
MAX_LINE_BYTES: Final = 20_000_000
MAX_DEPTH: Final = 100
"""Arrays and objects within each other."""
_READ: Final = 1 << 16
_NATURAL: Final = re.compile(r"(\d+)")


def source_files(paths: Sequence[Path], importer: Importer) -> list[SourceFile]:
    """List the files to be read; folders are searched for files with the format's suffixes.

    Raises:
        InputError: there is no such file, or a folder holds none of the format.
    """
    found: dict[Path, SourceFile] = {}
    for path in paths:
        for file in _files(path, importer):
            found.setdefault(file.path.resolve(), file)
    return [*found.values()]


def _files(path: Path, importer: Importer) -> list[SourceFile]:
    if path.is_dir():
        inside = sorted(
            (one for one in path.rglob("*") if _is_taken(one, importer)), key=_natural_order
        )
        if not inside:
            raise InputError(
                f"{path}: the folder has no file of the format {importer.name} "
                f"({', '.join(importer.suffixes)})"
            )
        return [SourceFile(one, one.relative_to(path).with_suffix("").as_posix()) for one in inside]
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return [SourceFile(path, path.stem)]


def _is_taken(path: Path, importer: Importer) -> bool:
    return (
        path.suffix.lower() in importer.suffixes
        and not any(part.startswith(".") for part in path.parts)
        and path.is_file()
        and not importer.skips(path)
    )


def _natural_order(path: Path) -> list[tuple[bool, int, str]]:
    """Sort `page2` before `page10`."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in _NATURAL.split(path.as_posix())
    ]


def read_text(path: Path, encodings: Sequence[str] = ("utf-8-sig",)) -> str:
    """Read a file as a whole.

    Args:
        path: of the file.
        encodings: to be tried, in this order.

    Raises:
        InputError: it is empty, too large, or in none of the encodings.
    """
    with readable(path):
        size = path.stat().st_size
        if not size:
            raise InputError(f"{path}: the file is empty")
        if size > MAX_FILE_BYTES:
            raise InputError(
                f"{path}: {size:,} bytes; the limit is {MAX_FILE_BYTES:,}: split the file"
            )
        content = path.read_bytes()
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InputError(f"{path}: not UTF-8: save the file as UTF-8")


def read_json(path: Path) -> Any:
    """Read a JSON file as a whole.

    Raises:
        InputError: it cannot be read, or is no JSON.
    """
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str) -> Any:
    """Parse JSON that nobody has checked.

    Raises:
        InputError: it is no JSON, or nested too deeply.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON: {error}") from error
    except RecursionError:
        raise InputError(f"{where}: not usable: nested too deeply") from None
    if "\\u" in text:
        _check_surrogates(text, found, where)
    return found


def _check_surrogates(text: str, found: Any, where: str) -> None:
    """Refuse halves of surrogate pairs, which no other file could hold."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: not usable: holds half of a surrogate pair") from None
    except RecursionError:
        raise InputError(f"{where}: not usable: nested too deeply") from None


def json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read the lines of a file that are not blank, each with its number from 1.

    Raises:
        InputError: it cannot be read, is empty, not UTF-8, or a line is too long.
    """
    with readable(path):
        if not path.stat().st_size:
            raise InputError(f"{path}: the file is empty")
        with path.open("rb") as file:
            for line in bounded_lines(file, MAX_LINE_BYTES):
                if not line.is_whole:
                    raise InputError(
                        f"{path}: line {line.number} is longer than {MAX_LINE_BYTES:,} bytes: "
                        "is it JSON lines, with one object on each line?"
                    )
                if line.text.strip():
                    yield line.number, _decoded(line.text, path, line.number)


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: line {number}: not UTF-8: save the file as UTF-8") from None


def starts_with(path: Path, sign: bytes) -> bool:
    """Return whether the first sign of a file that is no blank is this one."""
    with readable(path), path.open("rb") as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == sign


def json_array(path: Path, prefix: str = "item") -> Iterator[Any]:
    """Read the values of an array one by one, however large the file is.

    Args:
        path: of the file.
        prefix: where the array stands, as ijson writes it.

    Raises:
        InputError: it cannot be read, is no JSON, or nested too deeply.
    """
    with readable(path), path.open("rb") as file:
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        try:
            yield from ijson.items(_Shallow(file, path), prefix, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            said = str(error).splitlines()[0][:200] if str(error) else "it ends too early"
            raise InputError(f"{path}: not valid JSON: {said}") from error


class _Shallow:
    """Passes a file on, and refuses one that is nested so deeply that reading it could crash."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._depth = 0
        self._is_text = 0
        self._carried = b""

    def read(self, size: int = _READ) -> bytes:
        """Read the next part.

        Raises:
            InputError: it is nested too deeply.
        """
        part = self._file.read(max(size, _READ) if size else 0)
        if part:
            self._count(self._carried + part)
        return part

    def _count(self, part: bytes) -> None:
        """Follow the depth through a part of the file; brackets in texts do not count."""
        plain = _ESCAPED.sub(b"", part)
        self._carried = b"\\" if plain.endswith(b"\\") else b""
        signs = np.frombuffer(plain, np.uint8)
        texts = (np.cumsum(signs == _QUOTE) + self._is_text) & 1
        steps = _STEPS[signs] * (1 - texts)
        depths = np.cumsum(steps) + self._depth
        if len(depths):
            self._is_text, self._depth = int(texts[-1]), int(depths[-1])
            if depths.max() > MAX_DEPTH:
                raise InputError(f"{self._path}: not usable: nested too deeply")


_ESCAPED: Final = re.compile(rb"\\.", re.S)
_QUOTE: Final = ord('"')
_STEPS: Final = np.zeros(256, np.int64)
_STEPS[[*b"[{"]] = 1
_STEPS[[*b"]}"]] = -1


def as_object(value: Any, what: str) -> Mapping[str, Any]:
    """Return a value that must be an object.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is no object")
    return value


def as_list(value: Any, what: str) -> Sequence[Any]:
    """Return a value that must be a list; nothing is an empty one.

    Raises:
        ValueError: it is none.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what} is no list")
    return value


def json_records(path: Path) -> Iterator[tuple[str, int, Any]]:
    """Read the records of a file: an array, or a value on each line.

    Yields:
        Where the record stands, its number from 0 (of an array) or its line from 1, and the record;
        of a line that is no JSON, the error.

    Raises:
        InputError: the file cannot be read.
    """
    if starts_with(path, b"["):
        for place, value in enumerate(json_array(path)):
            yield f"record {place + 1}", place, value
        return
    for number, line in json_lines(path):
        try:
            value = parse_json(line, f"line {number}")
        except InputError as error:
            value = error
        yield f"line {number}", number, value
