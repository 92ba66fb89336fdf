"""Sizes of images, read from the first bytes of their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import imagesize

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif")


def size_beside(
    file: Path, folders: Sequence[Path | None], name: str | None = None
) -> tuple[float, float] | None:
    """Find the image of a file, and its size.

    Args:
        file: which the image belongs to, by its name without suffix.
        folders: where it may lie; None is left out.
        name: path of the image as the source writes it.

    Returns:
        Width and height in pixels; None where no image can be found or read.
    """
    for folder in folders:
        if folder is not None:
            for path in _candidates(folder, file, name):
                if (size := _size(path)) is not None:
                    return size
    return None


def _candidates(folder: Path, file: Path, name: str | None) -> list[Path]:
    named = []
    if name is not None and "://" not in name:
        inner = Path(name.replace("\\", "/"))
        # A source that names `../../../etc/passwd` gets no other file than its own images.
        if not inner.is_absolute() and ".." not in inner.parts:
            named = [folder / inner, folder / inner.name]
    return [*named, *(folder / f"{file.stem}{suffix}" for suffix in SUFFIXES)]


def _size(path: Path) -> tuple[float, float] | None:
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return None
    try:
        width, height = imagesize.get(path)
    except Exception:
        # A damaged image is one without a size.
        return None
    return (float(width), float(height)) if width > 0 and height > 0 else None
