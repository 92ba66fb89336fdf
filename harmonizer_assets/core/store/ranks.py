"""Ranks: what counts where batches, corrections and deletions disagree about a row.

A rank is a time, a turn and a name, compared in this order. The time is what a batch was dated
with. What is done here, as a correction, has none of its own: it takes the latest time so far and
the next turn, so that it comes after all that was there, whatever the clock says. Batches with
equal times follow each other by turn, and in the same turn by name.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.store.database import Connection

FOR_GOOD: Final = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)
"""The time of a deletion that no later batch may bring back."""
RANK: Final = "(batch_time, turn, name)"
"""SQL of a batch's rank, in the columns of the view `batch_ranks`."""
GIVEN_RANK: Final = "($batch_time::TIMESTAMPTZ, $turn::BIGINT, $name::VARCHAR)"
"""SQL of the rank in `Rank.parameters`."""

_BEFORE_ALL: Final = dt.datetime(1000, 1, 1, tzinfo=dt.UTC)
_LATEST: Final = """
SELECT coalesce(max(batch_time) FILTER (batch_time < $for_good::TIMESTAMPTZ), $none::TIMESTAMPTZ),
    coalesce(max(turn), 0)
FROM (
    SELECT batch_time, turn FROM batch_order
    UNION ALL
    SELECT holds_until, turn FROM deletions
)
"""


@dataclass(frozen=True)
class Rank:
    """The place of a batch, a correction or a deletion among all others.

    Attributes:
        batch_time: the time that counts.
        turn: how many times something was done here without a time of its own, up to then.
        name: decides between equal ones.
        is_clocked: whether the time was read from a clock of this machine, which may be wrong, and
            not given by whoever made the data.
    """

    batch_time: dt.datetime
    turn: int
    name: str
    is_clocked: bool

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters of `GIVEN_RANK`."""
        return {"batch_time": self.batch_time, "turn": self.turn, "name": self.name}


def next_rank(con: Connection, *, dated: dt.datetime | None = None) -> Rank:
    """Return a rank after all others.

    Args:
        con: a connection of the transaction that writes it.
        dated: a time that it is to have at least, and more than any so far; None for what makes
            no data of its own, so that a batch may come between it and the next.
    """
    latest, turn = _latest(con)
    time = latest if dated is None else max(dated, latest + dt.timedelta(microseconds=1))
    return Rank(time, turn + 1, "", is_clocked=True)


def rank_at(con: Connection, time: dt.datetime, name: str, *, is_clocked: bool) -> Rank:
    """Return the rank of a batch that comes with a time; see `Rank`."""
    return Rank(time, _latest(con)[1], name, is_clocked)


def outranks(alias: str, time: str = "batch_time") -> str:
    """Write the condition under which a row has a higher rank than `GIVEN_RANK`.

    What arrives now comes after a time to come that a clock of ours has given: that clock was
    wrong.

    Args:
        alias: of a table with the columns `turn`, `name`, `is_clocked` and a time.
        time: the name of the last.
    """
    return (
        f"(({alias}.{time}, {alias}.turn, {alias}.name) > {GIVEN_RANK} "
        f"AND NOT ({alias}.is_clocked AND {alias}.{time} > $present::TIMESTAMPTZ))"
    )


def compared(rank: Rank) -> dict[str, Any]:
    """Return the parameters of `outranks`."""
    return {**rank.parameters, "present": utc_now()}


def record_rank(con: Connection, batch_id: str, rank: Rank, arrival: str | None = None) -> None:
    """Record the rank of what rows name as their batch; used inside `Warehouse.write`.

    Args:
        con: the connection that `write` gave.
        batch_id: the batch, or the operation on labels.
        rank: its rank; the highest of all that it was given counts.
        arrival: what tells one arrival of a batch from the next, see `InboxBatch.arrival`.
    """
    con.execute(
        "INSERT INTO batch_order BY NAME SELECT $batch_id AS batch_id, "
        "$batch_time::TIMESTAMPTZ AS batch_time, $turn AS turn, $name AS name, "
        "$is_clocked AS is_clocked, $arrival AS arrival",
        {
            "batch_id": batch_id,
            "is_clocked": rank.is_clocked,
            "arrival": arrival,
            **rank.parameters,
        },
    )


def _latest(con: Connection) -> tuple[dt.datetime, int]:
    found = con.execute(_LATEST, {"for_good": FOR_GOOD, "none": _BEFORE_ALL}).fetchall()
    time, turn = found[0]
    return time, turn
