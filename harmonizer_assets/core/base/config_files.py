"""YAML and TOML files that people write, read into pydantic models."""

from __future__ import annotations

import tomllib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from harmonizer_assets.core.base.errors import ConfigurationError, InputError

Model = TypeVar("Model", bound=BaseModel)

_OWN_WORDS: Final = "Value error, "


def load_config(
    path: Path, model: type[Model], error: type[InputError] = ConfigurationError
) -> Model:
    """Read a file into a model; the suffix `.toml` means TOML, any other one YAML.

    Args:
        path: the file, in UTF-8.
        model: what it holds.
        error: what to raise.

    Raises:
        InputError: of the type `error`, in one line that names file, field and problem: the file
            cannot be read, is not of its format, names a key twice, or does not fit the model.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{path}: cannot be read ({problem})") from problem
    parse = parse_toml if path.suffix.lower() == ".toml" else parse_yaml
    return parse(content, str(path), model, error)


def parse_yaml(
    content: str, source: str, model: type[Model], error: type[InputError] = ConfigurationError
) -> Model:
    """Read YAML into a model; a key that is given twice is refused, not replaced.

    Args:
        content: the text.
        source: origin of the text, for error messages.
        model: what it holds.
        error: what to raise; see `load_config`.
    """
    try:
        document = yaml.load(content, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as problem:
        raise error(f"{source}: not valid YAML: {' '.join(str(problem).split())}") from problem
    return _validated(document, source, model, error)


def parse_toml(
    content: str, source: str, model: type[Model], error: type[InputError] = ConfigurationError
) -> Model:
    """Read TOML into a model; see `parse_yaml`."""
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as problem:
        raise error(f"{source}: not valid TOML: {problem}") from problem
    return _validated(document, source, model, error)


def first_problem(error: ValidationError) -> str:
    """Describe the first error of a validation in one line: `field.of.field: problem`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    problem = " ".join(first["msg"].removeprefix(_OWN_WORDS).split())
    return f"{where}: {problem}" if where else problem


def _validated(document: Any, source: str, model: type[Model], error: type[InputError]) -> Model:
    if not isinstance(document, Mapping):
        raise error(f"{source}: expected {_expected(model)}")
    try:
        return model.model_validate(document)
    except ValidationError as problem:
        raise error(f"{source}: {first_problem(problem)}") from problem


def _expected(model: type[BaseModel]) -> str:
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    keys = ", ".join(f"'{name}'" for name in required)
    return f"a mapping with the key {keys}" if keys else "a mapping"


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses to let a later key silently replace an earlier one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue
            if key in seen:
                raise yaml.YAMLError(f"{key!r} stands twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)
