"""Merge the checked rows of a batch into the warehouse: the later batch wins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

import duckdb

from harmonizer_assets.core.ingest.corrected import (
    REPEATS_CORRECTED,
    keep_provenance,
    note_repeats,
    repeated_later,
)
from harmonizer_assets.core.ingest.entries import InboxBatch
from harmonizer_assets.core.ingest.marked import IS_MARKED, delete_marked
from harmonizer_assets.core.ingest.order import Arrival, Place, place_of, record_resend
from harmonizer_assets.core.ingest.quarantine import mend
from harmonizer_assets.core.ingest.readers import StagedFile
from harmonizer_assets.core.merchants.names import note_names
from harmonizer_assets.core.records.label import LABEL_KEY, WORD_KEY
from harmonizer_assets.core.records.reports import BatchReport
from harmonizer_assets.core.store.deletions import covered
from harmonizer_assets.core.store.numbers import next_number
from harmonizer_assets.core.store.ranks import Rank, compared, outranks, record_rank

_NO_FILE: Final = StagedFile(0, {})
_IDS_OF_ROW: Final = "row::JSON->>'$.image_id' AS image_id, " + ", ".join(
    f"TRY_CAST(row::JSON->>'$.{name}' AS BIGINT) AS {name}" for name in WORD_KEY[1:]
)
# What was deleted stays away, also where it could not be used.
_IS_WITHHELD: Final = f"""
EXISTS (
    FROM deletions d, (SELECT {_IDS_OF_ROW}) r
    WHERE {outranks("d", "holds_until")} AND {covered("r", labels=False, deletion="d")}
)
"""

# A sender who goes on sending what was corrected is to be told each time.
_LAST_REPEATED: Final = """
SELECT coalesce(arg_max(labels_repeated, number), 0) FROM batches WHERE batch_id = $batch_id
"""


class _Merged(NamedTuple):
    """Rows of one table that were inserted, updated, decided otherwise by something later, as they
    were before a correction, or kept out since they were deleted."""

    inserted: int
    updated: int
    outdated: int
    repeated: int
    withheld: int


def merge_batch(
    con: duckdb.DuckDBPyConnection, arrival: Arrival, read: Mapping[str, StagedFile]
) -> BatchReport:
    """Merge the rows of a batch and record it in `batches`; used inside `Warehouse.write`.

    Args:
        con: the connection that `write` gave, with the staging database attached as `staged`.
        arrival: the batch, its content's hash, and what decides on its place among the others.
        read: what was read, by table.

    Returns:
        What changed; `unchanged` if another run has ingested the same batch meanwhile.
    """
    batch, place = arrival.batch, place_of(con, arrival)
    resent = resent_batch(con, arrival, place)
    if resent is not None:
        return resent
    rank = place.rank
    deleted = delete_marked(con, rank, batch.source)
    batch_id = arrival.batch_id
    words = _merge_table(con, "words", "staged.checked_words", WORD_KEY, batch_id, rank)
    named = keep_provenance(con, note_names(con, rank.batch_time))
    labels = _merge_table(con, "labels", named, LABEL_KEY, batch_id, rank)
    report = BatchReport(
        batch.source,
        batch_id,
        time_given=arrival.time_given,
        words_read=read.get("words", _NO_FILE).rows,
        words_inserted=words.inserted,
        words_updated=words.updated,
        words_outdated=words.outdated,
        words_deleted=deleted.words,
        words_withheld=words.withheld,
        labels_read=read.get("labels", _NO_FILE).rows,
        labels_inserted=labels.inserted,
        labels_updated=labels.updated,
        labels_outdated=labels.outdated,
        labels_repeated=labels.repeated,
        labels_deleted=deleted.labels,
        labels_withheld=labels.withheld,
        quarantined=_quarantine_rows(con, batch_id, rank),
    )
    mend(con, batch, batch_id, rank)
    _record(con, arrival, rank, report)
    _record_types(con, arrival.batch_id, read)
    return report


def resent_batch(
    con: duckdb.DuckDBPyConnection, arrival: Arrival, place: Place
) -> BatchReport | None:
    """Report a batch that changes nothing, and note its time; used inside `Warehouse.write`.

    Returns:
        None for one that does change something.
    """
    if not place.changes_nothing:
        return None
    record_resend(con, arrival, place)
    repeated = con.execute(_LAST_REPEATED, {"batch_id": arrival.batch_id}).fetchall()[0][0]
    return BatchReport(
        arrival.batch.source, arrival.batch_id, unchanged=True, labels_repeated=repeated
    )


def quarantine_batch(con: duckdb.DuckDBPyConnection, batch: InboxBatch, error: str) -> None:
    """Record in `quarantine` that a batch cannot be read; used inside `Warehouse.write`."""
    con.execute(
        "INSERT INTO quarantine BY NAME SELECT $batch_id AS batch_id, $file AS file, "
        f"{next_number('quarantine')} AS number, "
        "NULL AS row_number, NULL AS table_name, $reason AS reason, now() AS quarantined_at",
        {"batch_id": batch.folder.name, "file": batch.source, "reason": error},
    )


def _quarantine_rows(con: duckdb.DuckDBPyConnection, batch_id: str, rank: Rank) -> int:
    # A batch that comes again brings the same broken rows.
    con.execute("DELETE FROM quarantine WHERE batch_id = $1", [batch_id])
    rejected = con.execute(
        "INSERT INTO quarantine BY NAME "
        "SELECT $batch_id AS batch_id, * EXCLUDE (row, reason, remedy), row::JSON AS row, "
        "concat(reason, ' (' || nullif(remedy, '') || ')') AS reason, "
        f"{next_number('quarantine')} AS number, now() AS quarantined_at "
        f"FROM staged.rejected WHERE NOT {_IS_WITHHELD}",
        {"batch_id": batch_id, **compared(rank)},
    ).fetchone()
    return int(rejected[0]) if rejected else 0


def _record(
    con: duckdb.DuckDBPyConnection, arrival: Arrival, rank: Rank, report: BatchReport
) -> None:
    values = {
        name: value for name, value in vars(report).items() if name not in ("unchanged", "summary")
    }
    values |= {"name": arrival.batch.folder.name, "batch_time": rank.batch_time}
    columns = ", ".join(f"${name} AS {name}" for name in values)
    con.execute(
        f"INSERT INTO batches BY NAME SELECT {columns}, now() AS ingested_at, "
        f"{next_number('batches')} AS number",
        values,
    )
    record_rank(con, arrival.batch_id, rank, arrival.batch.arrival)


def _record_types(
    con: duckdb.DuckDBPyConnection, batch_id: str, read: Mapping[str, StagedFile]
) -> None:
    """Record the types of the columns that pass through, so that an export gives them back."""
    types = {table: dict(file.types) for table, file in read.items() if file.types}
    if types:
        con.execute(
            "UPDATE batches SET extra_types = $1 WHERE batch_id = $2",
            [json.dumps(types, ensure_ascii=False), batch_id],
        )


def _merge_table(
    con: duckdb.DuckDBPyConnection,
    table: str,
    source: str,
    key: tuple[str, ...],
    batch_id: str,
    rank: Rank,
) -> _Merged:
    """Merge staged rows into a table and invalidate the documents of the receipts they change."""
    described = con.execute(f"DESCRIBE {source}").fetchall()
    columns = [row[0] for row in described if row[0] != "row_number_in_file"]
    values = [column for column in columns if column not in key]
    keys = ", ".join(key)
    ours = ", ".join(f"t.{column}" for column in values)
    theirs = ", ".join(f"s.{column}" for column in values)
    is_labels = table == "labels"
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE compared AS
        SELECT s.* EXCLUDE (row_number_in_file), t.image_id IS NULL AS is_new,
            ({ours}) IS DISTINCT FROM ({theirs}) AS differs,
            t.image_id IS NOT NULL AND (
                (r.batch_id IS NOT NULL AND {outranks("r")})
                OR {repeated_later(outranks("p")) if is_labels else "false"}
            ) AS is_outdated,
            {REPEATS_CORRECTED if is_labels else "false"} AS is_repeated,
            EXISTS (
                FROM deletions d WHERE {outranks("d", "holds_until")}
                    AND {covered("s", labels=is_labels, deletion="d")}
            ) AS is_withheld
        FROM (FROM {source} WHERE NOT {IS_MARKED}) s
        LEFT JOIN {table} t USING ({keys})
        LEFT JOIN batch_ranks r ON r.batch_id = t.batch_id
        """,
        compared(rank),
    )
    con.execute(
        "CREATE OR REPLACE TEMP VIEW changes AS "
        "FROM compared WHERE NOT is_outdated AND NOT is_repeated AND NOT is_withheld"
    )
    # Equal rows still take the later batch, so that one between the two cannot replace them when
    # it is ingested after both.
    con.execute(
        f"DELETE FROM {table} USING changes c WHERE NOT c.is_new AND "
        + " AND ".join(f"{table}.{column} = c.{column}" for column in key)
    )
    con.execute(
        f"INSERT INTO {table} BY NAME "
        "SELECT * EXCLUDE (is_new, differs, is_outdated, is_repeated, is_withheld), "
        "$batch_id AS batch_id, $batch_time AS batch_time FROM changes",
        {"batch_id": batch_id, "batch_time": rank.batch_time},
    )
    con.execute(
        """
        DELETE FROM word_documents WHERE (image_id, receipt_id) IN
            (SELECT (image_id, receipt_id) FROM changes WHERE is_new OR differs)
        """
    )
    counted = con.execute(
        "SELECT count(*) FILTER (WHERE is_new AND NOT is_withheld), "
        "count(*) FILTER (WHERE NOT (is_new OR is_outdated OR is_repeated OR is_withheld) "
        "AND differs), "
        "count(*) FILTER (WHERE is_outdated AND differs AND NOT is_repeated), "
        "count(*) FILTER (WHERE is_repeated AND differs), "
        "count(*) FILTER (WHERE is_withheld) FROM compared"
    ).fetchone()
    if is_labels:
        note_repeats(con, "compared", batch_id)
    con.execute("DROP VIEW changes")
    con.execute("DROP TABLE compared")
    return _Merged(*map(int, counted)) if counted else _Merged(0, 0, 0, 0, 0)
