"""Answers: what people say about labels, who has said it, and what follows from it.

Answers are only added. Who changes their mind answers again, or takes the answer back; the last
answer of each person counts.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.settings import Settlement
from harmonizer_assets.core.records.correction import Action, Source
from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    LABEL_KEY,
    WORD_COLUMNS,
    LabelKey,
    qualified,
)
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.warehouse import Warehouse


class Answer(StrEnum):
    """What a person says about a label."""

    RIGHT = "right"
    """The label is right."""
    WRONG = "wrong"
    """The label is wrong: another type is right, or none."""
    SKIP = "skip"
    """Not now."""


# What the reviewer saw is the state of the label when the queue was made.
_ANSWERED: Final = f"""
INSERT INTO review_answers BY NAME
SELECT $answer_id AS answer_id, {LABEL_COLUMNS}, $reviewer AS reviewer, $verdict AS verdict,
    $to_label AS to_label, $note AS note,
    coalesce(q.is_blind, false) AND NOT $proposal_shown AS is_blind, $kind_id AS kind_id,
    q.policy, q.action AS proposed_action, q.to_label AS proposed_to, q.decided_by,
    q.outlier_score, coalesce(q.validation_status, l.validation_status) AS seen_status,
    coalesce(q.word_text, w.text) AS seen_text, $now::TIMESTAMPTZ AS answered_at
FROM labels l SEMI JOIN answered USING ({LABEL_COLUMNS})
LEFT JOIN review_queue q USING ({LABEL_COLUMNS})
LEFT JOIN words w USING ({WORD_COLUMNS})
"""
# The answer on which most agree; where two have as many, nothing is settled.
_MAJORITY: Final = f"""
SELECT {LABEL_COLUMNS}, verdict, to_label FROM (
    SELECT *, max(votes) OVER label AS most, count(*) OVER tied AS tied FROM (
        SELECT {LABEL_COLUMNS}, verdict, to_label, count(*) AS votes
        FROM standing_answers WHERE verdict <> '{Answer.SKIP}' GROUP BY ALL
    ) WINDOW label AS (PARTITION BY {LABEL_COLUMNS}),
        tied AS (PARTITION BY {LABEL_COLUMNS}, votes)
) WHERE votes = most AND tied = 1
"""
# Where two disagree, the third to answer decides.
_THIRD: Final = f"""
SELECT {LABEL_COLUMNS}, verdict, to_label FROM (
    SELECT {LABEL_COLUMNS}, verdict, to_label,
        row_number() OVER (PARTITION BY {LABEL_COLUMNS} ORDER BY answered_at, answer_id) AS place,
        count(DISTINCT concat_ws('/', verdict, to_label)) OVER (PARTITION BY {LABEL_COLUMNS})
            AS opinions,
        count(*) OVER (PARTITION BY {LABEL_COLUMNS}) AS people
    FROM standing_answers WHERE verdict <> '{Answer.SKIP}'
) WHERE (opinions = 1 AND place = 1) OR (opinions > 1 AND place = least(3, people) AND people >= 3)
"""
_RULES: Final = {"majority": _MAJORITY, "third": _THIRD}

DISAGREEMENTS: Final = f"""
SELECT {LABEL_COLUMNS}, list(struct_pack(reviewer, verdict, to_label, note) ORDER BY answered_at)
    AS answers
