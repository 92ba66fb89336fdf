"""Order of batches: where two disagree about a row, the later one wins.

The later batch is the one with the later time, in whatever order they are ingested: the time that
it declares, or that of its newest file. A batch without either, as `harmonizer run` submits them,
is later than all that are there when it arrives. Of two with equal times, the one whose folder has
the later name wins. See `core.store.ranks` for what a correction or a deletion counts as.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import duckdb

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.ingest.inbox import InboxBatch
from harmonizer_assets.core.store.ranks import (
    GIVEN_RANK,
    RANK,
    Rank,
    next_rank,
    rank_at,
    record_rank,
)

_OF_THE_BATCH = f"(SELECT {RANK} FROM batch_ranks WHERE batch_id = $batch_id)"
# Rows of `batch_order` are only added, so that they lie in the order of arrival. Ranks alone do not
# tell what followed: what came after the clock was set back has won with an earlier time.
_ARRIVED = f"""
SELECT
    EXISTS (FROM batches WHERE batch_id = $batch_id) AS came_before,
    EXISTS (FROM batch_order WHERE batch_id = $batch_id AND arrival = $arrival) AS is_known,
    EXISTS (
        FROM batch_ranks other
        WHERE batch_id <> $batch_id
            AND (other.batch_time, other.turn, other.name) > {_OF_THE_BATCH}
    ) OR EXISTS (
        FROM deletions WHERE (holds_until, turn, name) > {_OF_THE_BATCH}
    ) OR (
        SELECT max(rowid) > max(rowid) FILTER (batch_id = $batch_id) FROM batch_order
    ) AS was_followed
"""
_IS_COVERED = f"""
SELECT EXISTS (FROM batch_ranks WHERE batch_id = $batch_id AND {RANK} >= {GIVEN_RANK})
"""


@dataclass(frozen=True)
class Arrival:
    """One arrival of a batch, and its place among all others.

    Attributes:
        batch_id: hash of its content; equal files have the same.
        batch: what lies in the inbox.
        time_given: the time that it came with, where that lies in the future; otherwise None.
    """

    batch_id: str
    batch: InboxBatch
    time_given: dt.datetime | None = None

    @classmethod
    def of(cls, batch: InboxBatch, batch_id: str) -> Arrival:
        """Take what came; a time in the future does not count.

        A file dated 2099 would otherwise win over every correction that is made until then.
        """
        return cls(batch_id, batch, batch.time if batch.time > utc_now() else None)


@dataclass(frozen=True)
class Place:
    """The place of an arrival among all that came before.

    Attributes:
        rank: the rank that the batch has if it is merged by this transaction.
        changes_nothing: whether it says nothing new. That is a batch of which a killed run has left
            the folder, one that was ingested with its time or a later one, and one that comes again
            while no other has come and nothing was deleted since: its rows are those in the tables.
        is_known: whether this very arrival is on record.
    """

    rank: Rank
    changes_nothing: bool
    is_known: bool


def place_of(con: duckdb.DuckDBPyConnection, arrival: Arrival) -> Place:
    """Say what an arrival counts as, were it merged by this transaction."""
    parameters = {"batch_id": arrival.batch_id, "arrival": arrival.batch.arrival}
    came_before, is_known, was_followed = con.execute(_ARRIVED, parameters).fetchall()[0]
    rank = _rank(con, arrival, came_before)
    is_repeated = is_known or (came_before and not was_followed)
    return Place(rank, is_repeated or _is_covered(con, arrival, rank), is_known)


def record_resend(con: duckdb.DuckDBPyConnection, arrival: Arrival, place: Place) -> None:
    """Record that a batch that changes nothing holds as of a later time than before.

    So that a batch of a time between the two does not win when it is ingested after both.
    """
    if not place.is_known:
        record_rank(con, arrival.batch_id, place.rank, arrival.batch.arrival)


def _rank(con: duckdb.DuckDBPyConnection, arrival: Arrival, came_before: bool) -> Rank:
    """Return the rank of an arrival.

    Files that came before and come again are meant to hold again, although their time is as it was.
    """
    batch = arrival.batch
    comes_again = came_before and not batch.declares_time
    if (batch.submitted and not batch.declares_time) or arrival.time_given or comes_again:
        return next_rank(con, dated=min(batch.time, utc_now()))
    # The names of our own folders are made of the time of day.
    name = f"{_arrivals(con):012}" if batch.submitted else batch.folder.name
    return rank_at(con, batch.time, name, is_clocked=not batch.declares_time)


def _is_covered(con: duckdb.DuckDBPyConnection, arrival: Arrival, rank: Rank) -> bool:
    covering = {"batch_id": arrival.batch_id, **rank.parameters}
    return bool(con.execute(_IS_COVERED, covering).fetchall()[0][0])


def _arrivals(con: duckdb.DuckDBPyConnection) -> int:
    """Count what has arrived so far."""
    return int(con.execute("SELECT count(*) FROM batch_order").fetchall()[0][0])
