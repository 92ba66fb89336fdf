"""A rule of the review policy is open only while a blind sample of people's answers backs it."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.review.policy import ReviewPolicy
from harmonizer_assets.core.review.tiers import Evidence, lower_bound, tier_state

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def events(*agrees: bool | None) -> list[Evidence]:
    return [
        Evidence(START + dt.timedelta(minutes=minute), one) for minute, one in enumerate(agrees)
    ]


@given(answers=st.integers(1, 400), share=st.floats(0, 1))
def test_the_bound_is_that_of_clopper_and_pearson(answers, share):
    agreeing = round(answers * share)
    exact = binomtest(agreeing, answers).proportion_ci(0.90, method="exact").low
    assert lower_bound(agreeing, answers) == pytest.approx(exact, abs=1e-9)


def test_59_answers_without_a_disagreement_open_a_rule_at_95_percent_and_58_do_not():
    assert not tier_state(events(*[True] * 58), 0.95).is_open
    assert tier_state(events(*[True] * 59), 0.95).is_open


def test_a_disagreement_closes_an_open_rule_until_somebody_reopens_it():
    opened = [True] * 60
    closed = tier_state(events(*opened, False), 0.95)
    assert (closed.is_open, closed.was_closed) == (False, True)
    assert not tier_state(events(*opened, False, *[True] * 500), 0.95).is_open
    reopened = tier_state(events(*opened, False, None), 0.95)
    assert (reopened.answers, reopened.is_open, reopened.was_closed) == (0, False, False)
    assert tier_state(events(*opened, False, None, *[True] * 59), 0.95).is_open


def test_a_disagreement_within_the_level_closes_nothing():
    assert tier_state(events(*[True] * 300, False), 0.95).is_open


@given(st.lists(st.sampled_from([True, True, True, False, None]), max_size=150))
def test_an_open_rule_always_has_a_bound_at_its_level(agrees):
    state = tier_state(events(*agrees), 0.8)
    assert not state.is_open or state.bound >= 0.8
    assert not (state.is_open and state.was_closed)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("rules: [{name: a, tier: single}]", "what no rule fits is single"),
        ("rules: [{name: a, tier: automatic, actions: [confirm]}]", "confirm needs a person"),
        ("rules: [{name: a, tier: sometimes}]", "rules.0.tier"),
        ("rules: [{name: a, tier: automatic}, {name: a, tier: by_kind}]", "two rules are called"),
        ("rules: [{name: a, tier: automatic, agreement: 1.5}]", "rules.0.agreement"),
        ("rule: []", "rule: Extra inputs"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_file_and_field(tmp_path, content, problem):
    home = Home(tmp_path / "home").ensure()
    home.review_policy.write_text(content)
    with pytest.raises(ConfigurationError, match=r"review\.yaml") as caught:
        ReviewPolicy.of_home(home)
    assert problem in str(caught.value)


def test_without_a_file_the_default_policy_holds(tmp_path):
    assert ReviewPolicy.of_home(Home(tmp_path)) == ReviewPolicy()
