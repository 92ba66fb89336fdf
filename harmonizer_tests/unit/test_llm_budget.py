from __future__ import annotations

import datetime as dt
import socket
from importlib.metadata import version

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.judge.llm.money.budget import Budget
from harmonizer_assets.core.judge.llm.money.prices import Price, price_of

PRICE = Price(
    input=0.15, cached_input=0.075, output=0.6, as_of=dt.date(2024, 1, 1), source="a test"
)
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


def test_the_batch_api_has_rates_of_its_own(home):
    # The data know rates of the Batch API from this day on. For gpt-4o-mini they list none of
    # cached tokens: these cost what they cost at the standard tier, as much as all in a batch.
    price = price_of(home, "gpt-4o-mini", dt.date(2026, 10, 14))
    assert price is not None
    assert price.in_batch().cost(1_200, 300) == pytest.approx(price.cost(1_200, 300) / 2)
    assert price.in_batch().cost(1_200, 300, 600) == price.in_batch().cost(1_200, 300)
    reasoner = price_of(home, "gpt-5-mini", dt.date(2026, 10, 14))
    assert reasoner is not None
    half = reasoner.cost(1_200, 300, 600) / 2
    assert reasoner.in_batch().cost(1_200, 300, 600) == pytest.approx(half)
    assert PRICE.in_batch().cost(1_200, 300) == PRICE.cost(1_200, 300)


def test_the_factor_of_the_homes_file_holds_for_all_rates_of_a_batch(home):
    price_file(
        home,
        "models:\n  some-model:\n"
        "    - {from: 2020-01-01, input: 8, cached_input: 4, output: 2, batch: 0.5}\n",
    )
    price = price_of(home, "some-model")
    assert price is not None
    assert price.in_batch().cost(1_200, 300, 600) == pytest.approx(price.cost(1_200, 300, 600) / 2)


tokens = st.integers(0, 10**9)


@given(tokens, tokens, st.floats(0, 1))
def test_cached_tokens_never_make_a_call_dearer_and_nothing_has_a_negative_price(
    prompt, completion, cached
):
    cost = PRICE.cost(prompt, completion, int(cached * prompt))
    assert 0 <= cost <= PRICE.cost(prompt, completion) + 1e-9


@pytest.mark.parametrize(
    "model", ["home-made-model", "gpt-4o-mini-foo", "my-gpt-4o-mini", "gpt-5-minimal", ""]
)
def test_an_unknown_model_has_no_price(home, model):
    assert price_of(home, model) is None


# What the price file that the project once packaged said of them.
LISTED = {
    "gpt-4o-mini": (0.15, 0.075, 0.60),
    "gpt-4o": (2.50, 1.25, 10.00),
    "gpt-4.1": (2.00, 0.50, 8.00),
    "gpt-4.1-mini": (0.40, 0.10, 1.60),
    "gpt-4.1-nano": (0.10, 0.025, 0.40),
    "gpt-5": (1.25, 0.125, 10.00),
    "gpt-5-mini": (0.25, 0.025, 2.00),
    "gpt-5-nano": (0.05, 0.005, 0.40),
}


@pytest.mark.parametrize("model", LISTED)
def test_published_prices_are_those_that_the_project_used_to_list(home, model):
    price = price_of(home, model, dt.date(2026, 11, 1))
    assert price is not None
    assert (price.input, price.cached_input, price.output) == LISTED[model]
    assert price.in_batch().input == price.input / 2
    assert price.in_batch().output == price.output / 2


def test_a_dated_name_of_a_model_costs_what_the_model_costs(home):
    assert price_of(home, "gpt-4o-mini-2024-07-18") == price_of(home, "gpt-4o-mini")


def test_a_published_price_says_where_it_is_from_and_of_which_day(home):
    price = price_of(home, "gpt-4o-mini")
    assert price is not None
    assert price.note == f"genai-prices {version('genai-prices')}, as of {price.as_of}"
    assert dt.date(2026, 11, 1) <= price.as_of <= dt.datetime.now(dt.UTC).date()


@pytest.mark.parametrize(
    ("checked", "as_of"), [("checked: 2026-05-05\n", "2026-05-05"), ("", "2025-03-01")]
)
def test_a_price_of_the_homes_file_is_as_of_the_day_that_it_was_checked_or_began(
    home, checked, as_of
):
    price_file(home, checked + CHEAPER)
    price = price_of(home, "some-model", dt.date(2025, 4, 1))
    assert price is not None
    assert price.note == f"prices.yaml in the home, as of {as_of}"


def test_prices_are_looked_up_without_a_connection(home, monkeypatch):
    def refuse(*args: object) -> None:
        raise AssertionError("no price is worth a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert price_of(home, "gpt-4o-mini") is not None
    assert price_of(home, "home-made-model") is None


def test_a_provider_that_the_address_names_has_its_own_prices(home, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.groq.com/openai/v1")
    assert price_of(home, "gpt-4o-mini") is None
    assert price_of(home, "openai/gpt-oss-120b") is not None
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8099/v1")
    assert price_of(home, "gpt-4o-mini") is not None


def test_a_model_that_is_not_paid_by_text_tokens_has_no_price(home):
    assert price_of(home, "whisper-1") is None


def test_a_reservation_covers_what_the_provider_takes_for_writing_its_cache(home):
    price = price_of(home, "gpt-5.6-cyber", dt.date(2026, 11, 1))
    assert price is not None
    assert price.cache_write == 1.25 * price.input
    reservation = Budget(NO_LIMIT, 1.0, price, "gpt-5.6-cyber").reserve(1_000, 100)
    assert reservation is not None
    assert reservation.usd == price.cost(1_000, 100, written_tokens=1_000) > price.cost(1_000, 100)


def test_prices_of_longer_prompts_than_are_ever_sent_do_not_count(home):
    price = price_of(home, "gpt-5.4", dt.date(2026, 11, 1))
    assert price is not None
    # From 272,000 tokens of prompt on it costs 5 and 22.5.
    assert (price.input, price.output) == (2.5, 15)


@pytest.mark.parametrize(("day", "input_price"), [("2026-07-29", 1.0), ("2026-07-30", 0.2)])
def test_a_published_price_counts_from_its_day_on(home, day, input_price):
    price = price_of(home, "gpt-5.6-luna", dt.date.fromisoformat(day))
    assert price is not None
    assert price.input == input_price


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
    assert mini.input == mini.in_batch().input == 9
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
