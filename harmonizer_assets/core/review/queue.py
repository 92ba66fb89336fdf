"""The review queue: which labels a person should look at, the most valuable first.

The value of an answer is how suspicious the label is, times how many labels one answer can settle,
times what a model would learn from it, which is most where the score is undecided. One answer can
settle labels alike, and the labels of a list for which the same is proposed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.settings import Settlement
from harmonizer_assets.core.records.correction import Action
from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    LABEL_GIVEN,
    LABEL_KEY,
    LabelKey,
    qualified,
)
from harmonizer_assets.core.review.answers import settled
from harmonizer_assets.core.review.policy import ReviewPolicy
from harmonizer_assets.core.review.proposals import FITTED, fitted_to
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.warehouse import Warehouse, replace_ranking

MOST_LISTED: Final = 50
"""Labels in a list for which the same is proposed: what one person can look at for one answer."""

# A list of labels that look right settles no errors, and few people would read it to its end.
_N_SETTLED: Final = f"""
CASE WHEN action NOT IN ('{Action.MOVE}', '{Action.MARK_INVALID}') THEN n_alike
    ELSE greatest(n_alike, least({MOST_LISTED},
        count(CASE WHEN NOT is_blind THEN 1 END) OVER (PARTITION BY label, action, to_label))) END
"""
# Labels that look right are asked about only where that would teach much.
_QUEUE: Final = f"""
SELECT {LABEL_COLUMNS}, label_type, merchant_key, merchant_name, word_text, validation_status,
    action, to_label, outlier_score, decided_by, reasoning, line, kind_id, n_alike, policy, tier,
    is_blind, batch_id, batch_time,
    round(coalesce(outlier_score, 0.5) * {_N_SETTLED}
        * (0.25 + coalesce(outlier_score * (1 - outlier_score), 0.25)), 6) AS value
FROM ({FITTED}) f
WHERE action <> '{Action.CONFIRM}'
    OR ({qualified("f", LABEL_KEY)}) IN (SELECT ({LABEL_COLUMNS}) FROM validation_queue)
ORDER BY value DESC, {LABEL_COLUMNS}
"""
_ORDER: Final = f"ORDER BY value DESC, kind_id, {LABEL_COLUMNS}"


@dataclass(frozen=True)
class ReviewFilter:
    """What part of the queue is reviewed.

    Attributes:
        label_type, merchant_key, kind_id, action, to_label: only those; None means all. A kind, an
            action or a proposed type leaves out the blind sample, which would be told by it what is
            proposed.
        disagreements: only labels about which people have said different things.
    """

    label_type: str | None = None
    merchant_key: str | None = None
    kind_id: str | None = None
    action: str | None = None
    to_label: str | None = None
    disagreements: bool = False

    def same_proposal(self, item: Mapping[str, Any]) -> ReviewFilter:
        """Return the part of this one in which the same is proposed as for a label of the queue."""
        return replace(
            self,
            label_type=item["label_type"],
            action=item["action"],
            to_label=item["to_label"],
            kind_id=None,
        )

    @property
    def values(self) -> dict[str, Any]:
        """Return the parameters of `_FILTERED`."""
        return {
            "label_type": self.label_type,
            "merchant_key": self.merchant_key,
            "kind_id": self.kind_id,
            "action": self.action,
            "to_label": self.to_label,
            "disagreements": self.disagreements,
        }


QUEUE_FILTER: Final = """
($label_type IS NULL OR q.label_type = $label_type)
    AND ($merchant_key IS NULL OR q.merchant_key = $merchant_key)
    AND ($kind_id IS NULL OR q.kind_id = $kind_id)
    AND ($action IS NULL OR q.action = $action)
    AND ($to_label IS NULL OR q.to_label = $to_label)
    AND (coalesce($kind_id, $action, $to_label) IS NULL OR NOT q.is_blind)
