"""Names of labels in a source: which become label types, which are renamed, which are none.

A name that is free text must never become a label type, since each type is a partition. A name with
blanks around it is none either, and is nobody's but a person's to rename: see `taxonomy`. What a
person has confirmed in a mapping file counts before all else.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, field_validator

from harmonizer_assets.core.base.config_files import load_config

LONGEST: Final = 60
"""Characters of a label type that nobody has confirmed."""
MOST_WORDS: Final = 5
MOST_TYPES: Final = 400
"""Label types that a source may have before they are taken for free text."""
_FORBIDDEN: Final = ("|", ",", "[", "]", "...")
"""What cannot be in the name of a label type; see `records.taxonomy`."""


class LabelMap(BaseModel):
    """A mapping file: which label type each name of the source is.

    Attributes:
        labels: by name in the source, the label type; null leaves such labels out.
        new_types: definitions of label types that the home does not have yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: dict[str, str | None] = {}
    new_types: dict[str, str] = {}

    @field_validator("labels")
    @classmethod
    def _named(cls, labels: dict[str, str | None]) -> dict[str, str | None]:
        for name, label_type in labels.items():
            if label_type is not None and (problem := problem_of(label_type, confirmed=True)):
                raise ValueError(f"{name}: the label type {label_type!r} {problem}")
        return labels


def load_map(path: Path | None) -> LabelMap:
    """Read a mapping file; None is an empty one.

    Raises:
        ConfigurationError: it is not usable.
    """
    return LabelMap() if path is None else load_config(path, LabelMap)


@dataclass(frozen=True)
class Chosen:
    """What becomes of a name.

    Attributes:
        name: the label type; None where there is none.
        refused: why there is none, as the end of a sentence; None where a person has said so.
        is_padded: whether nothing but blanks around it keeps the name from being a label type.
    """

    name: str | None
    refused: str | None = None
    is_padded: bool = False


@dataclass
class Names:
    """Decides about the names of a source, each once.

    Attributes:
        label_map: what a person has confirmed.
    """

    label_map: LabelMap = field(default_factory=LabelMap)
    _known: dict[str, Chosen] = field(default_factory=dict)
    _accepted: set[str] = field(default_factory=set)

    def chosen(self, name: str) -> Chosen:
        """Decide about a name."""
        found = self._known.get(name)
        if found is None:
            found = self._decided(name)
            if len(self._known) < 100 * MOST_TYPES:
                self._known[name] = found
        return found

    def _decided(self, name: str) -> Chosen:
        if name in self.label_map.labels:
            return Chosen(self.label_map.labels[name])
        plain = name.strip()
        problem = problem_of(plain)
        if problem is None and plain not in self._accepted and len(self._accepted) >= MOST_TYPES:
            problem = f"is one of more than {MOST_TYPES} different ones, as free text would be"
        if problem is not None:
            return Chosen(None, problem)
        self._accepted.add(plain)
        is_padded = plain != name
        return Chosen(None, problem_of(name), is_padded=True) if is_padded else Chosen(plain)


def problem_of(name: str, *, confirmed: bool = False) -> str | None:
    """Say why a name is no label type, as the end of a sentence; None where it may be one.

    Args:
        name: as it is written.
        confirmed: whether a person has confirmed it, so that only what cannot be stored is refused.
    """
    for problem, holds in _problems(name, confirmed=confirmed):
        if holds:
            return problem
    return None


def _problems(name: str, *, confirmed: bool) -> Iterator[tuple[str, bool]]:
    longest = 100 if confirmed else LONGEST
    found = next((part for part in _FORBIDDEN if part in name), "")
    yield "is empty", not name.strip()
    yield (
        "holds a control character",
        any(unicodedata.category(sign) in {"Cc", "Cs"} for sign in name),
    )
    yield "has blanks around it, as no label type can", name != name.strip()
    yield f"holds {found!r}, which no label type can", bool(found)
    yield f"has {len(name)} characters: it is a text, not a label type", len(name) > longest
    if not confirmed:
        words = len(name.split())
        yield f"has {words} words: it is a text, not a label type", words > MOST_WORDS
        is_text = not any(sign.isalpha() for sign in name)
        yield "has no letter: it looks like the text of a word", is_text
