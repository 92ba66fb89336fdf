"""What follows a call that was not answered as it should be."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from harmonizer_assets.core.base.errors import JudgeError
from harmonizer_assets.core.base.settings import JudgeSettings
from harmonizer_assets.core.judge.llm.calls.contact import Contact
from harmonizer_assets.core.judge.llm.calls.dispatch import Timeouts
from harmonizer_assets.core.judge.llm.calls.limits import Limits
from harmonizer_assets.core.judge.llm.calls.packing import Call, Packer
from harmonizer_assets.core.judge.llm.calls.retry import Retries
from harmonizer_assets.core.judge.llm.calls.work import OpenWork, PartitionWork
from harmonizer_assets.core.judge.llm.money.accounts import RunTotals
from harmonizer_assets.core.judge.llm.wire.prompt import Ask
from harmonizer_assets.core.judge.llm.wire.replies import Outcome, Reply
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_tests.support.asks import asks, question

FAILED = Reply(Outcome.FAILED, 0.1, error="endpoint failed (HTTP 500)")
REFUSED = Reply(Outcome.RATE_LIMITED, 0.1, error="rate limited (HTTP 429)")
BROKEN = Reply(Outcome.UNUSABLE, 0.1, error="the answer was truncated")
LATER = 1e9


class Run:
    """A partition whose words are all in one call, and what decides what follows it."""

    def __init__(self, words: int, **judge: Any) -> None:
        settings = JudgeSettings(**{"max_attempts": 3, "backoff_seconds": 0.001, **judge})
        self.asks = asks(*(question(f"word{n}", n) for n in range(words)))
        self.packer = Packer(5, 5, 5)
        self.work = OpenWork()
        self.limits = Limits.of(settings)
        self.totals = RunTotals()
        self.contact = Contact()
        self.retries = Retries(
            settings, self.packer, self.work, self.limits, self.totals, self.contact
        )
        partition = PartitionWork(PartitionKey("DATE", "shop-00000001"), self.asks)
        self.work.add(partition)
        self.packer.add(partition)

    def send(self) -> Call:
        """Take the next call, as sent, whenever it is due."""
        call = self.packer.next(50, LATER)
        assert call is not None
        self.packer.started(call)
        self.packer.ended(call)
        for ask in call.asks:
            ask.calls += 1
        return call

    def fail(self, reply: Reply, *, alone: bool = False) -> None:
        self.retries.after(self.send(), reply, alone=alone)

    def waiting(self) -> list[int]:
        """The sizes of the calls that wait."""
        sizes = []
        while self.packer.has_word(LATER):
            sizes.append(len(self.send().asks))
        return sizes


def given_up(found: list[Ask]) -> int:
    return sum(ask.given_up and not ask.deferred for ask in found)


def test_a_failed_call_is_tried_again_whole_and_then_in_halves():
    run = Run(8)
    run.fail(FAILED)
    assert run.packer.words == 8
    run.fail(FAILED)
    assert run.waiting() == [4, 4]


def test_words_are_given_up_after_the_attempts_that_are_configured():
    run = Run(1)
    for _ in range(3):
        assert not given_up(run.asks)
        run.fail(FAILED)
    assert given_up(run.asks) == run.totals.dead_letters == 1
    assert run.waiting() == []
    finished = asyncio.run(run.work.next_finished())
    assert finished is not None
    assert finished.asks == run.asks


def test_a_refusal_counts_as_an_attempt_only_when_nothing_else_was_in_flight():
    run = Run(2)
    for _ in range(10):
        run.fail(REFUSED)
    assert {ask.attempts for ask in run.asks} == {0}
    run.fail(REFUSED, alone=True)
    assert {ask.attempts for ask in run.asks} == {1}


def test_a_pause_that_the_endpoint_asks_for_holds_for_all_calls():
    run = Run(2)
    run.fail(Reply(Outcome.RATE_LIMITED, 0.1, error="rate limited", retry_after=7.0))
    due = run.packer.next_retry()
    assert due is not None
    assert due - time.monotonic() == pytest.approx(7.0, abs=0.5)
    assert run.limits.rates.delay(1) == pytest.approx(7.0, abs=0.5)


def test_a_longer_pause_than_a_run_waits_leaves_the_words_to_a_later_run():
    run = Run(2, max_retry_after_seconds=60)
    run.fail(Reply(Outcome.RATE_LIMITED, 0.1, error="rate limited", retry_after=61.0))
    assert all(ask.deferred and ask.given_up for ask in run.asks)
    assert {ask.error for ask in run.asks} == {"deferred: wait 61 s (rate limited)"}
    assert run.totals.dead_letters == 0
    assert run.waiting() == []


def test_an_answer_that_is_no_good_halves_its_call_without_costing_an_attempt():
    run = Run(8)
    run.fail(BROKEN)
    assert {ask.attempts for ask in run.asks} == {0}
    assert run.waiting() == [4, 4]


def test_a_word_alone_whose_answer_is_no_good_has_used_an_attempt():
    run = Run(1)
    run.fail(BROKEN)
    assert run.asks[0].attempts == 1
    assert run.waiting() == [1]


def test_only_the_words_whose_part_of_an_answer_is_no_good_are_asked_again():
    run = Run(4)
    call = run.send()
    run.retries.rejected(call, {call.asks[2]: "no entry"})
    again = run.send()
    assert again.asks == [call.asks[2]]
    assert (again.asks[0].attempts, again.asks[0].error) == (1, "no entry")


DECLINED = Reply(Outcome.DECLINED, 0.1, error="the model refused to answer")
THOUGHT = Reply(Outcome.UNUSABLE, 0.1, error="the answer was truncated", cut_off=True)


def test_a_word_that_is_declined_is_given_up_at_once_and_a_call_is_halved():
    run = Run(2)
    run.fail(DECLINED)
    run.fail(DECLINED)
    run.fail(DECLINED)
    assert run.waiting() == []
    assert [(ask.calls, ask.error) for ask in run.asks] == [(2, DECLINED.error)] * 2
    assert given_up(run.asks) == 2


def test_a_model_that_has_only_thought_is_asked_again_with_more_room_and_then_in_halves():
    run = Run(4)
    for _ in range(3):
        run.fail(THOUGHT)
        assert run.packer.words == 4
    run.fail(THOUGHT)
    assert run.waiting() == [2, 2]


def test_a_run_without_any_usable_answer_ends_after_a_few_different_questions():
    run = Run(4, max_attempts=20, backoff_seconds=0.0)
    # The call, its halves, which say nothing new, and three of the four words alone.
    for _ in range(1 + 2 + 3):
        run.fail(BROKEN)
    with pytest.raises(JudgeError, match="none of the first 5 answers can be used"):
        run.fail(BROKEN)


def test_a_run_whose_answers_are_all_cut_off_ends_before_all_words_have_used_their_attempts():
    run = Run(50, max_attempts=20, backoff_seconds=0.0)
    for _ in range(39):
        run.fail(THOUGHT)
    with pytest.raises(JudgeError, match=r"none of the first 40 answers.*truncated"):
        run.fail(THOUGHT)


def test_after_one_usable_answer_the_words_are_the_cause():
    run = Run(4)
    run.contact.answered()
    while run.packer.words:
        run.fail(BROKEN)
    assert given_up(run.asks) == 4


def test_an_address_that_was_never_reached_is_given_up_within_five_seconds():
    now = [0.0]
    contact = Contact(clock=lambda: now[0])
    for at, pause in ((0.0, 1.0), (1.0, 2.0)):
        now[0] = at
        contact.unreachable("no connection", pause)
    now[0] = 3.0
    with pytest.raises(JudgeError, match="OPENAI_BASE_URL"):
        contact.unreachable("no connection", 4.0)
    contact.reached()
    contact.unreachable("no connection", 4.0)


def test_an_endpoint_that_answers_nothing_for_too_long_ends_the_run():
    run = Run(1, max_attempts=20, outage_patience_seconds=0.001)
    for _ in range(12):
        run.limits.circuit.failed()
    assert run.limits.circuit.is_open
    time.sleep(0.01)
    with pytest.raises(JudgeError, match="answered nothing for"):
        run.fail(FAILED)


def test_an_answer_is_waited_for_longer_after_each_time_out_and_less_after_each_answer():
    timeouts = Timeouts(100.0)
    assert timeouts.seconds(2.0) == 16.0
    timeouts.timed_out()
    assert timeouts.seconds(2.0) == 32.0
    for _ in range(10):
        timeouts.answered()
    assert timeouts.seconds(2.0) == 16.0
    for _ in range(10):
        timeouts.timed_out()
    assert timeouts.seconds(2.0) == 100.0
