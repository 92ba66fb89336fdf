"""Errors of DuckDB and of the disk, as `StoreError`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harmonizer_assets.core.base.errors import StoreError

COMMITTED: Final = "COMMIT succeeded"
"""What DuckDB says where the write-ahead log has a transaction that the file has no room for."""


def store_error(error: Exception, database: Path, *, committed: bool = False) -> StoreError:
    """Make the error that names the database, what went wrong, and the remedy.

    Args:
        error: of DuckDB or of the disk.
        database: the file.
        committed: whether the transaction was over, so that its rows are in the write-ahead log.
    """
    # DuckDB names what happened to it first and the cause on a later line.
    text = " ".join(str(error).partition("Stack Trace")[0].split()) or type(error).__name__
    is_kept = committed or COMMITTED in text
    kept = "what was written is kept" if is_kept else "nothing was written"
    remedy = f"{kept}; see the message and run again"
    lowered = text.lower()
    if "no space" in lowered or "disk full" in lowered or "could not write" in lowered:
        remedy = "the disk is full or nearly so: make room and run again, nothing was lost"
    elif "memory" in lowered:
        remedy = "not enough memory: run on a larger machine or fewer labels at once"
    elif "not a valid duckdb" in lowered:
        remedy = "it is not a DuckDB file: move it away or give another --home"
    elif "permission" in lowered:
        remedy = "check who owns the home folder"
    return StoreError(f"{database}: {text} ({remedy})")
