from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from harmonizer_assets.core.errors import ConfigurationError
from harmonizer_assets.core.llm.budget import Budget
from harmonizer_assets.core.llm.prices import Price, price_of

PRICE = Price(**{"from": dt.date(2024, 1, 1)}, input=0.15, cached_input=0.075, output=0.6)
NO_LIMIT = None


def price_file(home, content: str) -> None:
    home.prices.write_text(content, encoding="utf-8")


# The budget


class Spending(RuleBasedStateMachine):
    """Calls reserve, and are then settled, forfeited or released, in any order."""

    MAX_TOKENS, MAX_USD = 20_000, 0.004

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(self.MAX_TOKENS, self.MAX_USD, PRICE, "some-model")
        self.in_flight: list = []

    @rule(prompt=st.integers(1, 9_000), completion=st.integers(1, 3_000))
    def reserve(self, prompt, completion):
        budget = self.budget
        tokens = budget.spent_tokens + budget.reserved_tokens + prompt + completion
        usd = budget.spent_usd + budget.reserved_usd + PRICE.cost(prompt, completion)
        reservation = budget.reserve(prompt, completion)
        if reservation is None:
            assert tokens > self.MAX_TOKENS or usd > self.MAX_USD
        else:
            self.in_flight.append((reservation, prompt, completion))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), share=st.floats(0, 1), cached=st.floats(0, 1))
    def settle(self, data, share, cached):
        reservation, prompt, completion = self._land(data)
        prompt, completion = int(share * prompt), int(share * completion)
        cost = PRICE.cost(prompt, completion, int(cached * prompt))
        self.budget.settle(reservation, prompt + completion, cost)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def forfeit(self, data):
        before = self.budget.spent_tokens, self.budget.spent_usd
        reservation, _, _ = self._land(data)
        self.budget.forfeit(reservation)
        assert self.budget.spent_tokens == before[0] + reservation.tokens
        assert self.budget.spent_usd == pytest.approx(before[1] + reservation.usd)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def release(self, data):
        before = self.budget.spent_tokens, self.budget.spent_usd
        self.budget.release(self._land(data)[0])
        assert (self.budget.spent_tokens, self.budget.spent_usd) == before

    def _land(self, data):
        return self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))

    @invariant()
    def what_is_spent_and_reserved_is_within_the_limits(self):
        budget = self.budget
        assert budget.spent_tokens + budget.reserved_tokens <= self.MAX_TOKENS
        assert budget.spent_usd + budget.reserved_usd <= self.MAX_USD + 1e-9
        assert budget.reserved_tokens == sum(one.tokens for one, _, _ in self.in_flight)
        reserved = sum(one.usd for one, _, _ in self.in_flight)
        assert budget.reserved_usd == pytest.approx(reserved, abs=1e-9)

    def teardown(self):
        for reservation, _, _ in self.in_flight:
            self.budget.release(reservation)
        assert self.budget.reserved_tokens == 0
        assert self.budget.reserved_usd == pytest.approx(0, abs=1e-9)


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=50, deadline=None)


def test_a_budget_in_usd_for_a_model_without_a_price_is_a_clear_error():
    with pytest.raises(ConfigurationError) as error:
        Budget(NO_LIMIT, 1.0, None, "home-made-model")
    assert "'home-made-model'" in str(error.value)
    assert "prices.yaml" in str(error.value)
    assert "budget in tokens" in str(error.value)


def test_a_budget_in_tokens_needs_no_price():
    budget = Budget(100, NO_LIMIT, None, "home-made-model")
    assert budget.reserve(60, 40) is not None
    assert budget.reserve(1, 0) is None


def test_without_limits_everything_fits_and_is_counted():
    budget = Budget(NO_LIMIT, NO_LIMIT, None, "home-made-model")
    reservation = budget.reserve(10**9, 10**9)
    assert reservation is not None
    budget.settle(reservation, 12, None)
    assert (budget.spent_tokens, budget.spent_usd, budget.reserved_tokens) == (12, 0.0, 0)


@pytest.mark.parametrize(("max_tokens", "max_usd"), [(0, NO_LIMIT), (NO_LIMIT, 0.0)])
def test_a_budget_of_nothing_buys_nothing(max_tokens, max_usd):
    assert Budget(max_tokens, max_usd, PRICE, "some-model").reserve(1, 1) is None


def test_a_call_of_exactly_what_is_left_fits():
    budget = Budget(100, NO_LIMIT, PRICE, "some-model")
    assert budget.reserve(50, 50) is not None


def test_a_reservation_that_does_not_fit_leaves_nothing_behind():
    budget = Budget(100, NO_LIMIT, PRICE, "some-model")
    assert budget.reserve(101, 0) is None
    assert (budget.reserved_tokens, budget.reserved_usd) == (0, 0.0)


