"""What is in files of another format, before they are imported: nothing is changed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.base.settings import LimitSettings
from harmonizer_assets.core.importers.base import ImportOptions
from harmonizer_assets.core.importers.importing import convert
from harmonizer_assets.core.importers.taxonomy import Fit, fit
from harmonizer_assets.core.importers.writing import Written
from harmonizer_assets.core.ingest import left_out
from harmonizer_assets.core.ingest.preflight import check_tables
from harmonizer_assets.core.records.input_summary import InputSummary
from harmonizer_assets.core.records.taxonomy import Taxonomy


@dataclass(frozen=True)
class Preflight:
    """What is in files of another format.

    Attributes:
        files: how many were read.
        written: what would be imported, and what could not be used.
        fit: how the label types fit to the taxonomy.
        summary: what an ingest of it would do.
    """

    files: int
    written: Written
    fit: Fit
    summary: InputSummary


def check_foreign(
    format_name: str,
    paths: Sequence[Path],
    taxonomy: Taxonomy | None,
    limits: LimitSettings,
    options: ImportOptions | None = None,
    *,
    label_map: Path | None = None,
    on_progress: ProgressFn | None = None,
) -> Preflight:
    """Read files as an import would, and check the result as an ingest would.

    Args:
        format_name, paths, options, label_map, on_progress: see `importing.import_to_folder`.
        taxonomy: the known label types; None for those of the files themselves.
        limits: how large rows may be.

    Raises:
        InputError: nothing can be read.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, written = convert(
            format_name, paths, folder, options, label_map=label_map, on_progress=on_progress
        )
        label_types = tuple(written.names) if taxonomy is None else taxonomy.names
        summary = check_tables([folder], label_types, limits, problems=folder / left_out.FILE)
    return Preflight(files, written, fit(written.names, label_types, written.padded), summary)
