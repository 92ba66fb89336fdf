"""Answers: the schema that a model has to follow, and the check of what it returns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harmonizer_assets.core.base.settings import Explanations

REASONS: Final[Mapping[str, str]] = {
    "format": "its characters do not fit the label type",
    "meaning": "its meaning fits another label type",
    "neighbours": "the words beside it say that it is something else",
    "place": "its place on the receipt fits another label type",
    "caption": "it names a value and is not the value",
    "unreadable": "it cannot be read as anything of the label type",
}
"""Why a label may be wrong, by the code that an answer gives: one token instead of a sentence, and
every answer takes about as long as any other."""

_MAX_REASONING: Final = 500
_MOST_OBJECTS: Final = 200
"""Opening braces that are tried in a text around the JSON; one with more is not searched."""


@dataclass(frozen=True)
class Answer:
    """A verdict on a question, as the answer cache stores it; `confidence` is 0..1."""

    is_outlier: bool
    suggested_label: str | None
    confidence: float | None
    reasoning: str | None


@dataclass(frozen=True)
class Entry:
    """A model's answer about one item."""

    is_outlier: bool
    suggested_label: str | None
    reasoning: str | None


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer, item by item.

    Attributes:
        entries: of the items that were answered properly, by id.
        rejected: why the others were not, by id.
    """

    entries: dict[str, Entry]
    rejected: dict[str, str]


class MalformedAnswerError(Exception):
    """The whole answer is unusable: refused, truncated or not by the schema."""


class AnswerReader:
    """Checks answers against one taxonomy."""

    def __init__(self, label_types: Sequence[str], explanations: Explanations = "codes") -> None:
        self._label_types = tuple(label_types)
        self._explanations = explanations

    def parse(self, content: str, ids: Sequence[str], label_type: str) -> ParsedAnswer:
        """Check an answer item by item.

        Entries of ids that were not asked are ignored; ids that are missing, occur twice or have an
        entry that violates the schema are rejected.

        Raises:
            MalformedAnswerError: it is not an object with a list of entries.
        """
        found = _entries(content)
        named = [entry for entry in found if isinstance(entry.get("id"), str)]
        times = Counter(entry["id"] for entry in named)
        by_id = {entry["id"]: entry for entry in named}
        entries: dict[str, Entry] = {}
        rejected: dict[str, str] = {}
        for item_id in ids:
            if times[item_id] != 1:
                count = "no entry" if not times[item_id] else f"{times[item_id]} entries"
                rejected[item_id] = f"the answer has {count} for the word"
                continue
            entry = self._entry(by_id[item_id], label_type)
            if entry is None:
                rejected[item_id] = "the word's entry does not follow the schema"
            else:
                entries[item_id] = entry
        return ParsedAnswer(entries, rejected)

    def _entry(self, found: Mapping[str, Any], label_type: str) -> Entry | None:
        verdict, label, why = found.get("v"), found.get("label"), found.get("why")
        if verdict not in ("ok", "outlier"):
            return None
        if verdict == "ok":
            return Entry(False, None, None)
        if label is not None and label not in self._label_types:
            return None
        if why is not None and not isinstance(why, str):
            return None
        if self._explanations == "codes" and why is not None and why not in REASONS:
            return None
        # Calling a label wrong and suggesting the same one counts as no suggestion.
        return Entry(True, None if label == label_type else label, _reasoning(why))


def _entries(content: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = _embedded(content)
    entries = found.get("verdicts") if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise MalformedAnswerError("the answer does not follow the schema")
    return entries


def _embedded(content: str) -> dict[str, Any] | None:
    """Find the one JSON object with verdicts in a text: fenced, or after thoughts or a sentence.

    None where there is none, or several: which of them is meant would be a guess.
    """
    found: list[dict[str, Any]] = []
    at, decoder = content.find("{"), json.JSONDecoder()
    for _ in range(_MOST_OBJECTS):
        if at < 0:
            break
        try:
            value, end = decoder.raw_decode(content, at)
        except (ValueError, RecursionError):
            value, end = None, at + 1
        if isinstance(value, dict) and "verdicts" in value:
            found.append(value)
        at = content.find("{", end)
    return found[0] if len(found) == 1 and at < 0 else None


def _reasoning(why: str | None) -> str | None:
    if not why:
        return None
    # Half a surrogate pair is JSON, but no text that a database takes.
    return REASONS.get(why, why[:_MAX_REASONING]).encode("utf-8", "replace").decode()


def answer_schema(label_types: Sequence[str], explanations: Explanations) -> dict[str, Any]:
    """Make the strict JSON schema of an answer; keys are short since every entry repeats them."""
    why: dict[str, Any] = {"type": ["string", "null"]}
    if explanations == "codes":
        why["enum"] = [*REASONS, None]
    entry = {
        "id": {"type": "string"},
        "v": {"type": "string", "enum": ["ok", "outlier"]},
        "label": {"type": ["string", "null"], "enum": [*label_types, None]},
        "why": why,
    }
    return {
        "type": "object",
        "properties": {
            "verdicts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": entry,
                    "required": list(entry),
                    "additionalProperties": False,
                },
            }
        },
        "required": ["verdicts"],
        "additionalProperties": False,
    }
