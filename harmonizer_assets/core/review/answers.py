"""Answers: what people say about labels, who has said it, and what follows from it.

Answers are only added. Who changes their mind answers again, or takes the answer back; the last
answer of each person counts.
"""

from __future__ import annotations

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
from harmonizer_assets.core.store.numbers import newest_first, next_number, oldest_first
from harmonizer_assets.core.store.warehouse import Warehouse


class Answer(StrEnum):
    """What a person says about a label."""

    RIGHT = "right"
    """The label is right."""
    WRONG = "wrong"
    """The label is wrong: another type is right, or none."""
    SKIP = "skip"
    """Not now."""
    ADD = "add"
    """The word has this label, which nobody has given it yet."""


NUMBERED: Final = ("review_answers", "review_reopenings")
"""Tables whose rows are numbered together, in the order in which they were written."""
_ORDER: Final = f"{oldest_first('answered_at')}, answer_id"

# What the reviewer saw is the state of the label when it was exported, or the queue was made; of a
# label that a word lacks there is none, whatever a queue from before says.
_ANSWERED: Final = f"""
INSERT INTO review_answers BY NAME
SELECT a.answer_id, {LABEL_COLUMNS}, a.reviewer, a.verdict, a.to_label, a.note,
    coalesce(q.is_blind, false) AND NOT a.proposal_shown AS is_blind, a.kind_id, q.policy,
    q.action AS proposed_action, q.to_label AS proposed_to, q.decided_by, q.outlier_score,
    CASE WHEN a.verdict <> '{Answer.ADD}'
        THEN coalesce(a.seen_status, q.validation_status, l.validation_status) END AS seen_status,
    coalesce(a.seen_text, q.word_text, w.text) AS seen_text, now() AS answered_at,
    {next_number(*NUMBERED)} AS number, a.import_id
FROM answered a LEFT JOIN labels l USING ({LABEL_COLUMNS})
LEFT JOIN review_queue q USING ({LABEL_COLUMNS})
LEFT JOIN words w USING ({WORD_COLUMNS})
WHERE CASE WHEN a.verdict = '{Answer.ADD}' THEN l.label IS NULL AND w.text IS NOT NULL
    ELSE l.label IS NOT NULL END
"""
GIVEN: Final = pa.schema(
    [
        ("answer_id", pa.string()),
        ("image_id", pa.string()),
        ("receipt_id", pa.int64()),
        ("line_id", pa.int64()),
        ("word_id", pa.int64()),
        ("label", pa.string()),
        ("reviewer", pa.string()),
        ("verdict", pa.string()),
        ("to_label", pa.string()),
        ("note", pa.string()),
        ("proposal_shown", pa.bool_()),
        ("kind_id", pa.string()),
        ("seen_status", pa.string()),
        ("seen_text", pa.string()),
        ("import_id", pa.string()),
    ]
)
"""Columns of answers that are to be stored. The `seen_` columns are null where the reviewer saw
what the review queue says; `import_id` is null where nothing was imported."""
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
        row_number() OVER (PARTITION BY {LABEL_COLUMNS} ORDER BY {_ORDER}) AS place,
        count(DISTINCT concat_ws('/', verdict, to_label)) OVER (PARTITION BY {LABEL_COLUMNS})
            AS opinions,
        count(*) OVER (PARTITION BY {LABEL_COLUMNS}) AS people
    FROM standing_answers WHERE verdict <> '{Answer.SKIP}'
) WHERE (opinions = 1 AND place = 1) OR (opinions > 1 AND place = least(3, people) AND people >= 3)
"""
_RULES: Final = {"majority": _MAJORITY, "third": _THIRD}

DISAGREEMENTS: Final = f"""
SELECT {LABEL_COLUMNS}, list(struct_pack(reviewer, verdict, to_label, note) ORDER BY {_ORDER})
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
            ORDER BY {newest_first("answered_at")}, answer_id DESC) AS place
        FROM standing_answers a JOIN settled s USING ({LABEL_COLUMNS})
        WHERE a.verdict = s.verdict AND a.to_label IS NOT DISTINCT FROM s.to_label
    )
    SELECT {qualified("b", LABEL_KEY)},
        CASE WHEN b.verdict = '{Answer.RIGHT}' THEN '{Action.CONFIRM}'
            WHEN b.verdict = '{Answer.ADD}' THEN '{Action.ADD}'
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
    answer: dict[str, Any] = {
        "answer_id": new_answer_id(),
        "reviewer": checked_reviewer(reviewer),
        "verdict": str(verdict),
        "to_label": to_label,
        "note": note,
        "proposal_shown": proposal_shown,
        "kind_id": kind_id,
    }
    if to_label is not None and verdict != Answer.WRONG:
        raise InputError(
            f"{to_label} takes the place of a label that is wrong, not of one that is {verdict}"
        )
    rows = pa.Table.from_pylist([{**key._asdict(), **answer} for key in labels], GIVEN)
    warehouse.write(lambda con: store_answers(con, rows))
    return str(answer["answer_id"])


def new_answer_id() -> str:
    """Make an id that no answer has."""
    return uuid.uuid4().hex


def checked_reviewer(name: str) -> str:
    """Return a reviewer's name without blanks around it.

    Raises:
        InputError: there is nothing else in it.
    """
    if not name.strip():
        raise InputError("an answer needs a reviewer: give a name")
    return name.strip()


def store_answers(con: Connection, rows: pa.Table) -> None:
    """Store answers; used inside `Warehouse.write`.

    Args:
        con: the connection that `write` gave.
        rows: columns of `GIVEN`, one row for each answer and label.

    Raises:
        InputError: a label is not there, or is there that is to be added; the transaction must
            end.
    """
    con.register("answered", rows)
    stored = con.execute(_ANSWERED).fetchone()
    con.unregister("answered")
    if not stored or stored[0] < rows.num_rows:
        # Nothing is stored of an answer about labels that have come or gone meanwhile.
        raise InputError("the label is not there any more, or by now: nothing was stored")


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
