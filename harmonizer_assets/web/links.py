"""Links of the web UI to what is served beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import quote

from harmonizer_assets.core.base.written_reports import REPORTS

REVIEW: Final = "/review"
"""Path of the web UI under which the review page is served."""


def report_link(page: Path) -> str:
    """Return the address of a report without host and port, so that it holds on every port."""
    return f"{REPORTS}/{quote(page.name)}"
