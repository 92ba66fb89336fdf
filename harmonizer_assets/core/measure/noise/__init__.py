"""Noise: the mistakes that people make when they label, one file per family of kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np

from harmonizer_assets.core.measure.noise import captions, forgotten, groups, habits
from harmonizer_assets.core.measure.noise.confusion import Confusion
from harmonizer_assets.core.measure.noise.habits import SIMULATED_ANNOTATORS
from harmonizer_assets.core.measure.noise.ledger import Change, Ledger, Mistake, shortfall
from harmonizer_assets.core.measure.noise.sheet import ANNOTATOR_COLUMN, Sheet
from harmonizer_assets.core.measure.noise.single import SINGLE_KINDS, make_single_mistakes

__all__ = [
    "ANNOTATOR_COLUMN",
    "COMMON_KINDS",
    "FORGOTTEN",
    "SIMULATED_ANNOTATORS",
    "SINGLE_KINDS",
    "Change",
    "Confusion",
    "Ledger",
    "Mistake",
    "Sheet",
    "make_single_mistakes",
    "shortfall",
]

FORGOTTEN: Final = "forgotten"

COMMON_KINDS: Final[
    Mapping[str, Callable[[Sheet, Confusion, np.random.RandomState], Iterator[Mistake]]]
] = {
    "row": groups.rows,
    "phrase": groups.phrases,
    "shifted_columns": groups.shifted_columns,
    "merchant_habit": habits.of_merchants,
    "annotator_habit": habits.of_annotators,
    "caption_as_value": captions.as_values,
    "value_as_caption": captions.values_as_captions,
    FORGOTTEN: forgotten.phrases,
}
"""Kinds of mistakes that make several labels wrong at once, and what proposes such mistakes."""
