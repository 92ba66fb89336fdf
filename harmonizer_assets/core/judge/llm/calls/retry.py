"""Handling of calls without a valid answer: retry, halve, give up."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from typing import Final

from harmonizer_assets.core.base.errors import JudgeError
from harmonizer_assets.core.base.settings import JudgeSettings
from harmonizer_assets.core.judge.llm.calls.contact import Contact
from harmonizer_assets.core.judge.llm.calls.limits import Limits
from harmonizer_assets.core.judge.llm.calls.packing import Call, Packer
from harmonizer_assets.core.judge.llm.calls.work import OpenWork
from harmonizer_assets.core.judge.llm.wire.prompt import Ask
from harmonizer_assets.core.judge.llm.wire.replies import Outcome, Reply
from harmonizer_assets.core.records.reports import RunTotals

_log = logging.getLogger(__name__)

_LONGEST_BACKOFF: Final = 30.0
_ROOMIER_TRIES: Final = 3
"""How often a call whose answer was cut off before it began is asked as a whole with more room."""
_PATIENCE_UNANSWERED: Final = 60.0
"""Seconds after which a run gives up on an endpoint that has never answered it."""


class Retries:
    """Queues words to be asked again, and gives up those that have no attempts left.

    A question is asked until it has a valid answer, at most `max_attempts` times beyond the
    halvings of its call (of 50 words, six at most) and beyond refusals (429) while other calls were
    in flight, which the run itself has caused.
    """

    def __init__(
        self,
        settings: JudgeSettings,
        packer: Packer,
        work: OpenWork,
        limits: Limits,
        totals: RunTotals,
        contact: Contact,
    ) -> None:
        self._settings = settings
        self._packer = packer
        self._work = work
        self._limits = limits
        self._totals = totals
        self._contact = contact

    def after(self, call: Call, reply: Reply, *, alone: bool) -> None:
        """Handle a call without an answer.

        Args:
            call: as it was sent.
            reply: its outcome.
            alone: whether no other call was in flight.

        Raises:
            JudgeError: the endpoint has answered nothing for too long, or nothing that is usable.
        """
        match reply.outcome:
            case Outcome.RATE_LIMITED:
                self._refused(call, reply, alone=alone)
            case Outcome.FAILED:
                self._failed(call, reply)
            case Outcome.DECLINED:
                self._declined(call, reply.error)
            case _ if reply.cut_off:
                self._cut_off(call, reply)
            case _:
                self.unusable(call, reply.error)

    def unusable(self, call: Call, error: str) -> None:
        """Halve a call whose answer is unusable, until the word that causes it is alone.

        Raises:
            JudgeError: no answer to any of several different questions could be used.
        """
        self._contact.useless(call.asks, error)
        self._halve(call, Outcome.UNUSABLE, error)

    def _halve(self, call: Call, outcome: Outcome, error: str) -> None:
        for ask in call.asks:
            ask.error = error
        if len(call.asks) > 1:
            _tell(call, outcome.value, 0.0, "in two halves")
            self._packer.split(call, time.monotonic())
            return
        call.asks[0].attempts += 1
        self._retry(call, outcome.value, self._backoff(call.asks[0].attempts))

    def _declined(self, call: Call, error: str) -> None:
        """Halve a call that holds a word which is refused; give that word up once it is alone."""
        if len(call.asks) == 1:
            call.asks[0].attempts = self._settings.max_attempts
        self._halve(call, Outcome.DECLINED, error)

    def _cut_off(self, call: Call, reply: Reply) -> None:
        """Ask again with the room that was learned; halve what was cut off in the middle.

        A model that has written nothing has used all the room to think, about two words as about
        fifty.
        """
        self._contact.cut_off(reply.error)
        if len(call.asks) > 1 and not reply.content and call.failures < _ROOMIER_TRIES:
            call.failures += 1
            for ask in call.asks:
                ask.error = reply.error
            self._retry(call, reply.error, 0.0)
            return
        if len(call.asks) == 1 and call.asks[0].attempts + 1 >= self._settings.max_attempts:
            self._contact.useless(call.asks, reply.error)
        self._halve(call, Outcome.UNUSABLE, reply.error)

    def rejected(self, call: Call, errors: Mapping[Ask, str]) -> None:
        """Ask those words of a call again whose part of the answer is invalid.

        Args:
            call: as it was sent.
            errors: what is wrong, by question.

        Raises:
            JudgeError: no answer to any of several different questions could be used.
        """
        for ask, error in errors.items():
            ask.attempts += 1
            ask.error = error
        self._contact.useless(list(errors), next(iter(errors.values())))
        self._retry(Call(list(errors), call.lane, call.failures), "incomplete", 0.0)

    def _failed(self, call: Call, reply: Reply) -> None:
        """Try again later; a call that has failed twice may hold the cause, so halve it."""
        if reply.unreachable and self._contact.never_reached:
            self._unreachable(call, reply.error)
            return
        self._check_patience(reply.error)
        if self._waits_too_long(call, reply):
            return
        for ask in call.asks:
            ask.attempts += 1
            ask.error = reply.error
        call.failures += 1
        pause = max(self._backoff(call.failures), reply.retry_after or 0.0)
        halve = call.failures % 2 == 0 and len(call.asks) > 1
        for part in call.halves() if halve else (call,):
            self._retry(part, reply.error, pause)

    def _unreachable(self, call: Call, error: str) -> None:
        """Try again once the circuit lets one call try; no word is the cause."""
        pause = self._limits.circuit.delay()
        self._contact.unreachable(error, pause)
        self._retry(call, error, pause)

    def _refused(self, call: Call, reply: Reply, *, alone: bool) -> None:
        """Retry after the pause that the endpoint asks for."""
        self._check_patience(reply.error)
        if self._waits_too_long(call, reply):
            return
        call.failures += 1
        pause = self._backoff(call.failures)
        if reply.retry_after is not None:
            pause = reply.retry_after
            self._limits.rates.pause(reply.retry_after)
            _log.info("rate limited (HTTP 429): nothing is sent for %.2f s", pause)
        for ask in call.asks:
            # While others are in flight the run itself causes a refusal, not the word.
            ask.attempts += alone
            ask.error = reply.error
        self._retry(call, reply.error, pause)

    def _waits_too_long(self, call: Call, reply: Reply) -> bool:
        """Defer words if the endpoint asks to wait longer than this run does."""
        if (reply.retry_after or 0.0) <= self._settings.max_retry_after_seconds:
            return False
        reason = f"deferred: wait {reply.retry_after:.0f} s ({reply.error})"
        _log.info("%d words are left to a later run, %s", len(call.asks), reason)
        self._work.defer(call.asks, reason)
        return True

    def _check_patience(self, error: str) -> None:
        circuit = self._limits.circuit
        if not circuit.is_open:
            return
        never = self._totals.answered == 0
        if circuit.exhausted or (never and circuit.failing_for > _PATIENCE_UNANSWERED):
            raise JudgeError(
                f"the endpoint has answered nothing for {circuit.failing_for:.0f} s "
                f"({error}): check OPENAI_BASE_URL and the provider's status, then run again; "
                "what was answered is kept"
            )

    def _backoff(self, failures: int) -> float:
        """Draw a pause in seconds: exponential backoff with full jitter (Brooker 2015)."""
        ceiling = min(_LONGEST_BACKOFF, self._settings.backoff_seconds * 2**failures)
        return random.uniform(0, ceiling)

    def _retry(self, call: Call, outcome: str, pause: float) -> None:
        """Queue the words that have attempts left again, give up the others."""
        most = self._settings.max_attempts
        spent = [ask for ask in call.asks if ask.attempts >= most]
        call.asks = [ask for ask in call.asks if ask.attempts < most]
        self._totals.dead_letters += len(spent)
        for ask in spent:
            self._work.give_up(ask)
        if spent:
            times = max(ask.calls for ask in spent)
            _log.info("%d words are given up after %d attempts: %s", len(spent), times, outcome)
        if call.asks:
            _tell(call, outcome, pause)
            self._packer.retry(call, time.monotonic() + pause)


def _tell(call: Call, outcome: str, pause: float, how: str = "whole") -> None:
    _log.info(
        "retry of a call of %d words (%s) after attempt %d: %s, in %.2f s",
        len(call.asks),
        how,
        max(ask.calls for ask in call.asks),
        outcome,
        pause,
    )
