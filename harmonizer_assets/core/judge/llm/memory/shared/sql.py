"""Shared answers in two SQL tables; `postgresql` and `duckdb_file` say where those are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.judge.llm.memory.shared.base import (
    Claim,
    SharedCache,
    as_text,
    from_text,
)
from harmonizer_assets.core.judge.llm.wire.answers import Answer

T = TypeVar("T")

Execute = Callable[..., list[Any]]
"""Executes a statement with parameters by name; returns its rows."""

_TABLES: Final = (
    """
CREATE TABLE IF NOT EXISTS harmonizer_answers (
    answer_key VARCHAR PRIMARY KEY, holder VARCHAR NOT NULL, answer VARCHAR
)
""",
    """
CREATE TABLE IF NOT EXISTS harmonizer_answer_holders (
    holder VARCHAR PRIMARY KEY, expires_at DOUBLE PRECISION NOT NULL
)
""",
)
_RENEW: Final = """
INSERT INTO harmonizer_answer_holders VALUES (:holder, {now} + :seconds)
ON CONFLICT (holder) DO UPDATE SET expires_at = excluded.expires_at
"""
_TAKE_OVER: Final = """
UPDATE harmonizer_answers SET holder = :holder
WHERE answer IS NULL AND answer_key = ANY(CAST(:keys AS VARCHAR[])) AND holder <> :holder
    AND holder NOT IN (SELECT holder FROM harmonizer_answer_holders WHERE expires_at > {now})
"""
_CLAIM: Final = """
INSERT INTO harmonizer_answers (answer_key, holder)
SELECT unnest(CAST(:keys AS VARCHAR[])), CAST(:holder AS VARCHAR)
ON CONFLICT (answer_key) DO NOTHING
"""
_LOOK_UP: Final = """
SELECT answer_key, holder, answer FROM harmonizer_answers
WHERE answer_key = ANY(CAST(:keys AS VARCHAR[]))
"""
_PUT: Final = """
INSERT INTO harmonizer_answers (answer_key, holder, answer)
SELECT unnest(CAST(:keys AS VARCHAR[])), CAST(:holder AS VARCHAR),
    unnest(CAST(:answers AS VARCHAR[]))
ON CONFLICT (answer_key) DO UPDATE SET answer = excluded.answer
WHERE harmonizer_answers.answer IS NULL
"""
_RELEASE: Final = "DELETE FROM harmonizer_answers WHERE answer IS NULL AND holder = :holder"
_END: Final = "DELETE FROM harmonizer_answer_holders WHERE holder = :holder"


class SqlCache(SharedCache):
    """Two tables: answers with who asks, and how long each who asks may take.

    Transactions take turns, so that two that claim the same questions in another order do not
    wait for each other for ever. Each takes milliseconds.
    """

    def __init__(self) -> None:
        """Make the tables where they are missing.

        Raises:
            StoreError: the database cannot be used.
        """

        def make(execute: Execute) -> None:
            for statement in _TABLES:
                execute(statement)

        self._run(make)

    def renew(self, holder: str, seconds: float) -> None:
        """Write the time when the lease ends; see `SharedCache.renew`."""
        statement = _RENEW.format(now=self._now())
        self._run(lambda execute: execute(statement, holder=holder, seconds=seconds))

    def claim(self, keys: Sequence[str], holder: str) -> Claim:
        """Insert what is missing, and read what there is; see `SharedCache.claim`."""
        wanted = sorted({*keys})

        def claim(execute: Execute) -> list[Any]:
            execute(_TAKE_OVER.format(now=self._now()), keys=wanted, holder=holder)
            execute(_CLAIM, keys=wanted, holder=holder)
            return execute(_LOOK_UP, keys=wanted)

        rows = self._run(claim)
        return Claim(
            {key: from_text(answer) for key, _, answer in rows if answer is not None},
            frozenset(key for key, by, answer in rows if answer is None and by == holder),
        )

    def look_up(self, keys: Sequence[str]) -> Mapping[str, Answer]:
        """Read answers; see `SharedCache.look_up`."""
        wanted = sorted({*keys})
        rows = self._run(lambda execute: execute(_LOOK_UP, keys=wanted))
        return {key: from_text(answer) for key, _, answer in rows if answer is not None}

    def put(self, answers: Mapping[str, Answer], holder: str) -> None:
        """Insert answers, or add them to claims; see `SharedCache.put`."""
        keys = sorted(answers)
        texts = [as_text(answers[key]) for key in keys]
        self._run(lambda execute: execute(_PUT, keys=keys, holder=holder, answers=texts))

    def release(self, holder: str) -> None:
        """Delete claims and lease; see `SharedCache.release`."""

        def release(execute: Execute) -> None:
            execute(_RELEASE, holder=holder)
            execute(_END, holder=holder)

        self._run(release)

    def _run(self, work: Callable[[Execute], T]) -> T:
        """Do work in a transaction; it may be done again, and has no other effects."""
        with self._transaction() as execute:
            return work(execute)

    @abstractmethod
    def _transaction(self) -> Any:
        """Begin a transaction that no other one runs beside; yield an `Execute`."""

    @abstractmethod
    def _now(self) -> str:
        """Return SQL for the present time in seconds, by a clock that all holders share."""


def unusable(error: Exception) -> StoreError:
    """Say that the cache cannot be used, without what the driver says."""
    return StoreError(
        f"the shared answers cannot be used ({type(error).__name__}): check [judge] answers, the "
        "network, and the credentials in the environment"
    )
