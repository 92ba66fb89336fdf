"""The interface of shared caches of answers.

A question that has no answer is claimed by whoever asks it, its holder. A claim holds as long as
the holder's lease does, which it renews while it lives. So a question is bought once, and one whose
holder has died is asked by another when the lease has run out.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from harmonizer_assets.core.judge.llm.wire.answers import Answer


@dataclass(frozen=True)
class Claim:
    """What became of questions, by their verdict keys; all others are held by somebody else.

    Attributes:
        found: answers that somebody has bought.
        mine: questions that the holder is to ask now.
    """

    found: Mapping[str, Answer]
    mine: frozenset[str]


class SharedCache(ABC):
    """Answers by verdict key, of any number of homes. Its methods are called by several threads."""

    @abstractmethod
    def renew(self, holder: str, seconds: float) -> None:
        """Have the lease of a holder end in so many seconds.

        Raises:
            StoreError: the cache cannot be used; so do the other methods.
        """

    @abstractmethod
    def claim(self, keys: Sequence[str], holder: str) -> Claim:
        """Look answers up, and claim the questions that have none and that nobody else asks."""

    @abstractmethod
    def look_up(self, keys: Sequence[str]) -> Mapping[str, Answer]:
        """Look answers up, and claim nothing."""

    @abstractmethod
    def put(self, answers: Mapping[str, Answer], holder: str) -> None:
        """Store answers; one that is there stays as it is."""

    @abstractmethod
    def release(self, holder: str) -> None:
        """Give up the lease of a holder, and with it its claims."""

    def close(self) -> None:  # noqa: B027  some have nothing to close
        """Close connections."""


def as_text(answer: Answer) -> str:
    """Write an answer."""
    return json.dumps(asdict(answer), ensure_ascii=False)


def from_text(text: str) -> Answer:
    """Read what `as_text` has written."""
    return Answer(**json.loads(text))
