"""Prices of models: from the package `genai-prices`, and from the home's own file on top.

`genai-prices` (https://github.com/pydantic/genai-prices) collects what providers publish. Only the
data that is installed with it is read; nothing is fetched. Its data have no date of their own; the
latest start date of a price in them, up to today, is used instead: they are about as recent as
that, unless a provider had announced the price before. A newer version of the package
brings newer prices; `HOME/prices.yaml` replaces single models at once.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.base.config_files import load_config
from harmonizer_assets.core.base.home import Home

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice

_MILLION = 1_000_000
_PACKAGE: Final = "genai-prices"
_DEFAULT_PROVIDER: Final = "openai"
_IN_BATCH: Final = {"processing": "batch"}
_LONGEST_PROMPT_TOKENS: Final = 100_000
"""No prompt is longer; prices for longer ones do not matter."""


class Rates(BaseModel):
    """USD per million tokens.

    Attributes:
        input: of a prompt.
        cached_input: of the part of a prompt that is in the provider's cache.
        output: of an answer.
        cache_write: of the part of a prompt that goes into the provider's cache, where that costs
            more than the prompt itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0)
    cached_input: float = Field(ge=0)
    output: float = Field(ge=0)
    cache_write: float | None = Field(default=None, ge=0)

    def cost(
        self,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int = 0,
        written_tokens: int = 0,
    ) -> float:
        """Return the USD that a call costs.

        Args:
            prompt_tokens: all of the prompt.
            completion_tokens: of the answer.
            cached_tokens: of the prompt, that the provider had in its cache.
            written_tokens: of the prompt, that it has put there.
        """
        written = self.input if self.cache_write is None else self.cache_write
        fresh = max(0, prompt_tokens - cached_tokens - written_tokens)
        return (
            fresh * self.input
            + cached_tokens * self.cached_input
            + written_tokens * written
            + completion_tokens * self.output
        ) / _MILLION

    def most(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the USD that a call costs at most, whatever the provider's cache does."""
        return max(
            self.cost(prompt_tokens, completion_tokens, cached, written)
            for cached, written in ((0, 0), (prompt_tokens, 0), (0, prompt_tokens))
        )


class Price(Rates):
    """The price of a model, at the standard tier, with its source.

    Attributes:
        batch: the rates of the Batch API; None where it costs the same.
        as_of: the date of the price data.
        source: of the price, for people.
    """

    batch: Rates | None = None
    as_of: dt.date
    source: str

    @property
    def note(self) -> str:
        """Return source and date, for display beside a cost."""
        return f"{self.source}, as of {self.as_of}"

    def in_batch(self) -> Price:
        """Return the price through the Batch API."""
        return self if self.batch is None else self.model_copy(update=self.batch.model_dump())


class _FilePrice(BaseModel):
    """A price in `HOME/prices.yaml`, from a day on; `batch` is the Batch API's factor."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    since: dt.date = Field(alias="from")
    input: float = Field(ge=0)
    cached_input: float = Field(ge=0)
    output: float = Field(ge=0)
    batch: float = Field(default=1.0, gt=0, le=1)

    def price(self, checked: dt.date | None) -> Price:
        rates = {"input": self.input, "cached_input": self.cached_input, "output": self.output}
        return Price(
            **rates,
            batch=Rates(**{name: rate * self.batch for name, rate in rates.items()}),
            as_of=checked or self.since,
            source="prices.yaml in the home",
        )


class HomePrices(BaseModel):
    """`HOME/prices.yaml`: prices by model, with their source and the day they were checked."""

    model_config = ConfigDict(extra="forbid")

    models: Mapping[str, list[_FilePrice]]
    source: str = ""
    checked: dt.date | None = None


def price_of(
    home: Home, model: str, on: dt.date | None = None, *, embeds: bool = False
) -> Price | None:
    """Find the price of a model on a day, today by default; None when there is none.

    A model that `HOME/prices.yaml` names is looked up there and nowhere else. All others are those
    of the provider that OPENAI_BASE_URL names, or of OpenAI where the address belongs to none.

    Args:
        home: whose file of prices counts first.
        model: its name.
        on: the day, today by default.
        embeds: whether the model embeds texts, so that no rate of answers is needed.

    Raises:
        ConfigurationError: the home's `prices.yaml` is not usable.
    """
    day = on or utc_now().date()
    own = _home_file(home.prices)
    if own is None or model not in own.models:
        return _published(model, day, embeds=embeds)
    begun = [price for price in own.models[model] if price.since <= day]
    latest = max(begun, key=lambda price: price.since, default=None)
    return latest.price(own.checked) if latest else None


def _published(model: str, day: dt.date, *, embeds: bool) -> Price | None:
    """Find a model in the data of `genai-prices`."""
    found = _find(model)
    if found is None:
        return None
    at = dt.datetime.combine(day, dt.time(12), dt.UTC)
    standard = _rates(found.get_prices(at), embeds=embeds)
    if standard is None:
        return None
    return Price(
        **standard.model_dump(),
        batch=_rates(found.get_prices(at, _IN_BATCH), embeds=embeds),
        as_of=_data_date(utc_now().date()),
        source=f"{_PACKAGE} {version(_PACKAGE)}",
    )


@cache
def _snapshot() -> DataSnapshot:
    """Return the installed data, even if another user of the package has fetched newer ones."""
    from genai_prices.data import providers
    from genai_prices.data_snapshot import DataSnapshot

    return DataSnapshot(providers=providers, from_auto_update=False)


def _find(model: str) -> ModelInfo | None:
    snapshot = _snapshot()
    try:
        provider = snapshot.find_provider(None, None, os.environ.get("OPENAI_BASE_URL") or "")
    except LookupError:
        provider = snapshot.find_provider(None, _DEFAULT_PROVIDER, None)
    try:
        return snapshot.find_provider_model(model, provider, None, None)[1]
    except LookupError:
        return None


def _rates(prices: ModelPrice, *, embeds: bool) -> Rates | None:
    """Read the rates of text tokens; None for a model that is not paid by them alone."""
    standard = _rate(prices.input_mtok)
    # A model that embeds puts out no tokens.
    output = 0.0 if embeds else _rate(prices.output_mtok)
    if standard is None or output is None or prices.requests_kcount is not None:
        return None
    cached, written = _rate(prices.cache_read_mtok), _rate(prices.cache_write_mtok)
    return Rates(
        input=standard,
        cached_input=standard if cached is None else cached,
        output=output,
        cache_write=written,
    )


def _rate(value: Any) -> float | None:
    """Return USD per million tokens, the dearest of the tiers that a prompt can reach."""
    if value is None or not hasattr(value, "tiers"):
        return None if value is None else float(value)
    tiers = [tier.price for tier in value.tiers if tier.start <= _LONGEST_PROMPT_TOKENS]
    return float(max([value.base, *tiers]))


@cache
def _data_date(today: dt.date) -> dt.date:
    """Return the latest start date of a price in the data, up to today."""
    return max(day for day in _start_dates() if day <= today)


def _start_dates() -> Iterator[dt.date]:
    from genai_prices.types import StartDateConstraint

    for provider in _snapshot().providers:
        for model in provider.models:
            dated = model.prices if isinstance(model.prices, list) else []
            for part in (*dated, *(model.price_variants or ())):
                if isinstance(part.constraint, StartDateConstraint):
                    yield part.constraint.start_date


def _home_file(path: Path) -> HomePrices | None:
    """Read the home's prices; None when it has no file of them."""
    return load_config(path, HomePrices) if path.exists() else None