FROM standing_answers WHERE verdict <> '{Answer.SKIP}'
GROUP BY ALL HAVING count(DISTINCT concat_ws('/', verdict, to_label)) > 1
ORDER BY ALL
"""


def settled(settlement: Settlement) -> str:
    """Write the query of the labels that people have settled, with verdict and right label."""
    return _RULES[settlement]


def corrections_of_answers(settlement: Settlement) -> str:
    """Write the query of the corrections that follow from answers, with the columns of `WANTED`.

    Answers whose corrections were made before are left out, also where those were undone since:
    what a person has undone is not done again by itself.
    """
    return f"""
    WITH settled AS ({settled(settlement)}),
    backed AS (
        SELECT a.*, row_number() OVER (PARTITION BY {qualified("a", LABEL_KEY)}
            ORDER BY answered_at DESC, answer_id DESC) AS place
        FROM standing_answers a JOIN settled s USING ({LABEL_COLUMNS})
        WHERE a.verdict = s.verdict AND a.to_label IS NOT DISTINCT FROM s.to_label
    )
    SELECT {qualified("b", LABEL_KEY)},
        CASE WHEN b.verdict = '{Answer.RIGHT}' THEN '{Action.CONFIRM}'
            WHEN b.to_label IS NULL THEN '{Action.MARK_INVALID}' ELSE '{Action.MOVE}' END AS action,
        b.to_label,
        CASE WHEN b.kind_id IS NULL THEN '{Source.PERSON}' ELSE '{Source.KIND}' END AS source,
        b.reviewer AS actor, coalesce(b.note, p.reasoning) AS reasoning, b.decided_by,
        b.outlier_score, b.policy, b.kind_id, b.answer_id, p.rule_id, p.run_id, p.model,
        p.prompt_version, b.seen_status, b.seen_text
    FROM backed b LEFT JOIN proposals p USING ({LABEL_COLUMNS})
    WHERE b.place = 1 AND (b.answer_id, {qualified("b", LABEL_KEY)}) NOT IN
        (SELECT (answer_id, {LABEL_COLUMNS}) FROM label_corrections WHERE answer_id IS NOT NULL)
    """


def give_answer(
    warehouse: Warehouse,
    labels: Sequence[LabelKey],
    reviewer: str,
    verdict: Answer,
    *,
    to_label: str | None = None,
    note: str | None = None,
    proposal_shown: bool = False,
    kind_id: str | None = None,
) -> str:
    """Store one answer about one label, or about all labels of a kind.

    It is durable once this returns.

    Args:
        warehouse: holds the labels.
        labels: that it is about.
        reviewer: who says it.
        verdict: what is said.
        to_label: the right type, where the label is wrong and another one is right.
        note: why.
        proposal_shown: whether the reviewer was shown what is proposed. What was is no evidence for
            a rule, also where the label has come into the blind sample since.
        kind_id: of the kind, where one answer is given about all labels of it.

    Returns:
        The id of the answer.

    Raises:
        InputError: there is no reviewer or no such label, or a label is right and another one too.
        StoreError: the answer cannot be stored.
    """
    if not reviewer.strip():
        raise InputError("an answer needs a reviewer: give a name")
    if to_label is not None and verdict != Answer.WRONG:
        raise InputError(
            f"{to_label} takes the place of a label that is wrong, not of one that is {verdict}"
        )
    answer_id = uuid.uuid4().hex
    values: dict[str, Any] = {
        "answer_id": answer_id,
        "reviewer": reviewer.strip(),
        "verdict": str(verdict),
        "to_label": to_label,
        "note": note,
        "proposal_shown": proposal_shown,
        "kind_id": kind_id,
        "now": dt.datetime.now(dt.UTC),
    }
    columns = dict(zip(LABEL_KEY, map(list, zip(*labels, strict=True)), strict=True))

    def write(con: Connection) -> int:
        con.register("answered", pa.table(columns))
        stored = con.execute(_ANSWERED, values).fetchone()
        con.unregister("answered")
        if not stored or stored[0] < len(labels):
            # Nothing is stored of an answer about labels that have gone meanwhile.
            raise InputError("the label is not there any more: nothing was stored")
        return int(stored[0])

    warehouse.write(write)
    return answer_id


def withdraw_answer(warehouse: Warehouse, answer_id: str, reviewer: str) -> None:
    """Take an answer back, as if it had not been given. What was applied is undone by `undo`.

    Raises:
        InputError: the reviewer has given no such answer, or has withdrawn it.
    """

    def write(con: Connection) -> None:
        given = con.execute(
            "SELECT count(*) FROM review_answers ANTI JOIN review_withdrawals USING (answer_id) "
            "WHERE answer_id = $1 AND reviewer = $2",
            [answer_id, reviewer],
        ).fetchall()[0][0]
        if not given:
            raise InputError(f"{reviewer} has given no answer {answer_id!r} that stands")
        con.execute("INSERT INTO review_withdrawals VALUES ($1, $2, now())", [answer_id, reviewer])

    warehouse.write(write)
