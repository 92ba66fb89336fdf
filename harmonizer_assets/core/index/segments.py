"""Chroma's segment files: unused space in them is overwritten with zeros."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("=iQQQQ")
"""Start of `header.bin`: version, offset, capacity and number of elements, bytes per element."""
_VERSION: Final = 1
_BYTES_PER_LENGTH: Final = 4


def clear_unused_space(folder: Path) -> None:
    """Overwrite with zeros what the segment files in Chroma's folder hold past their last element.

    The library under Chroma writes the files of a new segment at their full capacity without
    filling the memory first, so that they can hold whatever the process freed before, the
    headers of a request with its key among it (https://github.com/chroma-core/chroma/issues/7688).
    No client may have the folder open.

    Args:
        folder: the folder of a persistent client; it need not exist.
    """
    for header in folder.glob("*/header.bin"):
        start = header.read_bytes()[: _HEADER.size]
        if len(start) < _HEADER.size:
            continue
        version, _, _, elements, bytes_per_element = _HEADER.unpack(start)
        if version != _VERSION:
            continue
        _clear_after(header.with_name("length.bin"), elements * _BYTES_PER_LENGTH)
        _clear_after(header.with_name("data_level0.bin"), elements * bytes_per_element)


def _clear_after(file: Path, used: int) -> None:
    unused = file.stat().st_size - used if file.exists() else 0
    if unused <= 0:
        return
    with file.open("r+b") as stream:
        stream.seek(used)
        if any(stream.read(unused)):
            stream.seek(used)
            stream.write(bytes(unused))
            stream.flush()
            os.fsync(stream.fileno())
