"""Mistakes about captions and the values beside them: one is labelled as the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np

from harmonizer_assets.core.measure.noise.confusion import Confusion
from harmonizer_assets.core.measure.noise.groups import shuffled
from harmonizer_assets.core.measure.noise.ledger import Change, Mistake
from harmonizer_assets.core.measure.noise.sheet import Sheet, Word, numbers_of

Pair = tuple[list[Word], list[Word]]


def as_values(
    sheet: Sheet, confusion: Confusion, random: np.random.RandomState
) -> Iterator[Mistake]:
    """Label captions as if they were the values to the right of them.

    A caption that carries no label gets one, unless its text carries that type elsewhere.
    """
    del confusion
    for caption, value in shuffled(random, _pairs(sheet)):
        new, number = value[0].label, value[0].number
        if new is None or number is None:
            continue
        changes = [
            Change(number, new, word.key) if word.number is None else Change(word.number, new)
            for word in caption
            if word.label != new and (word.number is not None or _may_get(sheet, word, new))
        ]
        if changes:
            yield Mistake(f"caption as {new}: {_shown(caption, value)}", changes)


def values_as_captions(
    sheet: Sheet, confusion: Confusion, random: np.random.RandomState
) -> Iterator[Mistake]:
    """Label values as if they were the labelled captions to the left of them."""
    del confusion
    for caption, value in shuffled(random, _pairs(sheet)):
        new = caption[-1].label
        changes = [Change(number, new) for number in numbers_of(value)]
        if new is not None and new != value[0].label:
            yield Mistake(f"value as {new}: {_shown(caption, value)}", changes)


def _pairs(sheet: Sheet) -> list[Pair]:
    """Find captions that stand directly to the left of values of one type."""
    return [pair for row in sheet.rows for pair in _pairs_of(row)]


def _pairs_of(row: Sequence[Word]) -> Iterator[Pair]:
    runs = [
        (is_value, list(run))
        for (is_value, _), run in groupby(row, lambda word: (word.is_value, word.label))
    ]
    for (left_is_value, left), (right_is_value, right) in pairwise(runs):
        if not left_is_value and right_is_value and right[0].label is not None:
            yield left, right


def _may_get(sheet: Sheet, word: Word, label: str) -> bool:
    return word.free and not sheet.deserves(word, label)


def _shown(caption: Sequence[Word], value: Sequence[Word]) -> str:
    return " ".join(word.text for word in (*caption, *value))[:60]
