from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.judge.llm.calls.limits import (
    Bucket,
    Circuit,
    Concurrency,
    RateLimits,
)
from harmonizer_assets.core.judge.llm.wire.headers import seconds_of


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limit_headers(**values: object) -> dict[str, str]:
    return {f"x-ratelimit-{name.replace('_', '-')}": str(value) for name, value in values.items()}


# Durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2.0),
        ("1.5", 1.5),
        ("20ms", 0.02),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3s", 3723.0),
        ("1m30.5s", 90.5),
        ("1d", 86_400.0),
        ("0", 0.0),
        ("-3", 0.0),
        ("soon", None),
        ("", None),
    ],
)
def test_a_duration_is_read_as_endpoints_write_it(text, seconds):
    assert seconds_of(text) == (seconds if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=40))
def test_any_text_is_a_duration_that_is_not_negative_or_none(text):
    found = seconds_of(text)
    assert found is None or not found < 0


# Buckets

steps = st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 1.0)), min_size=1, max_size=80)


@settings(deadline=None)
@given(st.floats(1, 10_000), steps)
def test_a_bucket_never_hands_out_more_than_its_size_and_refill_over_any_window(per_minute, steps):
    clock = Clock()
    bucket = Bucket(per_minute, clock)
    taken: list[tuple[float, float]] = []
    for pause, share in steps:
        clock.sleep(pause)
        amount = share * per_minute
        clock.sleep(bucket.delay(amount))
        bucket.take(amount)
        taken.append((clock.now, amount))
    for first, (start, _) in enumerate(taken):
        for last in range(first, len(taken)):
            seconds = taken[last][0] - start
            handed_out = sum(amount for _, amount in taken[first : last + 1])
            assert handed_out <= (per_minute + seconds * per_minute / 60) * (1 + 1e-6)


@given(st.floats(1, 10_000), st.floats(0, 1), st.floats(0, 3_000))
def test_the_delay_is_just_long_enough(per_minute, taken, amount):
    clock = Clock()
    bucket = Bucket(per_minute, clock)
    bucket.take(taken * per_minute)
    clock.sleep(bucket.delay(amount))
    assert bucket.delay(amount) == pytest.approx(0, abs=1e-6)
    # More than the bucket holds goes when it is full; it could never go otherwise.
    assert bucket.level() >= min(amount, per_minute) - 1e-6


def test_idle_time_does_not_fill_a_bucket_beyond_its_size(clock):
    bucket = Bucket(60, clock)
    clock.sleep(3_600)
    assert bucket.level() == 60
    bucket.give_back(1_000)
    assert bucket.level() == 60


def test_without_a_limit_nothing_waits(clock):
    bucket = Bucket(None, clock)
    for _ in range(1_000):
        bucket.take(1_000)
    assert bucket.delay(1e9) == 0
    assert bucket.level() == math.inf


def test_a_limit_is_learned_from_the_first_answer_and_counts_what_is_in_flight(clock):
    bucket = Bucket(None, clock)
    first, _, _ = (bucket.take(10) for _ in range(3))
    bucket.learn(first, limit=100, remaining=90)
    assert bucket.per_minute == 100
    assert bucket.level() == pytest.approx(70)
    assert bucket.delay(80) == pytest.approx(6.0)


def test_a_limit_that_changes_is_followed_up_and_down(clock):
    bucket = Bucket(None, clock)
    bucket.learn(bucket.take(10), limit=100, remaining=90)
    bucket.learn(bucket.take(10), limit=1_000, remaining=980)
    assert bucket.level() == pytest.approx(980)
    bucket.learn(bucket.take(10), limit=50, remaining=20)
    assert bucket.per_minute == 50
    assert bucket.level() <= 50


def test_a_configured_limit_is_never_replaced_by_a_learned_one(clock):
    bucket = Bucket(100, clock)
    bucket.learn(bucket.take(1), limit=10_000, remaining=9_999)
    assert bucket.per_minute == 100
    assert bucket.level() <= 100


def test_what_others_take_from_the_endpoints_bucket_is_noticed(clock):
    bucket = Bucket(100, clock)
    for _ in range(8):
        bucket.learn(bucket.take(0), limit=100, remaining=20)
    assert bucket.level() == pytest.approx(20, abs=1)


