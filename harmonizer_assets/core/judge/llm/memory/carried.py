"""Carried answers: those that had decided labels when their merchant changed.

The name of the merchant, its examples and the odds are part of a question, so labels that move to
another merchant are asked about in other words. An answer that had decided a label before still
does: the question in its new words becomes an alias of the one that was answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import duckdb
import pyarrow as pa

from harmonizer_assets.core.judge.llm.memory.cache import look_up
from harmonizer_assets.core.judge.llm.wire.answers import Answer
from harmonizer_assets.core.judge.llm.wire.prompt import PROMPT_VERSION
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LABEL_KEY, Question

# The answer must be about the same text, by the same model, asked in the same way.
_FITTING: Final = """
SELECT c.verdict_key, v.verdict_key AS answered_by
FROM candidates c JOIN llm_verdicts v ON v.verdict_key = c.answered_by
    AND v.label_type = c.label AND v.word_text = c.word_text
WHERE v.model = $model AND v.prompt_version = $prompt_version
QUALIFY row_number() OVER (
    PARTITION BY c.verdict_key
    ORDER BY v.number DESC NULLS LAST, v.created_at DESC, v.verdict_key) = 1
"""
_ADD: Final = f"""
INSERT INTO answer_aliases BY NAME
SELECT * FROM ({_FITTING}) ANTI JOIN answer_aliases USING (verdict_key)
"""
_SETTLED: Final = f"""
DELETE FROM carried_answers WHERE ({LABEL_COLUMNS}) IN (SELECT ({LABEL_COLUMNS})
    FROM candidates c JOIN llm_verdicts v ON v.verdict_key = c.answered_by AND v.model = $model)
"""


@dataclass(frozen=True)
class Carried:
    """A question whose label moved after it was answered, and the key in its present words."""

    question: Question
    verdict_key: str


def find_carried(
    con: duckdb.DuckDBPyConnection, carried: Iterable[Carried], model: str
) -> dict[str, tuple[str, Answer]]:
    """Find the answers of a model that still decide; by the present key, with the key they have."""
    pairs = list(carried)
    if not pairs:
        return {}
    con.register("candidates", _table(pairs))
    found = dict(con.execute(_FITTING, _parameters(model)).fetchall())
    con.unregister("candidates")
    answers = look_up(con, sorted({*found.values()}))
    return {key: (old, answers[old]) for key, old in found.items()}


def settle_carried(con: duckdb.DuckDBPyConnection, carried: Iterable[Carried], model: str) -> None:
    """Make questions in their present words aliases of those that were answered.

    Used inside a transaction that writes. From then on they are looked up like all others.
    """
    con.register("candidates", _table(list(carried)))
    con.execute(_ADD, _parameters(model))
    con.execute(_SETTLED, {"model": model})
    con.unregister("candidates")


def _parameters(model: str) -> dict[str, str]:
    return {"model": model, "prompt_version": PROMPT_VERSION}


def _table(carried: list[Carried]) -> pa.Table:
    kinds = {"image_id": pa.string(), "label": pa.string()}
    keys = [one.question.key for one in carried]
    return pa.table(
        {
            **{
                name: pa.array([getattr(key, name) for key in keys], kinds.get(name, pa.int64()))
                for name in LABEL_KEY
            },
            "word_text": pa.array([one.question.word_text for one in carried], pa.string()),
            "verdict_key": pa.array([one.verdict_key for one in carried], pa.string()),
            "answered_by": pa.array([one.question.carried_answer for one in carried], pa.string()),
        }
    )
