"""State of partitions: the fingerprints that their rows were computed from, and failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from harmonizer_assets.core.base.sql import text_list, texts_in
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.stages.stage import Chunk, Stage, partition_table

# A partition depends on all labels of its merchant, those of other types included.
_MERCHANT_FINGERPRINTS = """
SELECT l.merchant_key,
    count(*)::VARCHAR || '-' || bit_xor(md5_number(concat_ws(chr(31),
        l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, l.validation_status,
        coalesce(l.merchant_name, ''), coalesce(d.document_id, ''), coalesce(w.text, '')
    )))::VARCHAR AS fingerprint
FROM labels_as_evidence l
LEFT JOIN words w USING (image_id, receipt_id, line_id, word_id)
LEFT JOIN word_documents d USING (image_id, receipt_id, line_id, word_id)
{where}
GROUP BY l.merchant_key
"""


@dataclass(frozen=True)
class LabelState:
    """The labels of a home at one moment.

    Attributes:
        counts: labels per partition; only partitions that hold any.
        merchants: per merchant, the fingerprint of its labels, words and documents.
    """

    counts: Mapping[PartitionKey, int]
    merchants: Mapping[str, str]

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection) -> LabelState:
        """Read the state of all labels; it takes time in proportion to them."""
        return cls(label_counts(con), merchant_fingerprints(con))


@dataclass(frozen=True)
class PartitionState:
    """The state of all partitions at one moment.

    Attributes:
        labels: the state of the labels.
        stored: per asset, the fingerprints of the partitions whose rows it holds.
        failed: partitions that could not be computed by some asset.
    """

    labels: LabelState
    stored: Mapping[str, Mapping[PartitionKey, str]]
    failed: frozenset[PartitionKey]

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, assets: Sequence[str]) -> PartitionState:
        """Read the state of the partitions of these assets."""
        stored = {asset: stored_fingerprints(con, asset) for asset in assets}
        return cls(LabelState.read(con), stored, frozenset(failures(con, assets)))


def merchant_fingerprints(
    con: duckdb.DuckDBPyConnection, merchants: Sequence[str] | None = None
) -> dict[str, str]:
    """Fingerprint the labels of each merchant (or of some), words and documents included."""
    where = "" if merchants is None else f"WHERE l.merchant_key IN {texts_in('$1')}"
    parameters = [] if merchants is None else [text_list(merchants)]
    return dict(con.execute(_MERCHANT_FINGERPRINTS.format(where=where), parameters).fetchall())


def stored_fingerprints(con: duckdb.DuckDBPyConnection, asset: str) -> dict[PartitionKey, str]:
    """Read the fingerprints of the partitions that an asset holds."""
    rows = con.execute(
        "SELECT label_type, merchant_key, fingerprint FROM partition_state WHERE asset = $1",
        [asset],
    ).fetchall()
    return {
        PartitionKey(label_type, merchant): fingerprint
        for label_type, merchant, fingerprint in rows
    }


def invalidate(
    con: duckdb.DuckDBPyConnection, assets: Sequence[str], partitions: str, *, by_run: str = ""
) -> None:
    """Mark the partitions in a table as stale, so that the assets are computed again.

    Used where something other than the labels has changed that these assets are computed from.

    Args:
        con: a connection inside a transaction.
        assets: whose rows are out of date.
        partitions: table with the columns `label_type` and `merchant_key`.
        by_run: the run that changed it; what that run has computed itself is current.
    """
    con.execute(
        "UPDATE partition_state SET fingerprint = 'outdated' "
        f"WHERE asset IN {texts_in('$1')} AND run_id <> $2 "
        "AND (label_type, merchant_key) IN "
        f"(SELECT (label_type, merchant_key) FROM {partitions})",
        [text_list(assets), by_run],
    )


def label_counts(con: duckdb.DuckDBPyConnection) -> dict[PartitionKey, int]:
    """Count the labels of each partition that holds any."""
    rows = con.execute("SELECT label_type, merchant_key, labels FROM label_partitions").fetchall()
    return {PartitionKey(label_type, merchant): count for label_type, merchant, count in rows}


def failures(
    con: duckdb.DuckDBPyConnection, assets: Sequence[str]
) -> dict[PartitionKey, tuple[str, str]]:
    """Read the partitions that could not be computed, each with its asset and a one-line error."""
    rows = con.execute(
        "SELECT label_type, merchant_key, asset, error FROM partition_failures "
        f"WHERE asset IN {texts_in('$1')} ORDER BY failed_at DESC",
        [text_list(assets)],
    ).fetchall()
    return {
        PartitionKey(label_type, merchant): (asset, error)
        for label_type, merchant, asset, error in rows
    }


def store_fingerprints(
    con: duckdb.DuckDBPyConnection,
    stage: Stage,
    chunk: Chunk,
    fingerprints: dict[PartitionKey, str],
    incomplete: frozenset[PartitionKey],
    run_id: str,
) -> None:
    """Store the fingerprints of a chunk's rows and invalidate the assets downstream."""
    held = [
        partition
        for partition in chunk.partitions
        if chunk.labels[partition] and partition not in incomplete
    ]
    state = partition_table(held)
    state = state.append_column(
        "fingerprint", pa.array([fingerprints[partition] for partition in held], pa.string())
    ).append_column("labels", pa.array([chunk.labels[partition] for partition in held], pa.int64()))
    con.register("chunk", chunk.table())
    con.register("state", state)
    for table in ("partition_state", "partition_failures"):
        con.execute(
            f"DELETE FROM {table} WHERE asset = $1 AND (label_type, merchant_key) IN "
            "(SELECT (label_type, merchant_key) FROM chunk)",
            [stage.asset],
        )
    invalidate(con, stage.downstream, "chunk")
    con.execute(
        "INSERT INTO partition_state BY NAME "
        "SELECT $1 AS asset, *, $2 AS run_id, now() AS computed_at FROM state",
        [stage.asset, run_id],
    )


def store_failure(
    con: duckdb.DuckDBPyConnection,
    stage: Stage,
    chunk: Chunk,
    error: str,
    trace: str,
    run_id: str,
) -> None:
    """Store the failure of a partition and invalidate it, here and downstream."""
    con.register("chunk", chunk.table())
    invalidate(con, [stage.asset, *stage.downstream], "chunk")
    con.execute(
        "DELETE FROM partition_failures WHERE asset = $1 AND (label_type, merchant_key) IN "
        "(SELECT (label_type, merchant_key) FROM chunk)",
        [stage.asset],
    )
    con.execute(
        "INSERT INTO partition_failures BY NAME SELECT $1 AS asset, *, $2 AS error, "
        "$3 AS traceback, $4 AS run_id, now() AS failed_at FROM chunk",
        [stage.asset, error, trace, run_id],
    )
