"""Files of JSON: an array as a whole, or an object on each line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.files import open_atomically, write_atomically
from harmonizer_assets.core.importers.files import json_array, starts_with
from harmonizer_assets.core.ingest.readers import read_objects

MEMBER: Final = "harmonizer"
"""Name of the member that carries the record of a task."""
NO_LABEL: Final = "no label"
"""What people choose for a word that has none, where a tool wants them to choose something."""

MALFORMED: Final = (AttributeError, KeyError, TypeError, ValueError)
"""Errors of reading an object whose members are of other types than the tool writes."""


def text_or_none(value: Any) -> str | None:
    """Return a value as text; None for nothing."""
    return None if value is None or value == "" else str(value)


def chosen_labels(chosen: Any) -> tuple[str, ...]:
    """Read the labels that a person has chosen; none for `NO_LABEL`.

    Raises:
        ValueError: they are no list of texts, or `NO_LABEL` is not alone.
    """
    if isinstance(chosen, str):
        chosen = [chosen]
    if not (isinstance(chosen, list | tuple) and all(isinstance(one, str) for one in chosen)):
        raise ValueError(f"labels are {str(chosen)[:40]!r}: they are a list of names")
    labels = tuple(dict.fromkeys(one for one in chosen if one != NO_LABEL))
    if labels and NO_LABEL in chosen:
        raise ValueError(f"{NO_LABEL!r} is chosen together with {labels[0]}: choose one of them")
    return labels


def write_lines(path: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    """Write an object on each line.

    Raises:
        OSError: the file cannot be written.
    """
    with open_atomically(path) as file:
        for one in objects:
            file.write(json.dumps(one, ensure_ascii=False).encode() + b"\n")


def write_array(path: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    """Write objects as one array, one on each line.

    Raises:
        OSError: the file cannot be written.
    """
    lines = (json.dumps(one, ensure_ascii=False) for one in objects)
    write_atomically(path, "[\n" + ",\n".join(lines) + "\n]\n")


def read_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read the objects of a file, each with its place.

    Raises:
        InputError: the file cannot be read, or a line is no object.
    """
    for number, values in read_objects(path):
        yield f"line {number}", values


def read_array(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the objects of an array one by one, each with its place.

    Args:
        path: of the file.
        what: the array holds, such as `task`.

    Raises:
        InputError: the file is no array of objects, or is damaged; what stands before the damage
            has been yielded by then.
    """
    if not starts_with(path, b"["):
        raise InputError(f"{path}: not an array: export all {what}s as one JSON array")
    for number, one in enumerate(json_array(path), start=1):
        if not isinstance(one, dict):
            raise InputError(f"{path}: {what} {number} is no object: export the file again")
        yield f"{what} {number}", one
