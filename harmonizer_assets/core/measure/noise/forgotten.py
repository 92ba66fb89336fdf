"""Forgotten labels: words that carry no label and should."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from harmonizer_assets.core.measure.noise.confusion import Confusion
from harmonizer_assets.core.measure.noise.groups import shuffled
from harmonizer_assets.core.measure.noise.ledger import Change, Mistake
from harmonizer_assets.core.measure.noise.sheet import Sheet, numbers_of, runs_of

_WHOLE: Final = 0.5
"""Share of the phrases of which nothing is labelled; of the others, one word is forgotten."""


def phrases(sheet: Sheet, confusion: Confusion, random: np.random.RandomState) -> Iterator[Mistake]:
    """Remove the labels of a phrase, or of one of its words."""
    del confusion
    found = [(label, run) for row in sheet.rows for label, run in runs_of(row)]
    for label, run in shuffled(random, found):
        numbers = numbers_of(run)
        whole = random.random_sample() < _WHOLE
        chosen = numbers if whole else [numbers[int(random.randint(len(numbers)))]]
        shown = " ".join(word.text for word in run)[:60]
        yield Mistake(
            f"{'phrase' if whole else 'word'} of {label}: {shown}",
            [Change(number, None) for number in chosen],
        )
