"""First contact: what a run has got from its endpoint so far, and when nothing will come of it.

An address may be wrong, a server may be something else, a model may never answer by the schema.
Each shows in the first few calls, so a run that has no answer yet sends few at a time and gives up
early, instead of asking all its questions as often as a single bad word may be asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from harmonizer_assets.core.base.errors import JudgeError
from harmonizer_assets.core.judge.llm.wire.prompt import Ask

FIRST_CALLS: Final = 4
"""Calls in flight at most while the home has no answer of the endpoint and model yet."""
FIRST_WORDS: Final = 1
"""Words of these calls where they need not be large: the others wait for the first answer."""

_ENOUGH_DIFFERENT: Final = 5
"""Different questions whose answers are unusable, after which a run without any other gives up."""
_ENOUGH_CUT_OFF: Final = 40
"""Answers that were cut off, after which a run without any other gives up: the room for an answer
has grown as far as it does by then, however many calls were in flight."""
_PATIENCE_UNREACHABLE: Final = 5.0
"""Seconds after which a run gives up on an address that has never accepted a connection."""


class Contact:
    """What has come back from an endpoint: nothing, something, an answer that can be used.

    Attributes:
        known: whether the endpoint has answered for this model, now or in a run before.
    """

    def __init__(self, *, known: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        """Start a run; `known`: the home has answers of this endpoint and model."""
        self.known = known
        self._clock = clock
        self._answered = False
        self._reached = False
        self._unreachable_since: float | None = None
        self._useless: set[tuple[str, ...]] = set()
        self._cut_off = 0

    @property
    def never_reached(self) -> bool:
        """Return whether no connection was ever made in this run."""
        return not self._reached

    def reached(self) -> None:
        """Record that the endpoint, whatever it said, was there."""
        self._reached = True

    def answered(self) -> None:
        """Record an answer that can be used."""
        self.known = self._answered = self._reached = True

    def unreachable(self, error: str, pause: float) -> None:
        """Record that no connection could be made, and that the next try comes after a pause.

        Raises:
            JudgeError: there was never one, and the next try would come too late.
        """
        now = self._clock()
        self._unreachable_since = self._unreachable_since or now
        if self._reached or now + pause - self._unreachable_since <= _PATIENCE_UNREACHABLE:
            return
        raise JudgeError(
            f"the endpoint cannot be reached ({error}): check OPENAI_BASE_URL and whether the "
            "server runs, then run again; what was answered before is kept"
        )

    def useless(self, asks: Sequence[Ask], error: str) -> None:
        """Record an answer that cannot be used.

        Only calls count that were never sent before, or hold one word: the halves of a bad call
        say nothing new.

        Raises:
            JudgeError: no answer to any of several different questions could be used.
        """
        if self._answered or not (len(asks) == 1 or all(ask.calls == 1 for ask in asks)):
            return
        self._useless.add(tuple(ask.verdict_key for ask in asks))
        if len(self._useless) >= _ENOUGH_DIFFERENT:
            raise _nothing_usable(len(self._useless), error)

    def cut_off(self, error: str) -> None:
        """Record an answer that was cut off, and may not be with more room.

        Raises:
            JudgeError: no answer to any of many calls could be used.
        """
        self._cut_off += 1
        if not self._answered and self._cut_off >= _ENOUGH_CUT_OFF:
            raise _nothing_usable(self._cut_off, error)


def _nothing_usable(answers: int, error: str) -> JudgeError:
    return JudgeError(
        f"none of the first {answers} answers can be used ({error}): check that OPENAI_BASE_URL is "
        "the address of a chat completions API, which mostly ends in /v1, and that "
        "HARMONIZER_MODEL can answer in JSON; then run again"
    )
