from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.judge.llm.calls.estimates import Latency, OutputTokens, PromptTokens

# Latency


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 5), st.floats(0.002, 0.1), st.integers(0, 1_000))
def test_latency_recovers_the_two_parts_of_what_calls_take(first_token, per_token, seed):
    rng = random.Random(seed)
    latency = Latency()
    for _ in range(600):
        tokens = rng.randint(15, 900)
        latency.learn(tokens, first_token + per_token * tokens)
    assert latency.per_token == pytest.approx(per_token, rel=0.02)
    assert latency.first_token == pytest.approx(first_token, rel=0.05, abs=0.02)
    assert latency.seconds(200) == pytest.approx(first_token + per_token * 200, rel=0.02)


def test_latency_is_recovered_through_noise():
    rng = random.Random(1)
    latency = Latency()
    for _ in range(2_000):
        tokens = rng.randint(15, 900)
        latency.learn(tokens, (1.5 + 0.01 * tokens) * rng.uniform(0.9, 1.1))
    assert latency.per_token == pytest.approx(0.01, rel=0.2)
    assert latency.seconds(400) == pytest.approx(5.5, rel=0.1)


def test_latency_follows_an_endpoint_that_changes():
    latency = Latency()
    for pace in (0.01, 0.05):
        for number in range(600):
            tokens = 20 + number % 300
            latency.learn(tokens, 0.5 + pace * tokens)
        assert latency.per_token == pytest.approx(pace, rel=0.05)


def test_thousands_of_answers_of_one_length_do_not_make_other_lengths_unpredictable():
    rng = random.Random(1)
    latency = Latency()
    for _ in range(6_000):
        latency.learn(17, (0.5 + 17 / 60) * rng.uniform(0.8, 1.2))
        assert latency.seconds(17) == pytest.approx(0.78, rel=0.3)
        assert 1 / 240 < latency.per_token < 1 / 15


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 600)), max_size=200))
def test_latency_is_never_negative_whatever_is_measured(calls):
    latency = Latency()
    for tokens, seconds in calls:
        latency.learn(tokens, seconds)
        assert latency.per_token > 0
        assert latency.first_token >= 0
        assert latency.seconds(0) <= latency.seconds(1_000)


# Output tokens


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 60), st.integers(0, 60), st.integers(0, 1_000))
def test_the_tokens_of_valid_words_and_outliers_are_learned(valid, more, seed):
    rng = random.Random(seed)
    output = OutputTokens()
    for _ in range(800):
        words = rng.randint(1, 50)
        outliers = rng.randint(0, words)
        tokens = valid * (words - outliers) + (valid + more) * outliers
        output.learn(words - outliers, outliers, tokens, 0.5 * words)
    assert output.valid == pytest.approx(valid, rel=0.05)
    assert output.outlier == pytest.approx(valid + more, rel=0.05)


def test_the_share_of_outliers_scales_what_the_evidence_expects():
    careful, bold = OutputTokens(), OutputTokens()
    for _ in range(400):
        careful.learn(9, 1, 200, expected_outliers=5.0)
        bold.learn(5, 5, 300, expected_outliers=5.0)
    assert careful.chance(0.5) < 0.15
    assert bold.chance(0.5) == pytest.approx(0.5, abs=0.1)


counts = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9_000)))


@settings(deadline=None)
@given(counts, st.floats(0, 1), st.integers(1, 50))
def test_an_answer_is_never_cut_off_below_what_is_expected_of_it(answers, chance, words):
    output = OutputTokens()
    for valid, outliers, tokens in answers:
        output.learn(valid, outliers, tokens, 0.5 * (valid + outliers))
    assert output.limit(words) > words * output.expected(chance)
    assert output.limit(words) > words * output.outlier
    assert 0 <= output.chance(chance) <= 1
    assert output.valid <= output.expected(chance) <= output.outlier
    assert output.variance(chance) > 0


# Prompt tokens


@given(st.floats(0.1, 1.0), st.integers(1_000, 24_000))
def test_the_tokens_of_a_prompt_are_learned(per_byte, sent):
    prompt = PromptTokens()
    before = prompt.expected(1_000)
    assert before == pytest.approx(300)
    for _ in range(300):
        prompt.learn(sent, round(per_byte * sent))
    assert prompt.expected(5_000) == pytest.approx(per_byte * 5_000, rel=0.02)
    assert prompt.expected(0) == 0


def test_an_answer_that_was_cut_off_gives_the_next_ones_more_room():
    output = OutputTokens()
    before = output.limit(10)
    output.cut_off(10, before)
    assert output.limit(10) == pytest.approx(2 * before, abs=1)
    for _ in range(20):
        output.cut_off(10, output.limit(10))
    assert output.limit(10) < 100 * before


def test_calls_that_are_cut_off_together_raise_the_room_once():
    output = OutputTokens()
    before = output.limit(10)
    for _ in range(20):
        output.cut_off(10, before)
    assert output.limit(10) == pytest.approx(2 * before, abs=1)
