"""Confusion: which label types are easily taken for each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.score.features import shapes_of


class Confusion:
    """Estimates from right labels how likely a type is given to a word by mistake.

    The weight of a type for a word is the share of the type's labels whose text has the shape of
    the word's.
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Count shapes of texts by label type.

        Args:
            texts: of n labelled words.
            labels: n types.
        """
        self.types = sorted(set(labels))
        self._column = {name: number for number, name in enumerate(self.types)}
        shapes = shapes_of(texts)
        self._row = {name: number for number, name in enumerate(sorted(set(shapes)))}
        counts = np.zeros((len(self._row), len(self.types)))
        np.add.at(
            counts,
            ([self._row[shape] for shape in shapes], [self._column[label] for label in labels]),
            1,
        )
        self._shares = counts / np.maximum(counts.sum(axis=0), 1)

    def weights(self, text: str) -> npt.NDArray[np.float64]:
        """Return the weight of each type for a word: shape (t,)."""
        [shape] = shapes_of([text])
        row = self._row.get(shape)
        return np.zeros(len(self.types)) if row is None else self._shares[row].copy()

    def draw(
        self, random: np.random.RandomState, texts: Sequence[str], never: Collection[str]
    ) -> str | None:
        """Draw the type that some words are labelled with together, by mistake.

        Args:
            random: decides.
            texts: of the words.
            never: types that would be no mistake.

        Returns:
            A type; any other where none is easily confused; None where there is no other.
        """
        weights = np.sum([self.weights(text) for text in texts], axis=0)
        forbidden = [self._column[name] for name in never]
        weights[forbidden] = 0.0
        if weights.sum() <= 0:
            weights[:] = 1.0
            weights[forbidden] = 0.0
        return self._drawn(random, weights)

    def draw_single(
        self, random: np.random.RandomState, text: str, label: str, *, confusable: bool
    ) -> str:
        """Draw the wrong type of one label, out of the confusable ones or of all others."""
        own = self._column[label]
        weights = self.weights(text) if confusable else np.zeros(0)
        if not confusable or weights.sum() <= weights[own]:
            weights = np.ones(len(self.types))
        weights[own] = 0.0
        drawn = self._drawn(random, weights)
        assert drawn is not None, "there are at least two types"
        return drawn

    def _drawn(self, random: np.random.RandomState, weights: npt.NDArray[np.float64]) -> str | None:
        if weights.sum() <= 0:
            return None
        return self.types[int(random.choice(len(self.types), p=weights / weights.sum()))]
