"""Judging without a model: bought answers first, then the offline judge."""

from __future__ import annotations

import duckdb

from harmonizer_assets.core.judge.llm import BoughtAnswers
from harmonizer_assets.core.judge.offline import OfflineJudge
from harmonizer_assets.core.judge.questions import read_questions
from harmonizer_assets.core.judge.verdicts import PartitionVerdicts, unresolved, write_verdicts
from harmonizer_assets.core.records.label import Question, Verdict
from harmonizer_assets.core.score.unknown import NO_WORD
from harmonizer_assets.core.stages.stage import Chunk, ChunkRows
from harmonizer_assets.core.store.warehouse import Warehouse

_ANSWERS = "SELECT count(*) FROM llm_verdicts"


class OfflineJudging:
    """Judges the labels of chunks without asking anybody."""

    def __init__(
        self, warehouse: Warehouse, judge: OfflineJudge, bought: BoughtAnswers | None
    ) -> None:
        """Judge with what is known.

        Args:
            warehouse: of the home.
            judge: decides what no answer was bought about.
            bought: finds the answers that were bought before; None leaves them out.
        """
        self._warehouse = warehouse
        self._judge = judge
        self._bought = bought

    @property
    def identity(self) -> str:
        """Return an identity that changes whenever the same labels could get other verdicts."""
        bought = "" if self._bought is None else f"/{self._bought.identity}"
        return f"{self._judge.identity}{bought}"

    def judge(self, chunk: Chunk) -> ChunkRows:
        """Judge the chunk's open labels, and those that an answer was bought about."""
        answers, fingerprints, verdicts = self._warehouse.read(
            lambda con: (_answers(con), *self._judged(con, chunk))
        )

        def write(con: duckdb.DuckDBPyConnection) -> None:
            # A run that asks may have stored answers since; its decisions are not to be replaced.
            is_current = _answers(con) == answers
            write_verdicts(con, verdicts if is_current else self._judged(con, chunk)[1])

        return ChunkRows(fingerprints, write)

    def _judged(
        self, con: duckdb.DuckDBPyConnection, chunk: Chunk
    ) -> tuple[dict[str, str], list[PartitionVerdicts]]:
        asked = read_questions(con, chunk, bought=self._bought is not None, free=True)
        verdicts = [
            PartitionVerdicts(
                partition,
                [
                    *self._decided(con, questions),
                    *unresolved(asked.without_word[partition], NO_WORD),
                ],
            )
            for partition, questions in asked.questions.items()
        ]
        return asked.fingerprints, verdicts

    def _decided(self, con: duckdb.DuckDBPyConnection, questions: list[Question]) -> list[Verdict]:
        bought = {} if self._bought is None else self._bought.verdicts(con, questions)
        left = [one for one in questions if one.is_open and one.key not in bought]
        return [*bought.values(), *self._judge.decide(left)]


def _answers(con: duckdb.DuckDBPyConnection) -> int:
    return int(con.execute(_ANSWERS).fetchall()[0][0])
