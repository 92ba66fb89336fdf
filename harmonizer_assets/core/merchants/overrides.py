"""What people say about merchants: `HOME/merchants.yaml`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from harmonizer_assets.core.base.config_files import load_config
from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.merchants.spelling import identity


class MerchantOverrides(BaseModel):
    """Names that people have put together or kept apart; they count before every rule.

    Attributes:
        merchants: by the name that a merchant is to be called, the other names that it has.
        apart: names that are merchants of their own, whatever the rules find.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    merchants: Mapping[str, tuple[str, ...]] = {}
    apart: tuple[str, ...] = ()

    @classmethod
    def of_home(cls, home: Home) -> MerchantOverrides:
        """Read the home's file; without one, nobody has said anything.

        Raises:
            ConfigurationError: it cannot be read, names an unknown field, or contradicts itself.
        """
        path = home.merchants
        return load_config(path, cls, ConfigurationError) if path.exists() else cls()

    @field_validator("merchants", mode="before")
    @classmethod
    def _no_names_is_a_title(cls, given: object) -> object:
        """Take `Name:` with nothing after it for a merchant without other names."""
        if not isinstance(given, Mapping):
            return given
        return {name: () if names is None else names for name, names in given.items()}

    @model_validator(mode="after")
    def _each_name_once(self) -> MerchantOverrides:
        seen: dict[str, str] = {}
        listed = [
            (name, f"merchants.{title}")
            for title, names in self.merchants.items()
            for name in (title, *names)
        ]
        for name, where in [*listed, *((name, "apart") for name in self.apart)]:
            own = identity(name)
            if not own:
                raise ValueError(f"{where}: a name is empty")
            if own in seen:
                raise ValueError(f"{own!r} stands in {seen[own]} and in {where}: keep one of them")
            seen[own] = where
        return self

    @cached_property
    def titles(self) -> Mapping[str, str]:
        """The merchant of each name that is listed with one, by identity; titles are among them."""
        return {
            identity(name): identity(title)
            for title, names in self.merchants.items()
            for name in (title, *names)
        }

    @cached_property
    def alone(self) -> frozenset[str]:
        """The identities of the names that are merchants of their own."""
        return frozenset(map(identity, self.apart))

    @property
    def version(self) -> str:
        """Return a hash of what is said."""
        content = json.dumps([sorted(self.titles.items()), sorted(self.alone)])
        return hashlib.sha256(content.encode()).hexdigest()[:16]
