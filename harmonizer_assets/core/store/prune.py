"""Files of a home that its retention settings let go: reports, and batches that were ingested."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harmonizer_assets.core.base.files import remove, unfinished
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import RetentionSettings
from harmonizer_assets.core.base.written_reports import written_reports

_INGESTED: Final = ".done"
_LEFT_AFTER: Final = dt.timedelta(days=1)
"""Age at which an unfinished copy, of a file or of a batch, is that of a killed process."""
_UNFINISHED_BATCH: Final = re.compile(r"\.\d{8}T\d{6}\.\d{6}-[0-9a-f]{6}")
"""What the folder of a submitted batch is called while it is made or removed."""


@dataclass(frozen=True)
class Freed:
    """What was removed, or would be.

    Attributes:
        what: kind of the things, in the plural.
        count: how many.
        bytes: about how much of the disk they took.
    """

    what: str
    count: int
    bytes: int


@dataclass(frozen=True)
class _Entry:
    path: Path
    changed: dt.datetime
    bytes: int

    @classmethod
    def of(cls, path: Path) -> _Entry:
        state = path.lstat()
        size = state.st_size
        if path.is_dir() and not path.is_symlink():
            size = sum(file.lstat().st_size for file in path.rglob("*"))
        return cls(path, dt.datetime.fromtimestamp(state.st_mtime, dt.UTC), size)


def prune_files(
    home: Home, settings: RetentionSettings, now: dt.datetime, *, dry_run: bool
) -> list[Freed]:
    """Remove old reports and old batches, and more of them, oldest first, while they take too much.

    Batches that wait in the inbox or were set aside are not touched, since their rows are in no
    table, nor are the latest report and pages that no run has written.

    Args:
        home: whose files.
        settings: how old they may be, and how much they may take.
        now: the present.
        dry_run: whether to say only what would be freed.
    """
    reports = written_reports(home.reports)
    batches = (home.inbox / _INGESTED).glob("*")
    folders = (home.root, home.snapshot.parent, home.reports, home.models)
    copies = [
        *(path for folder in folders for path in unfinished(folder)),
        *(path for path in home.inbox.glob(".*") if _UNFINISHED_BATCH.fullmatch(path.name)),
    ]
    return [
        _prune("reports", reports, settings.report_days, settings.report_mb, now, dry_run),
        _prune("batches", batches, settings.batch_days, settings.batch_mb, now, dry_run),
        _prune("unfinished copies", copies, _LEFT_AFTER.days, None, now, dry_run),
    ]


def _prune(
    what: str,
    paths: Iterable[Path],
    days: float,
    megabytes: float | None,
    now: dt.datetime,
    dry_run: bool,
) -> Freed:
    entries = sorted(map(_Entry.of, paths), key=lambda entry: (entry.changed, entry.path))
    size = sum(entry.bytes for entry in entries)
    count = freed = 0
    for entry in entries:
        too_much = megabytes is not None and size > megabytes * 1e6
        if entry.changed > now - dt.timedelta(days=days) and not too_much:
            break
        size -= entry.bytes
        count, freed = count + 1, freed + entry.bytes
        if not dry_run:
            remove(entry.path)
    return Freed(what, count, freed)
