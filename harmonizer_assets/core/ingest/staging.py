"""The private database in which a batch is read and checked before it is merged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import duckdb

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.interrupts import interrupts_raised
from harmonizer_assets.core.base.progress import Progress, ProgressFn
from harmonizer_assets.core.base.scratch import scratch_folder
from harmonizer_assets.core.base.settings import LimitSettings
from harmonizer_assets.core.ingest.entries import InboxBatch
from harmonizer_assets.core.ingest.layouts import LAYOUTS
from harmonizer_assets.core.ingest.readers import (
    StagedFile,
    check_file,
    make_raw_table,
    stage_rows,
)
from harmonizer_assets.core.store.warehouse import Connection

STAGE: Final = "ingest"

_MEMORY: Final = "700MB"


@contextlib.contextmanager
def staging_database(home: Home) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Create a private database in a home, so that reading does not lock the warehouse.

    Yields:
        The connection and the file, which is removed at the end. Close the connection before
        another process or connection opens the file.

    Raises:
        StoreError: the disk is full, or the home cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder(home))
        except OSError as error:
            raise StoreError(f"{home.scratch}: staging failed: {error.strerror}") from error
        yield stack.enter_context(private_database(folder))


@contextlib.contextmanager
def private_database(folder: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Create a database of its own in a folder; see `staging_database`."""
    file = folder / "ingest.duckdb"
    try:
        con = duckdb.connect(
            file,
            config={
                "temp_directory": str(folder),
                "memory_limit": _MEMORY,
                "preserve_insertion_order": "false",
                "threads": "1",
                "autoinstall_known_extensions": "false",
            },
        )
        with contextlib.closing(con), interrupts_raised():
            yield con, file
    except duckdb.IOException as error:
        first = str(error).splitlines()[0]
        raise StoreError(
            f"{folder}: staging failed: {first} (make room and run again; nothing was ingested)"
        ) from error


def stage_batch(
    con: Connection, batch: InboxBatch, limits: LimitSettings, on_progress: ProgressFn | None
) -> dict[str, StagedFile]:
    """Copy the rows of a batch into a staging database; return what was read by table.

    Raises:
        InputError: a file cannot be read.
        FileNotFoundError: there is no such file.
    """
    for layout in LAYOUTS:
        make_raw_table(con, layout)
    read: dict[str, StagedFile] = {}
    for layout, path in batch.files:
        check_file(path, layout, limits)
        read[layout.name] = stage_rows(con, path, layout, limits)
        if on_progress:
            on_progress(Progress(STAGE, 0, 0, sum(file.rows for file in read.values()), 0))
    return read
