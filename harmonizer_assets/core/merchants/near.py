"""Names that are alike and that no rule puts together: for a person to look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from rapidfuzz.distance import OSA
from rapidfuzz.process import cdist

from harmonizer_assets.core.merchants.spelling import joined, spelling

_LETTERS: Final = {1: 3, 2: 8}
"""Edits, and the letters that the shorter of two words must have for them."""
_SHARED: Final = 4
_LARGEST_BLOCK: Final = 1_000
"""What more names than this share says little."""


_NO_DIGITS: Final = str.maketrans("", "", "0123456789 ")


class NearNames(NamedTuple):
    """Two merchants with names that are alike.

    Attributes:
        merchant: the name of one, the first in code points.
        other: the name of the other.
        edits: letters that are missing, added, swapped with the next, or others.
    """

    merchant: str
    other: str
    edits: int


def near_names(names: Iterable[tuple[str, str]]) -> list[NearNames]:
    """Find merchants with names that differ in one word, by a letter or two.

    Names are compared where they share all words but one, or begin or end with the same letters, so
    the work grows with the number of names.

    Args:
        names: a name and the merchant that it is, each name once.

    Returns:
        Each pair of merchants once, the nearest first.
    """
    found: dict[tuple[str, str], int] = {}
    for block in _blocks({(spelling(name).tokens, merchant) for name, merchant in names}):
        for pair, edits in _near_in(block):
            found[pair] = min(edits, found.get(pair, edits))
    pairs = [NearNames(*pair, edits) for pair, edits in found.items()]
    return sorted(pairs, key=lambda pair: (pair.edits, pair))


_Block = list[tuple[str, str]]
"""What is compared, and the merchant that it is of."""


def _blocks(names: Iterable[tuple[tuple[str, ...], str]]) -> Iterator[_Block]:
    by_shared: dict[tuple[object, ...], _Block] = defaultdict(list)
    for words, merchant in sorted(names):
        letters = joined(words)
        for shared in ("begins", letters[:_SHARED]), ("ends", letters[-_SHARED:]):
            by_shared[(*shared, len(words))].append((letters, merchant))
        for place, word in enumerate(words if len(words) > 1 else ()):
            by_shared[(*words[:place], None, *words[place + 1 :])].append((word, merchant))
    for block in by_shared.values():
        if 1 < len(block) <= _LARGEST_BLOCK:
            yield block


def _near_in(block: Sequence[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], int]]:
    words = [word for word, _ in block]
    edits = cdist(words, words, scorer=OSA.distance, score_cutoff=max(_LETTERS), dtype=np.uint8)
    for one, other in zip(*np.nonzero(edits <= max(_LETTERS)), strict=True):
        (word, merchant), (other_word, other_merchant) = block[one], block[other]
        distance = int(edits[one, other])
        if merchant < other_merchant and _are_near(word, other_word, distance):
            yield (merchant, other_merchant), distance


def _are_near(word: str, other: str, distance: int) -> bool:
    """Return whether a misreading may explain the edits: never those of numbers alone."""
    is_long = min(len(word), len(other)) >= _LETTERS.get(distance, 1)
    return is_long and word.translate(_NO_DIGITS) != other.translate(_NO_DIGITS)