def test_answers_that_report_the_same_surprise_agree_instead_of_adding_up(clock):
    bucket = Bucket(100, clock)
    # Ten calls are sent before any is answered; somebody else has taken 30.
    taken = [bucket.take(1) for _ in range(10)]
    for number, one in enumerate(taken, start=1):
        bucket.learn(one, limit=100, remaining=100 - 30 - number)
    assert bucket.level() == pytest.approx(60, abs=1)


def test_headers_that_agree_change_nothing(clock):
    bucket = Bucket(60, clock)
    for number in range(1, 11):
        bucket.learn(bucket.take(1), limit=60, remaining=60 - number)
    assert bucket.level() == pytest.approx(50)


def test_what_was_refused_is_given_back(clock):
    bucket = Bucket(100, clock)
    bucket.take(60)
    bucket.refused(60, remaining=None)
    assert bucket.level() == pytest.approx(100)


def test_a_refusal_that_says_what_is_left_is_believed(clock):
    bucket = Bucket(100, clock)
    bucket.take(60)
    bucket.refused(60, remaining=5)
    assert bucket.level() == pytest.approx(5)


def test_an_estimate_is_corrected_by_what_a_call_took(clock):
    bucket = Bucket(100, clock)
    bucket.take(60)
    bucket.give_back(20)
    assert bucket.level() == pytest.approx(60)
    bucket.give_back(-30)
    assert bucket.level() == pytest.approx(30)


# Rate limits


def test_a_call_waits_for_the_slower_of_requests_and_tokens(clock):
    limits = RateLimits(60, 6_000, clock)
    for _ in range(60):
        limits.take(10)
    assert limits.delay(10) == pytest.approx(1.0)
    limits.take(6_000)
    assert limits.delay(100) == pytest.approx((100 - (5_400 - 6_000)) * 60 / 6_000)


def test_a_pause_holds_everything_and_is_never_cut_short_by_a_shorter_one(clock):
    limits = RateLimits(clock=clock)
    assert limits.delay(1) == 0
    limits.pause(30)
    limits.pause(5)
    assert limits.delay(1) == pytest.approx(30)
    clock.sleep(30)
    assert limits.delay(1) == 0


def test_limits_are_learned_from_an_answers_headers(clock):
    limits = RateLimits(clock=clock)
    headers = limit_headers(
        limit_requests=500, remaining_requests=499, limit_tokens=200_000, remaining_tokens=199_000
    )
    limits.learn(limits.take(1_000), headers)
    assert limits.requests.per_minute == 500
    assert limits.tokens.per_minute == 200_000
    assert limits.requests.level() == pytest.approx(499)
    assert limits.tokens.level() == pytest.approx(199_000)


@pytest.mark.parametrize("value", ["", "many", "nan", "inf", "-inf", "-1", "0"])
def test_headers_that_are_no_limits_never_hold_calls_back(clock, value):
    limits = RateLimits(clock=clock)
    headers = limit_headers(limit_requests=value, limit_tokens=value)
    for _ in range(3):
        limits.learn(limits.take(100), headers)
    assert limits.delay(100) == 0
    assert limits.requests.level() == limits.tokens.level() == math.inf


def test_a_refused_call_has_taken_nothing(clock):
    limits = RateLimits(60, 6_000, clock)
    limits.take(500)
    limits.refused(500, {})
    assert limits.requests.level() == 60
    assert limits.tokens.level() == 6_000


# Calls in flight


def test_concurrency_doubles_each_round_until_the_first_refusal():
    concurrency = Concurrency()
    start = concurrency.limit
    for _ in range(start):
        concurrency.answered(1.0, busy=True)
    assert concurrency.limit == 2 * start
    concurrency.refused()
    assert concurrency.limit == start
    for _ in range(2 * start):
        concurrency.answered(1.0, busy=True)
    assert start < concurrency.limit <= start + 2


def test_a_round_of_refusals_halves_once():
    concurrency = Concurrency(64)
    for _ in range(16):
        concurrency.refused()
        concurrency.answered(1.0, busy=False)
    assert concurrency.limit == 32


