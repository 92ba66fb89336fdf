from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from harmonizer_assets.core.judge.llm.calls.packing import MAX_PROMPT_BYTES, Call, Packer
from harmonizer_assets.core.judge.llm.calls.sizing import MAX_CALL_WORDS, Load, words_per_call
from harmonizer_assets.core.judge.llm.calls.work import PartitionWork
from harmonizer_assets.core.judge.llm.wire.prompt import Ask
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_tests.support.asks import asks, prompts, question

PROMPTS = prompts()
TYPES = ("DATE", "TIME", "TAX", "COUPON")
_serial = count()


def partition(words: list[str], label: str = "DATE", merchant: str = "Shop") -> PartitionWork:
    """A partition of its own; its words are told apart by nothing but identity."""
    key = f"shop-{next(_serial):08x}"
    parts = [question(word, n, label, merchant_key=key) for n, word in enumerate(words)]
    named = [replace(part, merchant_name=merchant) for part in parts]
    return PartitionWork(PartitionKey(label, key), asks(*named, by=PROMPTS))


def packer(label_types: int = 5, lanes: int = 10, calls: int = 20) -> Packer:
    return Packer(label_types, lanes, calls)


def take(packer: Packer, words: int = MAX_CALL_WORDS, now: float = 0.0) -> Call:
    call = packer.next(words, now)
    assert call is not None
    packer.started(call)
    return call


def take_all(packer: Packer, words: int = MAX_CALL_WORDS, now: float = 0.0) -> list[Call]:
    """Every call there is, each of which ends before the next is taken."""
    taken = []
    while packer.has_word(now):
        taken.append(take(packer, words, now))
        packer.ended(taken[-1])
    return taken


def assert_sound(call: Call) -> None:
    assert 1 <= len(call.asks) <= MAX_CALL_WORDS
    assert {ask.head.label_type for ask in call.asks} == {call.lane.label_type}
    if len(call.asks) > 1:
        assert not any(ask.alone for ask in call.asks)
        messages, _ = PROMPTS.messages(call.asks)
        assert len(messages[-1]["content"].encode()) <= MAX_PROMPT_BYTES


# Packing

plain_words = st.sampled_from(["14:05", "TOTAL", "3.50", "é" * 30, "総計" * 8])
hostile_words = st.sampled_from(["two words", "x" * 200, '{"id":"1"}', "ignore"])
words_of_a_partition = st.lists(
    st.one_of(plain_words, plain_words, plain_words, hostile_words), min_size=1, max_size=120
)
few_words = st.lists(st.just("14:05"), min_size=1, max_size=12)
partitions = st.lists(
    st.tuples(words_of_a_partition, st.sampled_from(TYPES), st.sampled_from(["Shop", "Ω" * 60])),
    min_size=1,
    max_size=8,
)


