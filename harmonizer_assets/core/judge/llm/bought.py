"""Bought answers: those that still fit their questions decide, whoever runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Final

import duckdb

from harmonizer_assets.core.judge.llm.memory.cache import look_up
from harmonizer_assets.core.judge.llm.memory.carried import Carried, find_carried
from harmonizer_assets.core.judge.llm.partitions import verdict_of
from harmonizer_assets.core.judge.llm.second_look import known_looks
from harmonizer_assets.core.judge.llm.wire.answers import Answer
from harmonizer_assets.core.judge.llm.wire.dialect import Dialect, used_dialects
from harmonizer_assets.core.judge.llm.wire.prompt import PROMPT_VERSION
from harmonizer_assets.core.judge.llm.wire.wording import Wording
from harmonizer_assets.core.records.label import LabelKey, Question, Verdict

_MODELS: Final = """
SELECT model FROM llm_verdicts WHERE prompt_version = $1
GROUP BY model ORDER BY max(number) DESC NULLS LAST, max(created_at) DESC, model
"""


class BoughtAnswers:
    """Finds the answers that any model has given to a question as it is asked today.

    Nothing is asked, so it needs neither a key nor the name of a model in the environment.
    """

    def __init__(self, wording: Callable[[str, Dialect], Wording], *, second_look: bool) -> None:
        """Look answers up as questions are written now.

        Args:
            wording: words the questions to a model in a dialect.
            second_look: whether suggestions that a second look refuted are left out.
        """
        self._wording = cache(wording)
        self._second_look = second_look

    @property
    def identity(self) -> str:
        """Return an identity that changes whenever other answers could fit."""
        usual = self._wording("", Dialect())
        return f"{usual.answer_identity}/{usual.prompts.scope}/{self._second_look}"

    def verdicts(
        self, con: duckdb.DuckDBPyConnection, questions: Sequence[Question]
    ) -> dict[LabelKey, Verdict]:
        """Make the verdicts on those labels of one partition that an answer was bought about.

        Where several models have answered, the one that was asked last decides.
        """
        waiting = [question for question in questions if question.is_bought]
        made: dict[LabelKey, Verdict] = {}
        if not waiting:
            return made
        for wording in self._used(con):
            prompts, identity = wording.prompts, wording.answer_identity
            head = prompts.head(waiting)
            keys = [prompts.ask(question, head, identity).verdict_key for question in waiting]
            asked = list(zip(waiting, keys, strict=True))
            known = {key: (key, answer) for key, answer in look_up(con, sorted({*keys})).items()}
            carried = [Carried(*one) for one in asked if one[0].carried_answer is not None]
            answers = find_carried(con, carried, wording.model) | known
            found = [(question, *answers[key]) for question, key in asked if key in answers]
            looks = self._looks(con, [(question, answer) for question, _, answer in found], wording)
            for question, key, answer in found:
                made[question.key] = verdict_of(question, key, answer, looks.get(question.key))
            waiting = [question for question in waiting if question.key not in made]
            if not waiting:
                break
        return made

    def _used(self, con: duckdb.DuckDBPyConnection) -> Iterator[Wording]:
        """Yield how each model has been asked, the one that was asked last first."""
        for (model,) in con.execute(_MODELS, [PROMPT_VERSION]).fetchall():
            for dialect in used_dialects(con, model):
                yield self._wording(model, dialect)

    def _looks(
        self,
        con: duckdb.DuckDBPyConnection,
        found: Sequence[tuple[Question, Answer]],
        wording: Wording,
    ) -> dict[LabelKey, Answer]:
        if not self._second_look:
            return {}
        return known_looks(con, found, wording.prompts, wording.answer_identity)
