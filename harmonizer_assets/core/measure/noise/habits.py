"""Habits: one type is always taken for another, by one annotator or at one merchant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.measure.noise.confusion import Confusion
from harmonizer_assets.core.measure.noise.groups import shuffled
from harmonizer_assets.core.measure.noise.ledger import Change, Mistake
from harmonizer_assets.core.measure.noise.sheet import Labelled, Sheet, labelled

SIMULATED_ANNOTATORS: Final = 10
"""How many people share the receipts where the labels do not say who made them."""
_MOST_WRONG: Final = 0.5
"""Most labels of an annotator or a merchant that habits make wrong."""


def of_merchants(
    sheet: Sheet, confusion: Confusion, random: np.random.RandomState
) -> Iterator[Mistake]:
    """Take one type for another on all receipts of a merchant, of at least two.

    Raises:
        InputError: no label names its merchant.
    """
    owners = _owned(sheet, sheet.merchants)
    if not owners:
        raise InputError("kind merchant_habit: no label names its merchant (merchant_name)")
    several = {name: receipts for name, receipts in owners.items() if len(receipts) > 1}
    yield from _habits(several or owners, "merchant", confusion, random)


def of_annotators(
    sheet: Sheet, confusion: Confusion, random: np.random.RandomState
) -> Iterator[Mistake]:
    """Take one type for another on all receipts of an annotator.

    Where labels do not name who made them, each receipt is given to one of ten simulated people.
    """
    if sheet.annotators is not None:
        owners = _owned(sheet, sheet.annotators)
    else:
        owners = {}
        dealt = random.randint(SIMULATED_ANNOTATORS, size=len(sheet.receipts)).tolist()
        for annotator, receipt in zip(dealt, sheet.receipts, strict=True):
            owners.setdefault(f"{annotator + 1} (simulated)", []).append(labelled(receipt))
    yield from _habits(owners, "annotator", confusion, random)


def _owned(sheet: Sheet, names: Sequence[str | None]) -> dict[str, list[list[Labelled]]]:
    """Group labels by the name that each has, receipt by receipt."""
    owners: dict[str, list[list[Labelled]]] = {}
    for receipt in sheet.receipts:
        here: dict[str, list[Labelled]] = {}
        for word in labelled(receipt):
            name = names[word.number]
            if name is not None:
                here.setdefault(name, []).append(word)
        for name, words in here.items():
            owners.setdefault(name, []).append(words)
    return owners


def _habits(
    owners: Mapping[str, list[list[Labelled]]],
    of_what: str,
    confusion: Confusion,
    random: np.random.RandomState,
) -> Iterator[Mistake]:
    """Propose the habits of one owner after the other, on the receipts in random order."""
    for owner in shuffled(random, sorted(owners)):
        words = [word for receipt in shuffled(random, owners[owner]) for word in receipt]
        room = int(_MOST_WRONG * len(words))
        for label in shuffled(random, sorted({word.label for word in words})):
            own = [word for word in words if word.label == label]
            new = confusion.draw(random, [word.text for word in own], {label})
            if new is None or len(own) > room:
                continue
            room -= len(own)
            changes = [Change(word.number, new) for word in own]
            yield Mistake(f"{of_what} {owner}: {label} as {new}", changes)