class Packing(RuleBasedStateMachine):
    """Partitions arrive, calls are sent, held back, answered, refused and halved, in any order.

    As the scheduler does, one call at most is held between being taken and being sent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.knobs = (2, 2, 2)
        self.packer = packer(*self.knobs)
        self.put: list[Ask] = []
        self.done: list[Ask] = []
        self.held: Call | None = None
        self.in_flight: list[Call] = []
        self.new: set[int] = set()

    @rule(
        words=st.one_of(few_words, few_words, few_words, words_of_a_partition),
        label=st.sampled_from([*TYPES[:3], *TYPES[:1] * 3]),
        merchant=st.sampled_from(["Shop", "Ω" * 60]),
    )
    def add(self, words, label, merchant):
        work = partition(words, label, merchant)
        self.packer.add(work)
        self.put.extend(work.asks)

    @precondition(lambda self: self.held is None)
    @rule(words=st.one_of(st.just(MAX_CALL_WORDS), st.integers(1, MAX_CALL_WORDS)))
    def take(self, words):
        due = self.packer.next_retry()
        is_retry = due is not None and due <= self.now
        has_word = self.packer.has_word(self.now)
        self.held = self.packer.next(words, self.now)
        assert (self.held is not None) == has_word
        if self.held is not None:
            assert_sound(self.held)
            if not is_retry:
                assert len(self.held.asks) <= words
                self.new.add(id(self.held))
                self.assert_within_knobs()

    @precondition(lambda self: self.held is not None)
    @rule()
    def send(self):
        self.packer.started(self.held)
        self.in_flight.append(self.held)
        self.held = None

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def answer(self, data):
        call = self._land(data)
        self.done.extend(call.asks)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), pause=st.sampled_from([0, 0, 1]))
    def fail(self, data, pause):
        call = self._land(data)
        self.packer.retry(call, self.now + pause)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def answer_some(self, data):
        call = self._land(data)
        answered = data.draw(st.integers(0, len(call.asks) - 1))
        self.done.extend(call.asks[:answered])
        self.packer.retry(Call(call.asks[answered:], call.lane), self.now)

    @precondition(lambda self: any(len(call.asks) > 1 for call in self.in_flight))
    @rule(data=st.data())
    def split(self, data):
        call = self._land(data, at_least=2)
        self.packer.split(call, self.now)

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds):
        self.now += seconds

    def _land(self, data, at_least: int = 1) -> Call:
        large = [call for call in self.in_flight if len(call.asks) >= at_least]
        call = data.draw(st.sampled_from(large))
        self.in_flight.remove(call)
        self.packer.ended(call)
        self.new.discard(id(call))
        return call

    def assert_within_knobs(self) -> None:
        """Calls of new words; retries are not held back, but they are not new words."""
        label_types, lanes, calls = self.knobs
        sent = [*self.in_flight, *([self.held] if self.held else [])]
        new = [call for call in sent if id(call) in self.new]
        assert len({call.lane.label_type for call in new}) <= label_types
        open_lanes = {id(call.lane): call.lane.label_type for call in new}
        assert max(Counter(open_lanes.values()).values()) <= lanes
        assert max(Counter(id(call.lane) for call in new).values()) <= calls

    @invariant()
    def the_counters_tell_what_waits(self):
        away = [ask for call in self.in_flight for ask in call.asks]
        away += self.held.asks if self.held else []
        gone = {id(ask) for ask in (*away, *self.done)}
        waiting = [ask for ask in self.put if id(ask) not in gone]
        assert self.packer.words == len(waiting)
        assert self.packer.bytes == sum(ask.size for ask in waiting)
        assert self.packer.chances == pytest.approx(sum(ask.chance for ask in waiting), abs=1e-6)

    def teardown(self):
        if self.held is not None:
            self.send()
        for call in self.in_flight:
            self.packer.ended(call)
            self.done.extend(call.asks)
        for call in take_all(self.packer, now=self.now + 10):
            self.done.extend(call.asks)
        assert Counter(map(id, self.done)) == Counter(map(id, self.put))
        assert self.packer.words == self.packer.bytes == 0
        assert self.packer.chances == pytest.approx(0, abs=1e-6)
        assert self.packer.next(MAX_CALL_WORDS, self.now + 10) is None


TestPacking = Packing.TestCase
TestPacking.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


@settings(max_examples=50, deadline=None)
@given(partitions, st.integers(1, MAX_CALL_WORDS))
def test_every_word_comes_out_exactly_once_whatever_the_sizes(parts, words):
    waiting = packer()
    put = []
    for texts, label, merchant in parts:
        work = partition(texts, label, merchant)
        put.extend(work.asks)
        waiting.add(work)
    taken = take_all(waiting, words)
    for call in taken:
        assert_sound(call)
        assert len(call.asks) <= words
    assert Counter(id(ask) for call in taken for ask in call.asks) == Counter(map(id, put))


def test_a_small_partition_that_arrives_while_a_retry_of_its_label_type_is_sent_is_not_lost():
    waiting = packer()
    waiting.add(partition(["a", "b"]))
    first = take(waiting)
    waiting.ended(first)
    waiting.retry(first, 0.0)
    again = take(waiting)
    waiting.add(partition(["c"]))
    waiting.ended(again)
    [late] = take_all(waiting)
    assert [ask.word_text for ask in late.asks] == ["c"]
    assert waiting.words == 0


def test_a_call_that_is_held_keeps_its_lane_open_when_it_is_sent():
    waiting = packer(label_types=1, lanes=1, calls=2)
    waiting.add(partition(["a"] * 20))
    waiting.add(partition(["b"] * 20))
    first = take(waiting, 10)
    held = waiting.next(10, 0.0)
    assert held is not None
    waiting.ended(first)
    waiting.started(held)
    assert waiting.next(10, 0.0) is None
    waiting.ended(held)
    assert waiting.next(10, 0.0) is not None


def test_small_partitions_of_one_label_type_share_a_call_and_large_ones_do_not():
    waiting = packer()
    for _ in range(3):
        waiting.add(partition(["a"] * 3))
    waiting.add(partition(["b"] * 10))
    waiting.add(partition(["c"] * 3, "TIME"))
    sizes = sorted((len(call.asks), call.lane.label_type) for call in take_all(waiting))
    assert sizes == [(3, "TIME"), (9, "DATE"), (10, "DATE")]


def test_calls_are_even_instead_of_full_ones_and_a_remainder():
    waiting = packer()
    waiting.add(partition(["a"] * 52))
    assert [len(call.asks) for call in take_all(waiting, 50)] == [26, 26]


def test_a_prompt_of_large_words_is_cut_before_it_gets_too_long():
    waiting = packer()
    long_row = " ".join(["Ω" * 30] * 2)
    key = "shop-00000002"
    parts = [
        question("Ω" * 32, n, merchant_key=key, left=long_row, right=long_row) for n in range(50)
    ]
    waiting.add(PartitionWork(PartitionKey("DATE", key), asks(*parts, by=PROMPTS)))
    sizes = []
    for call in take_all(waiting):
        messages, _ = PROMPTS.messages(call.asks)
        sizes.append(len(messages[-1]["content"].encode()))
    assert len(sizes) > 1 or max(sizes) <= MAX_PROMPT_BYTES
    assert max(sizes) <= MAX_PROMPT_BYTES


def test_long_names_of_the_merchants_that_share_a_call_count_towards_its_length():
    waiting = packer()
    for number in range(30):
        name = f"{number:02}" + "漢" * 58
        row = {"merchant_name": name, "left": "漢" * 32, "right": "漢" * 32}
        parts = [question("漢" * 32, n, merchant_key=f"shop-{number}", **row) for n in range(9)]
        waiting.add(PartitionWork(PartitionKey("DATE", f"shop-{number}"), asks(*parts, by=PROMPTS)))
    for call in take_all(waiting):
        assert_sound(call)


# Retries and splits


def test_a_retry_waits_until_it_is_due_and_goes_before_new_words():
    waiting = packer()
    waiting.add(partition(["a"] * 20))
    first = take(waiting, 10)
    waiting.ended(first)
    waiting.retry(first, 5.0)
    assert waiting.next_retry() == 5.0
    second = take(waiting, 10, now=4.9)
    assert second is not first
    assert not waiting.has_word(4.9)
    assert waiting.next(10, 4.9) is None
    assert take(waiting, 10, now=5.0) is first


@pytest.mark.parametrize("words", range(1, MAX_CALL_WORDS + 1))
def test_the_word_that_spoils_a_call_stands_alone_after_the_logarithm_of_its_size(words):
    for spoiler in {0, words // 2, words - 1}:
        waiting = packer()
        work = partition(["a"] * words)
        waiting.add(work)
        splits = calls = 0
        for _ in range(10 * words):
            if not waiting.has_word(0.0):
                break
            call = take(waiting)
            waiting.ended(call)
            calls += 1
            if work.asks[spoiler] in call.asks and len(call.asks) > 1:
                waiting.split(call, 0.0)
                splits += 1
        assert waiting.words == 0
        assert splits <= math.ceil(math.log2(words))
        assert calls == 1 + 2 * splits


def test_draining_gives_up_every_word_that_no_call_holds():
    waiting = packer(label_types=1)
    work, other = partition(["a"] * 30), partition(["b"] * 5, "TIME")
    waiting.add(work)
    waiting.add(other)
    sent, failed = take(waiting, 10), take(waiting, 10)
    waiting.ended(failed)
    waiting.retry(failed, 99.0)
    left = waiting.drain()
    expected = [ask for ask in (*work.asks, *other.asks) if ask not in sent.asks]
    assert Counter(map(id, left)) == Counter(map(id, expected))
    assert waiting.words == waiting.bytes == 0
    assert waiting.next_retry() is None
    assert not waiting.has_word(100.0)
    late = partition(["c"] * 5, "TIME")
    waiting.add(late)
    waiting.ended(sent)
    assert [call.asks for call in take_all(waiting)] == [list(late.asks)]


# The knobs


@pytest.mark.parametrize(
    ("knobs", "most"), [((1, 1, 1), 1), ((1, 1, 3), 3), ((1, 2, 3), 6), ((2, 2, 3), 12)]
)
def test_as_many_calls_are_in_flight_as_the_knobs_allow_and_no_more(knobs, most):
    waiting = packer(*knobs)
    for label in TYPES:
        for _ in range(3):
            waiting.add(partition(["a"] * 40, label))
    assert waiting.reach().calls == most
    in_flight = []
    while waiting.has_word(0.0):
        in_flight.append(take(waiting, 2))
    assert len(in_flight) == most
    waiting.ended(in_flight.pop())
    assert waiting.has_word(0.0)


# The size of a call

positive = st.floats(1e-3, 1e6)
loads = st.builds(
    Load,
    slots=st.integers(1, 2_000),
    busy_until=st.lists(st.floats(0, 600), max_size=40),
    words=st.integers(1, 1_000_000),
    tokens=st.floats(1, 1e8),
    mean_tokens=st.floats(4, 500),
    variance=st.floats(0, 1e5),
    first_token=st.floats(0, 60),
    per_token=st.floats(1e-4, 10),
    head_cost=positive,
    word_cost=positive,
    token_seconds=st.floats(0, 1e6),
    calls_left=st.one_of(st.floats(0, 1e5), st.just(math.inf)),
    calls_per_second=st.floats(0, 1e3),
)


@given(st.sampled_from(["fast", "cheap"]), loads)
def test_a_call_holds_between_one_word_and_the_most(profile, load):
    assert 1 <= words_per_call(profile, load) <= MAX_CALL_WORDS


def load(words: int = 1_000, slots: int = 100, **more: float) -> Load:
    parts = {
        "busy_until": [],
        "tokens": words * 15.0,
        "mean_tokens": 15.0,
        "variance": 0.0,
        "first_token": 0.5,
        "per_token": 0.02,
        "head_cost": 300.0,
        "word_cost": 100.0,
    }
    return Load(slots=slots, words=words, **(parts | more))  # type: ignore[arg-type]


@given(st.integers(1, 5_000), st.integers(1, 75))
def test_fast_gives_each_slot_its_share_where_all_answers_are_equally_long(words, slots):
    expected = min(MAX_CALL_WORDS, max(1, words / slots))
    assert words_per_call("fast", load(words, slots)) == pytest.approx(expected, abs=0.51)


def test_fast_makes_no_more_calls_than_a_client_can_carry():
    assert words_per_call("fast", load(2_000, 200)) == 10
    assert words_per_call("fast", load(2_000, 2_000)) > 2


def test_fast_makes_first_calls_shorter_where_answers_vary():
    even, uneven = load(2_000), load(2_000, variance=900.0, first_token=0.01)
    assert words_per_call("fast", uneven) < words_per_call("fast", even)


def test_fast_leaves_less_for_slots_that_are_free_sooner_than_others():
    free = load(100, 10)
    busy = load(100, 10, busy_until=[0.5] * 9)  # type: ignore[arg-type]
    assert words_per_call("fast", free) == 10
    assert words_per_call("fast", busy) > 10


def test_fast_makes_large_calls_where_requests_are_what_is_short():
    assert words_per_call("fast", load(200, 100)) == 2
    assert words_per_call("fast", load(200, 100, calls_left=10)) == 20
    assert words_per_call("fast", load(200, 100, calls_left=0)) == MAX_CALL_WORDS


def test_fast_shares_prompts_where_tokens_per_minute_are_what_is_short():
    bound = load(200, 100, token_seconds=600)
    assert words_per_call("fast", bound) > words_per_call("fast", load(200, 100))


@given(positive, positive, st.floats(1, 100))
def test_cheap_makes_calls_larger_the_more_the_shared_prompt_costs(head, word, factor):
    small = words_per_call("cheap", load(head_cost=head, word_cost=word))
    large = words_per_call("cheap", load(head_cost=factor * head, word_cost=word))
    assert small <= large


def test_cheap_makes_the_shared_prompt_a_tenth_of_the_cost():
    assert words_per_call("cheap", load(head_cost=300, word_cost=100)) == 30
    assert words_per_call("cheap", load(head_cost=3_000, word_cost=100)) == MAX_CALL_WORDS
    assert words_per_call("cheap", load(head_cost=1, word_cost=100)) == 1


def test_the_documents_of_packed_calls_are_json_with_all_words():
    waiting = packer()
    waiting.add(partition(["a"] * 60))
    for call in take_all(waiting, 25):
        messages, ids = PROMPTS.messages(call.asks)
        document = json.loads(messages[-1]["content"])
        assert [item["id"] for item in document["items"]] == ids
        assert len(ids) == len(call.asks)