def test_a_reservation_covers_a_prompt_that_costs_more_where_it_is_cached():
    dear = PRICE.model_copy(update={"cached_input": 2 * PRICE.input})
    reservation = Budget(NO_LIMIT, 1.0, dear, "some-model").reserve(1_000, 100)
    assert reservation is not None
    assert reservation.usd >= dear.cost(1_000, 100, cached_tokens=1_000)


# Prices


def test_the_price_of_a_call_by_hand(home):
    price = price_of(home, "gpt-4o-mini", dt.date(2025, 1, 1))
    assert price is not None
    # 0.15, 0.075 and 0.60 USD for a million tokens of prompt, of cached prompt and of answer.
    assert price.cost(1_000_000, 1_000_000) == pytest.approx(0.75)
    assert price.cost(1_200, 300) == pytest.approx(0.00018 + 0.00018)
    assert price.cost(1_200, 300, cached_tokens=1_000) == pytest.approx(
        0.00003 + 0.000075 + 0.00018
    )


def test_the_batch_api_has_a_factor_of_its_own(home):
    price = price_of(home, "gpt-4o-mini", dt.date(2025, 1, 1))
    assert price is not None
    assert price.in_batch().cost(1_200, 300, 600) == pytest.approx(price.cost(1_200, 300, 600) / 2)
    assert PRICE.in_batch().cost(1_200, 300) == PRICE.cost(1_200, 300)


tokens = st.integers(0, 10**9)


@given(tokens, tokens, st.floats(0, 1))
def test_cached_tokens_never_make_a_call_dearer_and_nothing_has_a_negative_price(
    prompt, completion, cached
):
    cost = PRICE.cost(prompt, completion, int(cached * prompt))
    assert 0 <= cost <= PRICE.cost(prompt, completion) + 1e-9


def test_an_unknown_model_has_no_price(home):
    assert price_of(home, "home-made-model") is None


CHEAPER = """
models:
  some-model:
    - {from: 2026-03-01, input: 1, cached_input: 1, output: 1}
    - {from: 2025-03-01, input: 2, cached_input: 2, output: 2}
"""


@pytest.mark.parametrize(
    ("day", "input_price"),
    [("2025-02-28", None), ("2025-03-01", 2), ("2026-02-28", 2), ("2026-03-01", 1)],
)
def test_a_price_counts_from_its_day_on_whatever_the_order_in_the_file(home, day, input_price):
    price_file(home, CHEAPER)
    price = price_of(home, "some-model", dt.date.fromisoformat(day))
    assert (price.input if price else None) == input_price


def test_the_homes_file_replaces_the_models_that_it_names_and_no_others(home):
    before = price_of(home, "gpt-4o")
    price_file(
        home,
        "models:\n  gpt-4o-mini:\n    - {from: 2020-01-01, input: 9, cached_input: 9, output: 9}\n",
    )
    mini = price_of(home, "gpt-4o-mini")
    assert mini is not None
    assert (mini.input, mini.batch) == (9, 1)
    assert price_of(home, "gpt-4o") == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("models: [", "not valid YAML"),
        ("", "expected a mapping"),
        ("- a", "expected a mapping"),
        ("model: {}", "models"),
        ("models: {m: 3}", "models.m"),
        ("models: {m: [{input: 1, cached_input: 1, output: 1}]}", "models.m.0.from"),
        (
            "models: {m: [{from: soon, input: 1, cached_input: 1, output: 1}]}",
            "models.m.0.from",
        ),
        (
            "models: {m: [{from: 2024-01-01, input: -1, cached_input: 1, output: 1}]}",
            "models.m.0.input",
        ),
        (
            "models: {m: [{from: 2024-01-01, input: .inf, cached_input: 1, output: 1}]}",
            "models.m.0.input",
        ),
        (
            "models: {m: [{from: 2024-01-01, input: 1, cached_input: 1, output: .nan}]}",
            "models.m.0.output",
        ),
        (
            "models: {m: [{from: 2024-01-01, input: 1, cached_input: 1, output: 1, batch: 2}]}",
            "models.m.0.batch",
        ),
        (
            "models: {m: [{from: 2024-01-01, input: 1, cached_input: 1, output: 1, inptu: 2}]}",
            "models.m.0.inptu",
        ),
    ],
)
def test_a_malformed_price_file_is_refused_with_its_name_and_the_field(home, content, complaint):
    price_file(home, content)
    with pytest.raises(ConfigurationError) as error:
        price_of(home, "some-model")
    assert str(home.prices) in str(error.value)
    assert complaint in str(error.value)


def test_a_price_file_that_is_no_text_is_refused_with_its_name(home):
    home.prices.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read") as error:
        price_of(home, "some-model")
    assert str(home.prices) in str(error.value)
