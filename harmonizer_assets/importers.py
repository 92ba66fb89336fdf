"""Importers for Python callers: what reads the formats of others, and how to add one.

A package adds a format through the entry point group `harmonizer_assets.importers`, whose values
are classes derived from `Importer`.

Example:
    >>> from pathlib import Path
    >>> from harmonizer_assets.importers import import_to_folder
    >>> report = import_to_folder("funsd", [Path("annotations")], Path("imported"))
"""

from __future__ import annotations

from harmonizer_assets.core.importers.base import (
    Importer,
    ImportOptions,
    Problem,
    RoundTrip,
    SourceFile,
    SourceLabel,
    SourceReceipt,
    SourceWord,
    WrittenBack,
)
from harmonizer_assets.core.importers.importing import (
    ImportReport,
    import_to_folder,
    import_to_home,
)
from harmonizer_assets.core.importers.registry import format_names, importer
from harmonizer_assets.core.importers.writing_back import WriteBackReport, write_back
from harmonizer_assets.core.records.boxes import Normalised, normalise

__all__ = [
    "ImportOptions",
    "ImportReport",
    "Importer",
    "Normalised",
    "Problem",
    "RoundTrip",
    "SourceFile",
    "SourceLabel",
    "SourceReceipt",
    "SourceWord",
    "WriteBackReport",
    "WrittenBack",
    "format_names",
    "import_to_folder",
    "import_to_home",
    "importer",
    "normalise",
    "write_back",
]
