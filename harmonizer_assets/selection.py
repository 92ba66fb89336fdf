"""What people name on the command line: label types, and merchants by key or display name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from harmonizer_assets.core.errors import InputError
from harmonizer_assets.core.harmonizer import Harmonizer

_NEAR_MATCHES = 3


def check_label_types(harmonizer: Harmonizer, label_types: Iterable[str]) -> None:
    """See that label types exist.

    Raises:
        InputError: one does not; the message names those that are spelled alike.
    """
    known = harmonizer.taxonomy.names
    for name in label_types:
        if name not in known:
            raise InputError(f"no label type {name!r}{_near(name.upper(), known)}")


def merchant_keys(harmonizer: Harmonizer, merchants: Iterable[str]) -> list[str]:
    """The keys of merchants that are named by key or display name, in whatever case.

    Raises:
        InputError: one holds no labels; the message names those that are spelled alike.
    """
    rows = harmonizer.warehouse.query(
        "SELECT DISTINCT merchant_key, merchant_name FROM labels ORDER BY ALL"
    ).to_pylist()
    keys: dict[str, set[str]] = {}
    for row in rows:
        for name in (row["merchant_key"], row["merchant_name"]):
            if name:
                keys.setdefault(name.strip().casefold(), set()).add(row["merchant_key"])
    found = set()
    for name in merchants:
        folded = name.strip().casefold()
        if folded not in keys:
            names = [row["merchant_name"] or row["merchant_key"] for row in rows]
            raise InputError(f"no merchant {name!r} holds labels{_near(name, names)}")
        found |= keys[folded]
    return sorted(found)


def _near(name: str, known: Sequence[str]) -> str:
    folded = {candidate.casefold(): candidate for candidate in known}
    wanted = name.casefold()
    holding = [candidate for candidate in folded if wanted in candidate]
    alike = difflib.get_close_matches(wanted, folded, n=_NEAR_MATCHES, cutoff=0.4)
    near = list(dict.fromkeys([*holding, *alike]))[:_NEAR_MATCHES]
    if not near:
        return ""
    return f"; did you mean {' or '.join(repr(folded[candidate]) for candidate in near)}?"
