"""Which names are one merchant: by what people say, then by rules."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from harmonizer_assets.core.merchants.look_alikes import Name, look_alikes
from harmonizer_assets.core.merchants.overrides import MerchantOverrides
from harmonizer_assets.core.merchants.spelling import Spelling, identity, spelling
from harmonizer_assets.core.records.merchant import merchant_key

VERSION: Final = "1"
"""Changes whenever the rules put other names together."""

ITSELF: Final = "itself"
SPELLING: Final = "spelling"
LEGAL_FORM: Final = "legal form"
STORE_NUMBER: Final = "store number"
LOOK_ALIKE: Final = "look-alike letters"
FILE: Final = "merchants.yaml"


class SeenName(NamedTuple):
    """A name as it arrived.

    Attributes:
        name: exactly as it was written.
        since: the time of the earliest batch that held it.
        labels: how many labels had it in that batch.
    """

    name: str
    since: dt.datetime
    labels: int


class Merchant(NamedTuple):
    """The merchant of a name.

    Attributes:
        name: what it is called.
        key: of its partitions; that of the name that was seen first.
        how: why the name is this merchant.
    """

    name: str
    key: str
    how: str


@dataclass(frozen=True)
class Rules:
    """Which rules apply: those of spelling, and those of look-alike letters on top."""

    spellings: bool = True
    look_alikes: bool = True


def group_names(
    seen: Sequence[SeenName], overrides: MerchantOverrides, rules: Rules
) -> dict[str, Merchant]:
    """Find the merchant of each name.

    The result depends on the set of names, not on their order. The work grows with their number.

    Args:
        seen: names, each once, none blank.
        overrides: what people say; it counts before the rules.
        rules: which rules apply.

    Returns:
        By name. The key of a merchant is that of its name seen first; of those that came in one
        batch, the most frequent; of those, the shortest, then the first in code points.
    """
    spellings = {one.name: spelling(one.name) for one in seen}
    titles = {title: spelling(title) for title in {*overrides.titles.values()}}
    fixed = _fixed(spellings, overrides, rules)
    cores = _cores([*spellings.values(), *titles.values()])
    groups = _groups_of_cores(cores, rules)
    led = _led(spellings, titles, fixed, cores, groups)
    members: dict[tuple[str, str], list[SeenName]] = defaultdict(list)
    for one in seen:
        members[_place(one.name, spellings, fixed, cores, groups, led, rules)].append(one)
    return {
        name: merchant
        for (kind, value), names in members.items()
        for name, merchant in _merchants(names, value if kind == _TITLE else None, spellings)
    }


_TITLE: Final = "title"
_ALONE: Final = "alone"
_GROUP: Final = "group"


def _fixed(
    spellings: Mapping[str, Spelling], overrides: MerchantOverrides, rules: Rules
) -> dict[str, tuple[str, str]]:
    """Find the names that people have placed, and those that are spelled like one of these."""
    said = {own: (_TITLE, title) for own, title in overrides.titles.items()}
    said |= {own: (_ALONE, own) for own in overrides.alone}
    by_letters: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for own, place in said.items() if rules.spellings else ():
        by_letters[spelling(own).letters].add(place)
    fixed = {}
    for name, read in spellings.items():
        own = identity(name)
        places = {said[own]} if own in said else by_letters.get(read.letters, set())
        if len(places) == 1:
            [fixed[name]] = places
    return fixed


def _cores(read: Iterable[Spelling]) -> dict[Spelling, str]:
    """Choose the core of each.

    It has the word "store" before the number where such a name exists without, and is the same for
    all that have the same letters, as where the blank before a legal form is left out.
    """
    every = set(read)
    bare = {one.letters for one in every}
    cores = {one: one.with_store if one.with_store in bare else one.core for one in every}
    shortest: dict[str, str] = {}
    for one, core in cores.items():
        known = shortest.setdefault(one.letters, core)
        shortest[one.letters] = min(known, core, key=lambda core: (len(core), core))
    return {one: shortest[one.letters] for one in every}


def _groups_of_cores(cores: Mapping[Spelling, str], rules: Rules) -> dict[str, str]:
    """Name the group of each core: the first of those that are the same but for slips."""
    if not (rules.spellings and rules.look_alikes):
        return {}
    names = {core: Name(core, one.tokens) for one, core in _in_order(cores) if core == one.core}
    return {
        name.letters: group[0].letters
        for group in look_alikes(list(names.values()))
        for name in group
    }


def _in_order(cores: Mapping[Spelling, str]) -> list[tuple[Spelling, str]]:
    """Sort, so that the words of a core are the same ones in every run: those that are most."""
    return sorted(cores.items(), key=lambda pair: (pair[1], len(pair[0].tokens), pair[0].tokens))


def _led(
    spellings: Mapping[str, Spelling],
    titles: Mapping[str, Spelling],
    fixed: Mapping[str, tuple[str, str]],
    cores: Mapping[Spelling, str],
    groups: Mapping[str, str],
) -> dict[str, str]:
    """Find the groups in which people have placed names with exactly one merchant."""
    found: dict[str, set[str]] = defaultdict(set)
    for title, read in titles.items():
        found[_group(read, cores, groups)].add(title)
    for name, (kind, value) in fixed.items():
        if kind == _TITLE:
            found[_group(spellings[name], cores, groups)].add(value)
    return {group: next(iter(titles)) for group, titles in found.items() if len(titles) == 1}


def _group(read: Spelling, cores: Mapping[Spelling, str], groups: Mapping[str, str]) -> str:
    core = cores[read]
    return groups.get(core, core)


def _place(
    name: str,
    spellings: Mapping[str, Spelling],
    fixed: Mapping[str, tuple[str, str]],
    cores: Mapping[Spelling, str],
    groups: Mapping[str, str],
    led: Mapping[str, str],
    rules: Rules,
) -> tuple[str, str]:
    if name in fixed:
        return fixed[name]
    if not rules.spellings:
        return _ALONE, identity(name)
    group = _group(spellings[name], cores, groups)
    return (_TITLE, led[group]) if group in led else (_GROUP, group)


def _merchants(
    names: Sequence[SeenName], title: str | None, spellings: Mapping[str, Spelling]
) -> Iterable[tuple[str, Merchant]]:
    first = min(names, key=lambda one: (one.since, -one.labels, len(one.name), one.name))
    called = title or identity(first.name)
    read = spelling(title) if title else spellings[first.name]
    for one in names:
        how = _how(identity(one.name), spellings[one.name], called, read, is_said=title is not None)
        yield one.name, Merchant(called, merchant_key(first.name), how)


def _how(own: str, read: Spelling, called: str, of_merchant: Spelling, *, is_said: bool) -> str:
    if own == called:
        return ITSELF
    if read.letters == of_merchant.letters:
        return SPELLING
    if {read.core, read.with_store}.isdisjoint({of_merchant.core, of_merchant.with_store}):
        return FILE if is_said else LOOK_ALIKE
    parts = []
    if read.ending.legal_form or of_merchant.ending.legal_form:
        parts.append(LEGAL_FORM)
    if read.ending.number or of_merchant.ending.number:
        parts.append(STORE_NUMBER)
    return ", ".join(parts)
