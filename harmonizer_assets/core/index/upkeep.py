"""Upkeep of the vector index: lost vectors are found, and those of no labelled word removed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

import duckdb

from harmonizer_assets.core.base.sql import text_list, texts_in
from harmonizer_assets.core.index.vectors import VectorIndex
from harmonizer_assets.core.records.label import WORD_COLUMNS
from harmonizer_assets.core.store.warehouse import Warehouse

_log = logging.getLogger(__name__)

_REWRITTEN_FROM: Final = 0.2
"""Share of removed documents from which the index is written anew: they stay in the graph that a
search walks, and make it miss neighbours."""

# The documents of words count as known although their vectors may not be recorded yet: another
# process may be between writing Chroma and recording it.
_KNOWN: Final = f"""
SELECT document_id,
    document_id IN (SELECT document_id FROM document_metadata) AND document_id IN (
        SELECT document_id FROM word_documents JOIN labels USING ({WORD_COLUMNS})
    ) AS is_recorded
FROM (
    SELECT document_id FROM document_metadata
    UNION
    SELECT document_id FROM word_documents
)
"""
_REMOVED: Final = """
SELECT coalesce(max(removed), 0) AS removed, (SELECT count(*) FROM document_metadata) AS documents
FROM index_state
"""


class Compared(NamedTuple):
    """The vector index beside the tables.

    Attributes:
        recorded: how many documents of labelled words the tables know as embedded.
        lost: those of them that the index lacks, sorted.
        strays: documents in the index that the tables do not know, sorted.
    """

    recorded: int
    lost: list[str]
    strays: list[str]


def compared(warehouse: Warehouse, vectors: VectorIndex) -> Compared:
    """Compare the index with the tables.

    Sets are compared, not counts: vectors that nobody needs any more would hide those that lack.
    """
    present = vectors.ids()
    known = warehouse.query(_KNOWN)
    every = set(known["document_id"].to_pylist())
    recorded = set(known.filter(known["is_recorded"])["document_id"].to_pylist())
    return Compared(len(recorded), sorted(recorded - present), sorted(present - every))


def forget_lost(warehouse: Warehouse, vectors: VectorIndex) -> Compared:
    """Mark documents as not embedded whose vectors are not in the index."""
    found = compared(warehouse, vectors)
    if found.lost:
        _log.info(
            "%d of %d documents are missing from the vector index: they are embedded again",
            len(found.lost),
            found.recorded,
        )
        warehouse.write(lambda con: _forget(con, found.lost))
    return found


def remove_documents(
    warehouse: Warehouse, vectors: VectorIndex, orphans: Sequence[str], strays: Sequence[str]
) -> None:
    """Remove documents that no labelled word has, from the index first and then from the tables.

    Args:
        warehouse: the tables.
        vectors: the index.
        orphans: documents in the tables.
        strays: further vectors, of which the tables know nothing.
    """
    gone = [*orphans, *strays]
    if gone:
        with vectors.session(writes=len(gone)) as session:
            session.delete(gone)
        warehouse.write(lambda con: _remove(con, orphans, len(gone)))
        _log.info("%d documents of no labelled word removed from the vector index", len(gone))
    # A process that was killed before it had written the index anew leaves that to the next one.
    [found] = warehouse.query(_REMOVED).to_pylist()
    if found["removed"] > _REWRITTEN_FROM * found["documents"]:
        rewrite(warehouse, vectors)


def rewrite(warehouse: Warehouse, vectors: VectorIndex) -> None:
    """Write the index anew from its own vectors, so that nothing of removed ones is left in it."""
    vectors.rewrite()
    warehouse.write(lambda con: con.execute("UPDATE index_state SET removed = 0"))


def _forget(con: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> None:
    con.execute(
        f"DELETE FROM document_metadata WHERE document_id IN {texts_in('$1')}",
        [text_list(ids)],
    )


def _remove(con: duckdb.DuckDBPyConnection, orphans: Sequence[str], removed: int) -> None:
    """Remove documents from the tables, and count those that were removed from the index."""
    for table in ("document_metadata", "word_documents"):
        con.execute(
            f"DELETE FROM {table} WHERE document_id IN {texts_in('$1')}",
            [text_list(orphans)],
        )
    con.execute(
        "DELETE FROM documents WHERE document_id NOT IN (SELECT document_id FROM word_documents)"
    )
    con.execute("UPDATE index_state SET removed = removed + $1", [removed])
