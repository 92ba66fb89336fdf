"""The label types of a source, and how they fit to those of a home.

Names that are spelled alike (`grand_total`, `Grand Total`, or `GRAND_TOTAL` with a blank behind it)
are only proposed to be one type: a person confirms it in a mapping file.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harmonizer_assets.core.importers.names import LabelMap
from harmonizer_assets.core.ingest.unknown_labels import nearest_type
from harmonizer_assets.core.records.taxonomy import Taxonomy

TO_EDIT: Final = "Edit this definition"
_ALIKE: Final = 0.9
_SEPARATORS: Final = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Fit:
    """How the label types of a source fit to a taxonomy.

    Attributes:
        counts: labels by type, the most frequent first.
        padded: labels by name, of names with blanks around them; the tables do not hold them.
        known: types that the taxonomy has.
        near: names that it has spelled otherwise, with its own spelling or the nearest type.
        new: types that it does not have.
    """

    counts: Mapping[str, int]
    padded: Mapping[str, int]
    known: Sequence[str]
    near: Mapping[str, str]
    new: Sequence[str]

    @property
    def is_clean(self) -> bool:
        """Whether the taxonomy has all types, and nothing is to be confirmed."""
        return not (self.near or self.new)


def fit(
    counts: Mapping[str, int],
    label_types: Sequence[str],
    padded: Mapping[str, int] | None = None,
) -> Fit:
    """Compare the label types of a source with those of a taxonomy.

    Args:
        counts: labels by type.
        label_types: of the taxonomy.
        padded: labels by name, of names with blanks around them. Each is near the same name without
            them, or whatever that is near.
    """
    ordered, padded = _ordered(counts), _ordered(padded or {})
    known = [name for name in ordered if name in label_types]
    unknown = [name for name in ordered if name not in label_types]
    near = {name: nearest for name in unknown if (nearest := _near(name, label_types))}
    near |= {name: _unpadded(name, label_types) for name in padded}
    new = dict.fromkeys([*unknown, *(near[name] for name in padded)])
    return Fit(
        ordered,
        padded,
        known,
        near,
        [name for name in new if name not in near and name not in label_types],
    )


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    """Order names by the number of their labels, the most frequent first."""
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def _unpadded(name: str, label_types: Sequence[str]) -> str:
    plain = name.strip()
    return plain if plain in label_types else _near(plain, label_types) or plain


def _near(name: str, label_types: Sequence[str]) -> str | None:
    """Find the type that a name may be: one that is spelled alike, or whose words it holds.

    A person may confirm a list of proposals without reading each, so what is merely similar, as
    `total` is to `SUBTOTAL`, is none.
    """
    nearest = nearest_type(name, label_types)
    if nearest is None:
        return None
    ours, theirs = _plain(name), _plain(nearest)
    is_alike = difflib.SequenceMatcher(None, ours, theirs).ratio() >= _ALIKE
    return nearest if is_alike or f" {theirs} " in f" {ours} " else None


def taxonomy_file(counts: Mapping[str, int], taxonomy: Taxonomy) -> str:
    """Write the label types of a source as a taxonomy file, with counts and definitions.

    Types that `taxonomy` has keep their definition; the others say what is to be written there.
    """
    lines = [
        "# Label types of the import, the most frequent first. Definitions are shown to judges:",
        "# write them as you would for a colleague.",
        "label_types:",
    ]
    for name, count in _ordered(counts).items():
        definition = (
            taxonomy.definition(name) if name in taxonomy.names else f"{_spelled(name)}. {TO_EDIT}."
        )
        lines += [f"  # {counted(count, 'label')}", f"  {_quoted(name)}: {_quoted(definition)}"]
    return "\n".join(lines) + "\n"


def map_file(found: Fit, confirmed: LabelMap) -> str:
    """Write the proposals for names that a taxonomy does not have, for a person to confirm.

    What has been confirmed already is repeated, since this file may take the place of the one that
    has it.
    """
    counts = {**found.counts, **found.padded}
    lines = [
        "# Proposals, to be checked by a person and confirmed with --map and this file.",
        "# A name that is mapped to null is left out; without its line it stays as it is.",
        "labels:" + ("" if found.near or confirmed.labels else " {}"),
    ]
    for name, label_type in confirmed.labels.items():
        lines.append(f"  {_quoted(name)}: {_quoted(label_type)}  # confirmed")
    for name, nearest in found.near.items():
        kind = "spelled alike" if _plain(name) == _plain(nearest) else "near by name"
        labels = counted(counts[name], "label")
        lines.append(f"  {_quoted(name)}: {_quoted(nearest)}  # {labels}, {kind}")
    new = [name for name in found.new if name not in confirmed.new_types]
    lines.append("new_types:" + ("" if new or confirmed.new_types else " {}"))
    for name, definition in confirmed.new_types.items():
        lines.append(f"  {_quoted(name)}: {_quoted(definition)}  # confirmed")
    for name in new:
        text = _quoted(f"{_spelled(name)}. {TO_EDIT}.")
        labels = f"  # {counted(counts[name], 'label')}" if name in counts else ""
        lines.append(f"  {_quoted(name)}: {text}{labels}")
    return "\n".join(lines) + "\n"


def counted(number: int, what: str) -> str:
    """Write a number with what it counts."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def _plain(name: str) -> str:
    return _SEPARATORS.sub(" ", name).strip().casefold()


def _spelled(name: str) -> str:
    """Write a name as words."""
    text = _SEPARATORS.sub(" ", name).strip() or name
    return text[:1].upper() + text[1:].lower()


def _quoted(text: str | None) -> str:
    """Quote a text for YAML, which takes JSON's strings and its null."""
    return json.dumps(text, ensure_ascii=False)
