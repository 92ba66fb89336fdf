"""The taxonomy: which label types there are and what they mean."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Final

import yaml

from harmonizer_assets.core.errors import TaxonomyError
from harmonizer_assets.core.home import Home

_MAX_NAME: Final = 100
_FORBIDDEN_IN_NAMES: Final = ("|", "...")


@dataclass(frozen=True)
class LabelType:
    """One label type; the definition is shown to judges, human or not."""

    name: str
    definition: str


@dataclass(frozen=True)
class Taxonomy:
    """All label types, in the order of their file."""

    label_types: tuple[LabelType, ...]

    @classmethod
    def default(cls) -> Taxonomy:
        """The 18 core receipt labels."""
        packaged = resources.files("harmonizer_assets.core") / "taxonomy.yaml"
        return cls.parse(packaged.read_text(encoding="utf-8"), "default taxonomy")

    @classmethod
    def load(cls, path: Path) -> Taxonomy:
        """Read a taxonomy file.

        Raises:
            TaxonomyError: it cannot be read, is not YAML of the expected form, or names a label
                type twice or in a way that cannot be a partition key.
        """
        try:
            return cls.parse(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise TaxonomyError(f"{path}: cannot be read ({error})") from error

    @classmethod
    def of_home(cls, home: Home) -> Taxonomy:
        """The home's own taxonomy, else the default."""
        return cls.load(home.taxonomy) if home.taxonomy.exists() else cls.default()

    @classmethod
    def parse(cls, content: str, source: str) -> Taxonomy:
        """Parse YAML: `label_types:` with one `NAME: definition` each.

        Raises:
            TaxonomyError: see `load`; messages begin with `source`.
        """
        try:
            document = yaml.load(content, Loader=_UniqueKeyLoader)
        except yaml.YAMLError as error:
            raise TaxonomyError(
                f"{source}: not valid YAML: {' '.join(str(error).split())}"
            ) from error
        types = document.get("label_types") if isinstance(document, Mapping) else None
        if not isinstance(types, Mapping) or not types:
            raise TaxonomyError(
                f"{source}: expected a key 'label_types' with one 'NAME: definition' line each"
            )
        return cls(tuple(_label_type(name, text, source) for name, text in types.items()))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all label types."""
        return tuple(label_type.name for label_type in self.label_types)

    def definition(self, name: str) -> str:
        """The definition of a label type.

        Raises:
            KeyError: there is no such label type.
        """
        return {label_type.name: label_type.definition for label_type in self.label_types}[name]


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses to let a later key silently replace an earlier one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"{key!r} stands twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _label_type(name: object, definition: object, source: str) -> LabelType:
    if not isinstance(name, str) or not name or name != name.strip() or len(name) > _MAX_NAME:
        raise TaxonomyError(
            f"{source}: label type {name!r}: a name is text of 1 to {_MAX_NAME} characters "
            "without surrounding spaces (quote names such as 'NO')"
        )
    if any(part in name for part in _FORBIDDEN_IN_NAMES) or any(
        unicodedata.category(character) == "Cc" for character in name
    ):
        raise TaxonomyError(
            f"{source}: label type {name!r}: a name must not hold '|', '...' or control characters"
        )
    if not isinstance(definition, str) or not definition.strip():
        raise TaxonomyError(f"{source}: label type {name}: its definition is missing")
    return LabelType(name, " ".join(definition.split()))
