"""Erase the last traces of deleted words: vectors, quotes, answers, copies, unused space."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.erase.files import quoting_files, remove_files
from harmonizer_assets.core.erase.tables import delete_quotes
from harmonizer_assets.core.erase.texts import DeletedTexts
from harmonizer_assets.core.index.stage import Indexing
from harmonizer_assets.core.judge.llm.lease import asking
from harmonizer_assets.core.judge.llm.memory.journal import recover
from harmonizer_assets.core.store import Warehouse, publish_snapshot

_log = logging.getLogger(__name__)

_TEXTS: Final = "SELECT text FROM pending_erasures WHERE text IS NOT NULL AND NOT is_key"
_KEYS: Final = """
SELECT DISTINCT text FROM pending_erasures WHERE is_key
    AND text NOT IN (SELECT merchant_key FROM labels)
    AND text NOT IN (SELECT unnest([merchant_key, own_key]) FROM merchant_names)
"""

Eraser = Callable[[DeletedTexts], int]
"""Removes texts from a store outside core; returns in how many places they stood."""


@dataclass(frozen=True)
class Erased:
    """What was removed beside the deleted rows.

    Attributes:
        documents: documents that left the vector index.
        rows: rows of tables that quoted a deleted text.
        files: the names of files that did, relative to the home.
        elsewhere: places in other stores, as events of Dagster.
        kept: files and folders of the home that may not be read or removed, relative to it. What
            was deleted may stand in them; the next call looks again.
    """

    documents: int
    rows: int
    files: Sequence[str]
    elsewhere: int
    kept: Sequence[str]


def erase_pending(
    home: Home,
    warehouse: Warehouse,
    indexing: Indexing,
    clearing: Sequence[Callable[[], object]],
    others: Sequence[Eraser] = (),
) -> Erased | None:
    """Erase the traces of what was deleted; a process that is killed leaves it to the next.

    The database and the vector index are written anew at the end, since deleted rows stay in their
    files until they are overwritten.

    Args:
        home: whose files are looked through.
        warehouse: the home's tables.
        indexing: the home's vector index.
        clearing: each removes everything from a store that holds words and is filled again: units
            of work, published versions of the tables.
        others: erase from further stores. Without any, what Dagster's events quote is left to the
            next call that has some.

    Returns:
        What was removed; None when nothing had been deleted.

    Raises:
        StoreError: a store cannot be written; the next call goes on.
    """
    pending = warehouse.query("SELECT count(*) AS n FROM pending_erasures")["n"][0].as_py()
    if not pending:
        return None
    texts = DeletedTexts(*(_column(warehouse, sql) for sql in (_TEXTS, _KEYS)))
    # Answers of a run that asks are on their way into journal and tables.
    with asking(home):
        recover(home.journals, warehouse)
        documents = indexing.purge()
        rows, files, kept, elsewhere = 0, list[Path](), list[Path](), 0
        if texts:
            rows = warehouse.write(lambda con: delete_quotes(con, texts))
            quoting, unread = quoting_files(home, texts)
            unremoved = remove_files(quoting)
            files = [path for path in quoting if path not in unremoved]
            kept = [*unread, *unremoved]
            elsewhere = sum(erase(texts) for erase in others)
        for clear in clearing:
            clear()
    events_done = bool(others) or not texts or not home.has_events()
    everything = events_done and not kept
    if everything:
        warehouse.write(
            lambda con: con.execute("DELETE FROM pending_erasures WHERE text IS NOT NULL")
        )
    warehouse.compact()
    publish_snapshot(warehouse)
    if everything:
        warehouse.write(lambda con: con.execute("DELETE FROM pending_erasures"))
    if not events_done:
        _log.warning("Dagster's events may quote deleted words until the next `harmonizer run`")
    names = tuple(str(path.relative_to(home.root)) for path in kept)
    if names:
        _log.warning("%s", may_quote(names))
    _log.info(
        "traces of deleted words erased: %d documents, %d rows, %d files, %d places elsewhere",
        documents,
        rows,
        len(files),
        elsewhere,
    )
    found = tuple(str(path.relative_to(home.root)) for path in files)
    return Erased(documents, rows, found, elsewhere, names)


def may_quote(names: Sequence[str]) -> str:
    """Say of files that may not be read or removed what to do about them."""
    return (
        f"what was deleted may stand in {', '.join(names)}, which may not be read or removed: "
        "remove it, or give yourself the right to; the next run looks again"
    )


def _column(warehouse: Warehouse, sql: str) -> list[str]:
    found: list[str] = warehouse.query(sql)["text"].to_pylist()
    return found
