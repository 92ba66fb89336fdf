"""The reports that runs have written into a folder, told from other files there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

REPORTS: Final = "/reports"
"""Path of the web UI under which the reports are served."""

_OF_A_RUN: Final = re.compile(r"([0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}|\d{8}T\d{6})\.html")
_TITLE: Final = b"<title>Harmonization report"
_HEAD_BYTES: Final = 1_000


def written_reports(folder: Path) -> list[Path]:
    """List the reports that are named after a run or a time, newest first.

    Only these are ours to remove: people may keep pages of their own beside them.
    """
    found = []
    for path in folder.glob("*.html"):
        if _OF_A_RUN.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if _TITLE in file.read(_HEAD_BYTES):
                    found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def count_as_newest(report: Path) -> None:
    """Give a report that was just written a time after all others, if the clock was set back."""
    newest = max(path.stat().st_mtime_ns for path in [report, *written_reports(report.parent)])
    if report.stat().st_mtime_ns < newest:
        os.utime(report, ns=(newest + 1, newest + 1))
