"""Files of a home that quote deleted texts: reports, and copies of what arrived."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.files import files_in, path_of
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.erase.texts import DeletedTexts


def quoting_files(home: Home, texts: DeletedTexts) -> tuple[list[Path], list[Path]]:
    """List the home's files that quote deleted texts, and those that may not be read.

    These are reports, damaged journals of answers, and batches in `inbox/.done` and
    `inbox/.failed`. Batches that wait are left alone: their rows are withheld when they arrive.

    Returns:
        Files that quote them, and files and folders of which nobody can tell; both sorted.
    """
    folders = (
        home.reports,
        home.journals / "damaged",
        home.inbox / ".done",
        home.inbox / ".failed",
    )
    quoting: list[Path] = []
    unread: list[Path] = []

    def refused(error: PermissionError) -> None:
        unread.append(path_of(error))

    for folder in folders:
        for path in files_in(folder, refused):
            try:
                if _quotes(path, texts):
                    quoting.append(path)
            except PermissionError as error:
                refused(error)
    return sorted(quoting), sorted(unread)


def remove_files(paths: Sequence[Path]) -> list[Path]:
    """Remove files; return those that may not be removed."""
    kept = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except PermissionError:
            kept.append(path)
    return kept


def _quotes(path: Path, texts: DeletedTexts) -> bool:
    try:
        if path.suffix.lower() == ".parquet":
            return any(texts.occur_in(content) for content in _parquet_texts(path))
    except (OSError, pa.ArrowException):
        pass  # a damaged file may still hold texts as they are
    return texts.occur_in(path.read_text(encoding="utf-8", errors="replace"))


def _parquet_texts(path: Path) -> Iterator[str]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield "\n".join(str(value) for column in batch for value in column.unique().to_pylist())
