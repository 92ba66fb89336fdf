"""Folds: no word is judged by a model that has learned from what was labelled together with it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.score.pages import Page

Ints = npt.NDArray[np.int64]

FOLDS: Final = 3


@dataclass(frozen=True)
class Folds:
    """The folds of n words.

    Attributes:
        receipt: shape (n,), of each word's receipt.
        row: shape (n,), of each word's row, whatever the fold of its receipt.
    """

    receipt: Ints
    row: Ints

    def take(self, at: Ints) -> Folds:
        """Return the folds of some of the words."""
        return Folds(self.receipt[at], self.row[at])


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
    by_receipt = np.array([zlib.crc32(name.encode()) % FOLDS for name in names], dtype=np.int64)
    by_row = np.array(
        [
            zlib.crc32(f"{name}\x1f{row}".encode()) % FOLDS
            for name, row in zip(names, in_receipt.tolist(), strict=True)
        ],
        dtype=np.int64,
    )
    rows = page.row[words]
    return Folds(by_receipt[rows], by_row[rows])