def test_a_round_of_refusals_without_any_answer_between_them_halves_once():
    concurrency = Concurrency(64)
    for _ in range(20):
        concurrency.refused()
    assert concurrency.limit == 32


def test_when_nothing_is_answered_between_two_cuts_one_call_at_a_time_finds_out_what_goes():
    concurrency = Concurrency(64)
    for _ in range(64 + 1):
        concurrency.refused()
    assert concurrency.limit == 1


def test_a_refusal_after_a_slow_round_halves_and_does_not_stop_all_but_one():
    concurrency = Concurrency(100)
    while concurrency.limit == 100:
        concurrency.answered(5.0, busy=False)
    assert concurrency.limit == 90
    for _ in range(100):
        concurrency.answered(1.0, busy=False)
    before = concurrency.limit
    concurrency.refused()
    assert before // 2 <= concurrency.limit <= before


def test_an_unused_limit_does_not_grow():
    concurrency = Concurrency()
    start = concurrency.limit
    for _ in range(1_000):
        concurrency.answered(1.0, busy=False)
    assert concurrency.limit == start


def test_slow_answers_reduce_a_little_and_a_changed_pace_becomes_usual():
    concurrency = Concurrency(100)
    for _ in range(20):
        concurrency.answered(3.0, busy=True)
    assert 50 < concurrency.limit < 100
    for _ in range(3_000):
        concurrency.answered(3.0, busy=True)
    low = concurrency.limit
    for _ in range(10_000):
        concurrency.answered(3.0, busy=True)
    assert concurrency.limit > low or concurrency.limit == 100


events = st.lists(
    st.one_of(st.tuples(st.floats(0.1, 10), st.booleans()), st.just("refused")), max_size=300
)


@settings(deadline=None)
@given(st.one_of(st.none(), st.integers(1, 2_000)), events)
def test_concurrency_stays_between_one_and_the_most_and_grows_only_when_busy(most, events):
    concurrency = Concurrency(most)
    for event in events:
        before = concurrency.limit
        if event == "refused":
            concurrency.refused()
            assert concurrency.limit <= before
        else:
            slowness, busy = event
            concurrency.answered(slowness, busy=busy)
            assert concurrency.limit <= before + busy
        assert 1 <= concurrency.limit <= (most or 512)


# The circuit


def fail(circuit: Circuit, times: int) -> None:
    for _ in range(times):
        circuit.failed()


def test_the_circuit_opens_after_failures_in_a_row_and_closes_with_an_answer(clock):
    circuit = Circuit(300, clock)
    fail(circuit, 11)
    circuit.answered()
    fail(circuit, 11)
    assert not circuit.is_open
    assert circuit.delay() == 0
    circuit.failed()
    assert circuit.is_open
    assert circuit.delay() > 0
    circuit.answered()
    assert not circuit.is_open
    assert circuit.delay() == 0
    assert circuit.failing_for == 0


def test_pauses_grow_up_to_half_a_minute_and_start_anew_after_an_answer(clock):
    circuit = Circuit(1e9, clock)
    fail(circuit, 12)
    pauses = []
    for _ in range(8):
        pauses.append(circuit.delay())
        clock.sleep(circuit.delay())
        circuit.failed()
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])
    clock.sleep(circuit.delay())
    circuit.answered()
    fail(circuit, 12)
    assert circuit.delay() == pytest.approx(1)


def test_calls_that_fail_during_a_pause_do_not_make_it_longer(clock):
    circuit = Circuit(300, clock)
    fail(circuit, 12)
    clock.sleep(0.25)
    fail(circuit, 100)
    assert circuit.delay() == pytest.approx(0.75)


def test_the_circuit_is_exhausted_only_after_its_patience(clock):
    circuit = Circuit(300, clock)
    clock.sleep(10_000)
    assert not circuit.exhausted
    fail(circuit, 12)
    clock.sleep(300)
    assert circuit.failing_for == pytest.approx(300)
    assert not circuit.exhausted
    clock.sleep(1)
    assert circuit.exhausted
    circuit.answered()
    assert not circuit.exhausted