"""
"""SQL: whether a row `q` of the queue is of the part that `ReviewFilter` has chosen, apart from
disagreements."""
_FILTERED: Final = f"{QUEUE_FILTER} AND (NOT $disagreements OR is_disputed)"
_LISTED: Final = "NOT is_blind AND NOT is_mine AND NOT is_settled"
"""SQL: whether a label with its states can be in a list that is answered at once."""
_COUNTED: Final = """
count(*) FILTER (NOT is_mine AND NOT is_settled) AS open,
count(*) FILTER (is_settled) AS settled,
(SELECT count(*) FROM standing_answers WHERE reviewer = $reviewer) AS answered,
count(*) FILTER (is_disputed) AS disputed
"""


@dataclass(frozen=True)
class Progress:
    """How far a review is.

    Attributes:
        open: labels of the filter that this reviewer can still answer about.
        settled: labels of the filter that are settled.
        answered: answers of this reviewer that stand.
        disputed: labels of the filter about which people have said different things.
    """

    open: int
    settled: int
    answered: int
    disputed: int


def update_review_queue(warehouse: Warehouse, policy: ReviewPolicy) -> int:
    """Compute the queue again and replace the table `review_queue`.

    Returns:
        The number of rows. The table is left alone when they have not changed.
    """

    def rank(con: Connection) -> pa.Table:
        with fitted_to(con, policy) as values:
            return con.execute(_QUEUE, values).to_arrow_table()

    return replace_ranking(warehouse, "review_queue", rank, f"value DESC, {LABEL_COLUMNS}")


def _states(settlement: Settlement) -> str:
    """Write the query of the queue with what people have said about each label so far."""
    return f"""
    SELECT q.*, s.label IS NOT NULL AS is_settled,
        coalesce(a.is_disputed, false) AS is_disputed, coalesce(a.is_mine, false) AS is_mine
    FROM review_queue q
    LEFT JOIN ({settled(settlement)}) s USING ({LABEL_COLUMNS})
    LEFT JOIN (
        SELECT {LABEL_COLUMNS}, bool_or(reviewer = $reviewer) AS is_mine,
            count(DISTINCT CASE WHEN verdict <> 'skip' THEN concat_ws('/', verdict, to_label) END)
                > 1 AS is_disputed
        FROM standing_answers GROUP BY ALL
    ) a USING ({LABEL_COLUMNS})
    """


def open_items(
    warehouse: Warehouse,
    reviewer: str,
    settlement: Settlement,
    chosen: ReviewFilter | None = None,
    limit: int | None = 50,
) -> list[dict[str, Any]]:
    """List the labels that a reviewer can answer about, one of each kind first.

    What this reviewer has answered or skipped, and what is settled, is left out.

    Args:
        warehouse: holds the queue.
        reviewer: who asks.
        settlement: how disagreements are decided.
        chosen: the part of the queue.
        limit: how many; None for all.

    Returns:
        Rows of `review_queue` with `n_open` and `n_listed`, the open labels of the kind, and those
        for which the same is proposed.
    """
    chosen = chosen or ReviewFilter()
    return warehouse.query(
        f"""
        SELECT q.* EXCLUDE (is_settled, is_mine),
            count(CASE WHEN NOT is_blind THEN 1 END) OVER (PARTITION BY kind_id) AS n_open,
            count(CASE WHEN NOT is_blind THEN 1 END)
                OVER (PARTITION BY label, action, to_label) AS n_listed
        FROM ({_states(settlement)}) q
        WHERE NOT is_mine AND NOT is_settled AND {_FILTERED}
        QUALIFY is_blind OR is_disputed OR $kind_id IS NOT NULL
            OR row_number() OVER (PARTITION BY kind_id, is_blind {_ORDER}) = 1
        ORDER BY is_disputed DESC, value DESC, kind_id, {LABEL_COLUMNS} LIMIT $limit
        """,
        {"reviewer": reviewer, "limit": limit, **chosen.values},
    ).to_pylist()


def next_item(
    warehouse: Warehouse,
    reviewer: str,
    settlement: Settlement,
    chosen: ReviewFilter | None = None,
) -> tuple[dict[str, Any] | None, Progress]:
    """Return the first of `open_items`, None where there is none, and how far the review is.

    Both by one query that ranks nothing: people wait for it after each answer.
    """
    chosen = chosen or ReviewFilter()
    row = warehouse.query(
        f"""
        WITH states AS MATERIALIZED (
            SELECT {LABEL_COLUMNS}, kind_id, action, to_label, value, is_blind, is_disputed,
                is_settled, is_mine
            FROM ({_states(settlement)}) q WHERE {_FILTERED}
        ),
        first AS (
            FROM states WHERE NOT is_mine AND NOT is_settled
            ORDER BY is_disputed DESC, value DESC, kind_id, {LABEL_COLUMNS} LIMIT 1
        )
        SELECT struct_pack(open, settled, answered, disputed) AS progress,
            q.*, f.is_disputed,
            (SELECT count(*) FILTER ({_LISTED}) FROM states s
                WHERE s.kind_id = f.kind_id) AS n_open,
            (SELECT count(*) FILTER ({_LISTED}) FROM states s
                WHERE s.label = f.label AND s.action = f.action
                    AND s.to_label IS NOT DISTINCT FROM f.to_label) AS n_listed
        FROM (SELECT {_COUNTED} FROM states)
        LEFT JOIN first f ON true
        LEFT JOIN review_queue q ON ({qualified("q", LABEL_KEY)}) = ({qualified("f", LABEL_KEY)})
        """,
        {"reviewer": reviewer, **chosen.values},
    ).to_pylist()[0]
    progress = Progress(**row.pop("progress"))
    return (None if row["label"] is None else row), progress


def queued_item(
    warehouse: Warehouse, reviewer: str, settlement: Settlement, key: LabelKey
) -> dict[str, Any] | None:
    """Return what `open_items` says of one label, also where it is answered or settled.

    None where the label is not in the queue.
    """
    rows = warehouse.query(
        f"""
        SELECT * EXCLUDE (is_settled, is_mine) FROM (
            SELECT *, count(CASE WHEN {_LISTED} THEN 1 END) OVER (PARTITION BY kind_id) AS n_open,
                count(CASE WHEN {_LISTED} THEN 1 END)
                    OVER (PARTITION BY label, action, to_label) AS n_listed
            FROM ({_states(settlement)})
        ) WHERE {LABEL_GIVEN}
        """,
        {"reviewer": reviewer, **key._asdict()},
    ).to_pylist()
    return rows[0] if rows else None


def open_counts(
    warehouse: Warehouse, reviewer: str, settlement: Settlement
) -> list[dict[str, Any]]:
    """Count the open labels by label type, by merchant and by action, the most frequent first.

    Returns:
        Rows with `n` and one of `label_type`, `merchant_key` (with `merchant_name`) and `action`;
        the others are null. Labels of a blind sample are not counted by action.
    """
    return warehouse.query(
        f"""
        SELECT label_type, merchant_key,
            CASE WHEN merchant_key IS NOT NULL THEN any_value(merchant_name) END AS merchant_name,
            action, count(*) AS n
        FROM (
            SELECT * REPLACE (CASE WHEN NOT is_blind THEN action END AS action)
            FROM ({_states(settlement)}) WHERE NOT is_mine AND NOT is_settled
        )
        GROUP BY GROUPING SETS ((label_type), (merchant_key), (action))
        HAVING coalesce(label_type, merchant_key, action) IS NOT NULL
        ORDER BY n DESC, label_type, merchant_key, action
        """,
        {"reviewer": reviewer},
    ).to_pylist()


def open_listed(
    warehouse: Warehouse,
    reviewer: str,
    settlement: Settlement,
    chosen: ReviewFilter,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """List all open labels of a part of the queue, labels alike together, without a blind sample.

    Those are asked about one by one, so that the sample tells what people say unprompted.

    Args:
        warehouse: holds the queue.
        reviewer: who asks.
        settlement: how disagreements are decided.
        chosen: the part of the queue.
        limit: how many, the most suspicious; None for all.
    """
    return warehouse.query(
        f"""
        FROM (
            FROM ({_states(settlement)}) q
            WHERE {_LISTED} AND {_FILTERED}
            ORDER BY outlier_score DESC NULLS LAST, {LABEL_COLUMNS} LIMIT $limit
        ) {_ORDER}
        """,
        {"reviewer": reviewer, "limit": limit, **chosen.values},
    ).to_pylist()


def check_same_proposal(
    warehouse: Warehouse, reviewer: str, settlement: Settlement, labels: Sequence[LabelKey]
) -> None:
    """Check that a reviewer can give one answer about some labels.

    Raises:
        InputError: one of them is not open for the reviewer, or is of a blind sample, or not the
            same is proposed for all of them.
    """
    keys = pa.Table.from_pylist([key._asdict() for key in labels])

    def count(con: Connection) -> tuple[int, int]:
        con.register("listed", keys)
        [(open_labels, proposals)] = con.execute(
            f"""
            SELECT count(*), count(DISTINCT struct_pack(label, action, to_label))
            FROM ({_states(settlement)}) SEMI JOIN listed USING ({LABEL_COLUMNS})
            WHERE {_LISTED}
            """,
            {"reviewer": reviewer},
        ).fetchall()
        con.unregister("listed")
        return open_labels, proposals

    open_labels, proposals = warehouse.read(count)
    if open_labels != len({*labels}) or proposals != 1:
        raise InputError(
            "what is proposed for these labels is other by now: look at the list again"
        )


def progress(
    warehouse: Warehouse,
    reviewer: str,
    settlement: Settlement,
    chosen: ReviewFilter | None = None,
) -> Progress:
    """Count how far a review is."""
    chosen = chosen or ReviewFilter()
    row = warehouse.query(
        f"SELECT {_COUNTED} FROM ({_states(settlement)}) q WHERE {_FILTERED}",
        {"reviewer": reviewer, **chosen.values},
    ).to_pylist()[0]
    return Progress(**row)
