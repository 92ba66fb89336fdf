"""Folds: no word is judged by a model that has learned from what was labelled together with it.

Words are assigned to folds in several ways, and what is learned under each is averaged: which words
a model happens to have learned from decides as much as a word's evidence otherwise (repeated
cross-fitting; Chernozhukov et al. 2018, "Double/debiased machine learning", section 3.4).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.score.pages import Page

Ints = npt.NDArray[np.int64]

FOLDS: Final = 3
ASSIGNMENTS: Final = 2
"""Ways of assigning words to folds."""


@dataclass(frozen=True)
class Folds:
    """The folds of n words.

    Attributes:
        receipt: shape (n, assignments), of each word's receipt.
        row: shape (n, assignments), of each word's row, whatever the fold of its receipt.
    """

    receipt: Ints
    row: Ints

    def take(self, at: Ints) -> Folds:
        """Return the folds of some of the words."""
        return Folds(self.receipt[at], self.row[at])

    def first(self) -> Folds:
        """Return the first assignment alone."""
        return Folds(self.receipt[:, :1], self.row[:, :1])


def folds_of(page: Page, words: Ints) -> Folds:
    """Assign words of a page to folds, the same in every process.

    Args:
        page: the words of whole receipts.
        words: shape (n,), numbers of words of the page.
    """
    first = np.flatnonzero(np.diff(page.row, prepend=-1))
    keys = page.keys.take(first)
    receipt = page.receipt[first]
    in_receipt = page.row[first] - page.row[first][np.searchsorted(receipt, receipt)]
    names = [
        f"{image}\x1f{number}"
        for image, number in zip(
            keys["image_id"].to_pylist(), keys["receipt_id"].to_pylist(), strict=True
        )
    ]
    by_receipt = _assigned(names)
    by_row = _assigned(
        f"{name}\x1f{row}" for name, row in zip(names, in_receipt.tolist(), strict=True)
    )
    rows = page.row[words]
    return Folds(by_receipt[rows], by_row[rows])


def _assigned(names: Iterable[str]) -> Ints:
    """Assign what has n names to folds: shape (n, assignments)."""
    hashes = np.array([zlib.crc32(name.encode()) for name in names], dtype=np.int64)
    return hashes[:, None] // FOLDS ** np.arange(ASSIGNMENTS) % FOLDS
