"""The taxonomy: which label types there are and what they mean."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, field_validator

from harmonizer_assets.core.base.config_files import load_config, parse_yaml
from harmonizer_assets.core.base.errors import TaxonomyError
from harmonizer_assets.core.base.home import Home

_MAX_NAME: Final = 100
_FORBIDDEN_IN_NAMES: Final = ("|", ",", "[", "]", "...")
"""What Dagster does not take in the keys of partitions."""


@dataclass(frozen=True)
class LabelType:
    """One label type; the definition is shown to judges, human or not."""

    name: str
    definition: str


NO_LABEL: Final = LabelType(
    "(no label)",
    "The word carries none of the other label types: a caption, a code, an advertisement or "
    "anything else that they do not name.",
)
"""What a judge is asked about words without a label; no type of a taxonomy."""


@dataclass(frozen=True)
class Taxonomy:
    """All label types, in the order of their file."""

    label_types: tuple[LabelType, ...]

    @classmethod
    @cache
    def default(cls) -> Taxonomy:
        """Read the packaged taxonomy: 18 core receipt labels."""
        packaged = resources.files("harmonizer_assets.core.records") / "taxonomy.yaml"
        return cls.parse(packaged.read_text(encoding="utf-8"), "default taxonomy")

    @classmethod
    def load(cls, path: Path) -> Taxonomy:
        """Read a taxonomy file.

        Raises:
            TaxonomyError: it cannot be read, is not YAML of the expected form, or names a label
                type twice or in a way that cannot be a partition key.
        """
        return cls(load_config(path, _File, TaxonomyError).label_types)

    @classmethod
    def of_home(cls, home: Home) -> Taxonomy:
        """Read the home's own taxonomy, else the default."""
        return cls.load(home.taxonomy) if home.taxonomy.exists() else cls.default()

    @classmethod
    def parse(cls, content: str, source: str) -> Taxonomy:
        """Parse YAML: `label_types:` with one `NAME: definition` each.

        Raises:
            TaxonomyError: see `load`; messages begin with `source`.
        """
        return cls(parse_yaml(content, source, _File, TaxonomyError).label_types)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all label types."""
        return tuple(label_type.name for label_type in self.label_types)

    def definition(self, name: str) -> str:
        """Look up the definition of a label type.

        Raises:
            KeyError: there is no such label type.
        """
        return {label_type.name: label_type.definition for label_type in self.label_types}[name]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True)

    label_types: tuple[LabelType, ...]

    @field_validator("label_types", mode="before")
    @classmethod
    def _from_mapping(cls, types: Any) -> tuple[LabelType, ...]:
        if not isinstance(types, Mapping) or not types:
            raise ValueError("expected one 'NAME: definition' line per label type")
        return tuple(_label_type(name, text) for name, text in types.items())


def _label_type(name: object, definition: object) -> LabelType:
    if not isinstance(name, str) or not name or name != name.strip() or len(name) > _MAX_NAME:
        raise ValueError(
            f"label type {name!r}: a name is text of 1 to {_MAX_NAME} characters "
            "without surrounding spaces (quote names such as 'NO')"
        )
    if any(part in name for part in _FORBIDDEN_IN_NAMES) or any(
        unicodedata.category(character) in {"Cc", "Cs"} for character in name
    ):
        raise ValueError(
            f"label type {name!r}: a name may hold letters, digits, spaces, '_', '-', '/', '.' and "
            "other signs, but not '|', ',', '[', ']', '...' or control characters"
        )
    if not isinstance(definition, str) or not definition.strip():
        raise ValueError(f"label type {name}: its definition is missing")
    return LabelType(name, " ".join(definition.split()))
