"""Mistakes about labels that are given together: whole rows, phrases, shifted columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from harmonizer_assets.core.measure.noise.confusion import Confusion
from harmonizer_assets.core.measure.noise.ledger import Change, Mistake
from harmonizer_assets.core.measure.noise.sheet import Sheet, Word, numbers_of, runs_of

Item = TypeVar("Item")


def shuffled(random: np.random.RandomState, items: Sequence[Item]) -> list[Item]:
    """Return items in random order."""
    return [items[at] for at in random.permutation(len(items)).tolist()]


def rows(sheet: Sheet, confusion: Confusion, random: np.random.RandomState) -> Iterator[Mistake]:
    """Label all labelled words of a row with one type, which may be right for some of them."""
    found = [[word for word in row if word.label is not None] for row in sheet.rows]
    for row in shuffled(random, [row for row in found if len(row) > 1]):
        own = {word.label for word in row if word.label is not None}
        never = own if len(own) == 1 else set()
        new = confusion.draw(random, [word.text for word in row], never)
        if new is not None:
            yield Mistake(f"whole row as {new}: {_shown(row)}", _relabelled(row, new))


def phrases(sheet: Sheet, confusion: Confusion, random: np.random.RandomState) -> Iterator[Mistake]:
    """Label neighbouring words that carry one type with another."""
    found = [(label, run) for row in sheet.rows for label, run in runs_of(row) if len(run) > 1]
    for label, run in shuffled(random, found):
        new = confusion.draw(random, [word.text for word in run], {label})
        if new is not None:
            yield Mistake(f"{label} as {new}: {_shown(run)}", _relabelled(run, new))


def shifted_columns(
    sheet: Sheet, confusion: Confusion, random: np.random.RandomState
) -> Iterator[Mistake]:
    """Shift the types of a receipt's columns by one, in all rows that have the same columns."""
    del confusion
    for receipt in shuffled(random, sheet.receipts):
        columns = [list(runs_of(row)) for row in receipt]
        orders = Counter(tuple(label for label, _ in runs) for runs in columns)
        tables = [order for order, count in orders.items() if len(set(order)) > 1 and count > 1]
        if not tables:
            continue
        order = tables[int(random.randint(len(tables)))]
        step = 1 if random.random_sample() < 0.5 else -1
        changes = [
            change
            for runs in columns
            if tuple(label for label, _ in runs) == order
            for change in _shifted(runs, step)
        ]
        side = "right" if step > 0 else "left"
        yield Mistake(f"columns {' '.join(order)} shifted to the {side}", changes)


def _shifted(runs: Sequence[tuple[str, list[Word]]], step: int) -> Iterator[Change]:
    """Give each run the type of the one before it; that at the edge keeps its own."""
    for at, (label, run) in enumerate(runs):
        if 0 <= at - step < len(runs) and (new := runs[at - step][0]) != label:
            yield from _relabelled(run, new)


def _relabelled(words: Sequence[Word], new: str) -> list[Change]:
    wrong = [word for word in words if word.label != new]
    return [Change(number, new) for number in numbers_of(wrong)]


def _shown(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)[:60]
