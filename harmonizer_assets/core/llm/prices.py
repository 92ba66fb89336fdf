"""Prices of models, from a file with dates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harmonizer_assets.core.errors import ConfigurationError
from harmonizer_assets.core.home import Home

_MILLION = 1_000_000


class Price(BaseModel):
    """USD per million tokens from a day on; `batch` is the Batch API's factor."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    since: dt.date = Field(alias="from")
    input: float = Field(ge=0)
    cached_input: float = Field(ge=0)
    output: float = Field(ge=0)
    batch: float = Field(default=1.0, gt=0, le=1)

    def cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
        """USD for one call; `cached_tokens` are those of the prompt that the provider had."""
        fresh = max(0, prompt_tokens - cached_tokens)
        return (
            fresh * self.input + cached_tokens * self.cached_input + completion_tokens * self.output
        ) / _MILLION

    def in_batch(self) -> Price:
        """The price through the Batch API."""
        return self.model_copy(
            update={
                "input": self.input * self.batch,
                "cached_input": self.cached_input * self.batch,
                "output": self.output * self.batch,
            }
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    models: Mapping[str, list[Price]]
    source: str = ""
    checked: dt.date | None = None


def price_of(home: Home, model: str, on: dt.date | None = None) -> Price | None:
    """The price of a model on a day, today by default; None when the file does not know it.

    Raises:
        ConfigurationError: the home's `prices.yaml` is not usable.
    """
    day = on or dt.datetime.now(dt.UTC).date()
    begun = [price for price in _prices(home).get(model, ()) if price.since <= day]
    return max(begun, key=lambda price: price.since, default=None)


def _prices(home: Home) -> Mapping[str, list[Price]]:
    """The packaged prices, with the models of the home's file in their place."""
    packaged = resources.files("harmonizer_assets.core.llm").joinpath("prices.yaml")
    known = _parse(packaged.read_text(encoding="utf-8"), "prices.yaml").models
    own: Path = home.prices
    if not own.exists():
        return known
    try:
        return {**known, **_parse(own.read_text(encoding="utf-8"), str(own)).models}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{own}: cannot be read ({error})") from error


def _parse(content: str, source: str) -> _File:
    try:
        document: Any = yaml.safe_load(content)
        if not isinstance(document, dict):
            raise ConfigurationError(f"{source}: expected a mapping with the key 'models'")
        return _File.model_validate(document)
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"{source}: not valid YAML: {' '.join(str(error).split())}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{source}: {where}: {first['msg']}") from error
