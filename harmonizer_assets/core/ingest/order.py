"""Order of batches: where two disagree about a row, the later one wins.

The later batch is the one with the later time; of two with equal times, the one whose folder has
the later name. The order in which they are ingested makes no difference.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import duckdb

from harmonizer_assets.core.ingest.inbox import InboxBatch

RANK = "(batch_time, name)"
"""SQL of a batch's rank, in the columns of the view `batch_ranks`."""
GIVEN_RANK = "($batch_time::TIMESTAMPTZ, $name::VARCHAR)"
"""SQL of the rank in the parameters of `Arrival.parameters`."""

_ARRIVED = f"""
SELECT
    EXISTS (FROM batches WHERE batch_id = $batch_id) AS came_before,
    EXISTS (FROM batch_ranks WHERE batch_id = $batch_id AND {RANK} >= {GIVEN_RANK}) AS is_known,
    EXISTS (
        FROM batch_ranks other
        WHERE batch_id <> $batch_id
            AND (other.batch_time, other.name)
                > (SELECT {RANK} FROM batch_ranks WHERE batch_id = $batch_id)
    ) OR EXISTS (
        FROM deletions
        WHERE (holds_until, name) > (SELECT {RANK} FROM batch_ranks WHERE batch_id = $batch_id)
    ) AS was_followed
"""


@dataclass(frozen=True)
class Arrival:
    """One arrival of a batch, and its place among all others.

    Attributes:
        batch_id: hash of its content; equal files have the same.
        name: of its folder.
        time: what counts; never later than the moment at which the batch was looked at.
        time_given: the time that it came with, where that lay in the future; otherwise None.
    """

    batch_id: str
    name: str
    time: dt.datetime
    time_given: dt.datetime | None = None

    @classmethod
    def of(cls, batch: InboxBatch, batch_id: str) -> Arrival:
        """Take time and name of an inbox batch; a time in the future becomes now.

        A file dated 2099 would otherwise win over every correction that is made until then.
        """
        now = dt.datetime.now(dt.UTC)
        is_ahead = batch.time > now
        return cls(
            batch_id,
            batch.folder.name,
            now if is_ahead else batch.time,
            batch.time if is_ahead else None,
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters of SQL that compares ranks."""
        return {"batch_id": self.batch_id, "batch_time": self.time, "name": self.name}


def changes_nothing(con: duckdb.DuckDBPyConnection, arrival: Arrival) -> bool:
    """Return whether a batch says nothing new.

    That is a batch that was ingested with this time or a later one, and one that comes again
    while no other has come and nothing was deleted since: its rows are those in the tables.
    """
    found = con.execute(_ARRIVED, arrival.parameters).fetchone()
    came_before, is_known, was_followed = found or (False, False, False)
    return bool(is_known or (came_before and not was_followed))


def record_resend(con: duckdb.DuckDBPyConnection, arrival: Arrival) -> None:
    """Record that a batch that changes nothing holds as of a later time than before.

    So that a batch of a time between the two does not win when it is ingested after both.
    """
    con.execute(
        "INSERT INTO batch_resends SELECT $batch_id, $batch_time, $name WHERE NOT EXISTS "
        f"(FROM batch_ranks WHERE batch_id = $batch_id AND {RANK} >= {GIVEN_RANK})",
        arrival.parameters,
    )
