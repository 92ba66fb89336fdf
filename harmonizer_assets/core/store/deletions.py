"""Deletion of words and labels from the tables, and of everything that is kept per word.

What is deleted is named by ids: an image, a receipt, a line, a word, or one label of them. The
table `deletions` keeps the ids, so that an older batch cannot bring the rows back;
`pending_erasures` keeps the deleted texts until their last traces are gone, see `erase`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from harmonizer_assets.core.base.sql import quoted
from harmonizer_assets.core.records.label import LABEL_KEY, WORD_COLUMNS
from harmonizer_assets.core.records.merchant import UNKNOWN_MERCHANT
from harmonizer_assets.core.store.catalog import columns_by_table
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.ranks import Rank

_KEPT: Final = ("words", "labels", "deletions", "schema_migrations")
"""Tables that are handled by themselves, or keep the ids on purpose."""
_SCHEMA: Final = pa.schema(
    [
        ("image_id", pa.string()),
        ("receipt_id", pa.int64()),
        ("line_id", pa.int64()),
        ("word_id", pa.int64()),
        ("label", pa.string()),
    ]
)


@dataclass(frozen=True)
class Scope:
    """What is to be deleted; everything below the last id that is given.

    Attributes:
        image_id: the image.
        receipt_id, line_id, word_id: narrower and narrower, from left to right.
        label: only labels of this type; words stay.
    """

    image_id: str
    receipt_id: int | None = None
    line_id: int | None = None
    word_id: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class Deleted:
    """How many rows a deletion covers."""

    words: int
    labels: int


def register_scopes(con: Connection, scopes: Sequence[Scope]) -> None:
    """Make the relation `scopes`, which the other functions read."""
    rows = [vars(scope) for scope in scopes]
    con.register("given_scopes", pa.Table.from_pylist(rows, _SCHEMA))
    con.execute("CREATE OR REPLACE TEMP TABLE scopes AS FROM given_scopes")
    con.unregister("given_scopes")


def covered(alias: str, *, labels: bool, deletion: str = "s") -> str:
    """Write the SQL condition under which a deletion covers a row of words or of labels."""
    ids = " AND ".join(
        f"({deletion}.{name} IS NULL OR {deletion}.{name} = {alias}.{name})"
        for name in LABEL_KEY[1:4]
    )
    label = f"({deletion}.label IS NULL OR {deletion}.label = {alias}.label)"
    return (
        f"{deletion}.image_id = {alias}.image_id AND {ids} AND "
        f"{label if labels else f'{deletion}.label IS NULL'}"
    )


def count_covered(con: Connection) -> Deleted:
    """Count the words and labels that `scopes` covers."""
    counts = [
        con.execute(
            f"SELECT count(*) FROM {table} t "
            f"WHERE EXISTS (FROM scopes s WHERE {covered('t', labels=table == 'labels')})"
        ).fetchall()[0][0]
        for table in ("words", "labels")
    ]
    return Deleted(*counts)


def texts_covered(con: Connection) -> list[str]:
    """List the texts and images of words that `scopes` covers and no other word has."""
    is_covered = f"EXISTS (FROM scopes s WHERE {covered('t', labels=False)})"
    return [
        value
        for column in ("text", "image_id")
        for (value,) in con.execute(
            f"SELECT {column} FROM words t GROUP BY ALL HAVING bool_and({is_covered}) ORDER BY ALL"
        ).fetchall()
    ]


def delete_covered(
    con: Connection,
    *,
    rank: Rank,
    source: str,
    stays: str = "false",
    parameters: Mapping[str, Any] | None = None,
) -> Deleted:
    """Delete what `scopes` covers, and record it; used inside `Warehouse.write`.

    Args:
        con: the connection that `write` gave.
        rank: rows of batches of lower ranks stay away.
        source: who deletes, for the history.
        stays: SQL condition on a row `t` that is not deleted, as one of a later batch.
        parameters: of this condition.
    """
    for table in ("words", "labels"):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE deleted_{table} AS SELECT t.* FROM {table} t "
            f"WHERE EXISTS (FROM scopes s WHERE {covered('t', labels=table == 'labels')}) "
            f"AND NOT ({stays})",
            dict(parameters or {}),
        )
    counts = Deleted(*(_number(con, f"deleted_{table}") for table in ("words", "labels")))
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE deleted_keys AS "
        f"SELECT {WORD_COLUMNS}, label FROM deleted_labels "
        f"UNION ALL SELECT {WORD_COLUMNS}, NULL FROM deleted_words"
    )
    for table, label in (("words", ""), ("labels", ", label")):
        con.execute(
            f"DELETE FROM {table} WHERE ({WORD_COLUMNS}{label}) IN "
            f"(SELECT ({WORD_COLUMNS}{label}) FROM deleted_{table})"
        )
    _note_texts(con)
    for table, columns in _tables_with_ids(con).items():
        _delete_dependent(con, table, columns)
    con.execute(
        "DELETE FROM quarantine q WHERE EXISTS (FROM scopes s WHERE s.label IS NULL "
        "AND s.image_id = (q.row->>'image_id') AND (s.receipt_id IS NULL "
        "OR s.receipt_id = try_cast(q.row->>'receipt_id' AS BIGINT)))"
    )
    con.execute(
        "INSERT INTO deletions BY NAME SELECT *, $batch_time AS holds_until, $turn AS turn, "
        "$name AS name, $is_clocked AS is_clocked, $source AS source, now() AS deleted_at "
        "FROM scopes",
        {**rank.parameters, "is_clocked": rank.is_clocked, "source": source},
    )
    return counts


def _note_texts(con: Connection) -> None:
    """Note the texts of deleted words, their images and merchants' names that nothing else has.

    Keys of merchants are noted whether or not others have them, which is not known before the names
    have found their merchants anew.

    A copy of a batch that names an image of which nothing is left goes too, whatever its texts.
    """
    con.execute(
        """
        INSERT INTO pending_erasures (text)
        SELECT DISTINCT text FROM deleted_words WHERE text NOT IN (SELECT text FROM words)
        UNION
        SELECT DISTINCT image_id FROM deleted_words
            WHERE image_id NOT IN (SELECT image_id FROM words)
        UNION
        SELECT DISTINCT merchant_name FROM deleted_labels WHERE merchant_name IS NOT NULL
            AND merchant_name NOT IN
                (SELECT merchant_name FROM labels WHERE merchant_name IS NOT NULL)
        UNION ALL
        SELECT NULL WHERE EXISTS (FROM deleted_keys)
        """
    )
    con.execute(
        """
        INSERT INTO pending_erasures (text, is_key)
        SELECT DISTINCT merchant_key, true FROM deleted_labels WHERE merchant_key <> $unknown
        UNION
        SELECT own_key, true FROM merchant_names
            WHERE name IN (SELECT merchant_name FROM deleted_labels)
        """,
        {"unknown": UNKNOWN_MERCHANT},
    )


def _tables_with_ids(con: Connection) -> dict[str, set[str]]:
    """List the tables that are keyed by words or labels, with the columns of the key."""
    found = {
        table: set(columns).intersection(LABEL_KEY)
        for table, columns in columns_by_table(con).items()
        if table not in _KEPT
    }
    return {table: columns for table, columns in found.items() if "image_id" in columns}


def _delete_dependent(con: Connection, table: str, columns: set[str]) -> None:
    """Delete what was computed from deleted rows.

    Documents of whole receipts go, since the deleted word is in the surroundings of others.
    """
    keys = [name for name in LABEL_KEY if name in columns]
    if table == "word_documents" or "word_id" not in columns:
        keys = [name for name in keys if name in {"image_id", "receipt_id"}]
    key = ", ".join(keys)
    con.execute(
        f"DELETE FROM {quoted(table)} WHERE ({key}) IN (SELECT ({key}) FROM deleted_keys "
        f"WHERE {' AND '.join(f'{name} IS NOT NULL' for name in keys)})"
    )


def _number(con: Connection, table: str) -> int:
    return int(con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])
