"""Estimates of the time and tokens of calls, learned from those that were answered."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

_FORGET: Final = 0.98
"""Decay of the weight of older calls with each new one: about the last fifty count."""
_TOKENS_PER_BYTE: Final = 0.3
_MOST_ROOM: Final = 64.0
"""Factor on the expected length of an answer at which it is cut off."""
_SAME_ROOM: Final = 0.75
"""Share of the present limit from which a call was sent with the same room."""
_LEAST_SPREAD: Final = 1e-6
"""Of the lengths of answers, relative to their squares, below which it is rounding errors."""


class Latency:
    """Seconds of a call: time to the first token plus time per output token.

    Least squares over recent calls, each call weighted less as it ages; starts from half a second
    and sixty tokens per second.
    """

    def __init__(self) -> None:
        self.per_token = 1 / 60
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        for tokens in (12.0, 60.0, 240.0):
            self._add(tokens, 0.5 + tokens / 60.0)
        self._fit()

    def learn(self, tokens: int, seconds: float) -> None:
        """Learn from one answered call."""
        for name in ("_weight", "_x", "_y", "_xx", "_xy"):
            setattr(self, name, getattr(self, name) * _FORGET)
        self._add(float(tokens), seconds)
        self._fit()

    def _add(self, tokens: float, seconds: float) -> None:
        self._weight += 1.0
        self._x += tokens
        self._y += seconds
        self._xx += tokens * tokens
        self._xy += tokens * seconds

    def _fit(self) -> None:
        # While all answers are equally long, the slope cannot be fitted: it stays as it was.
        known = _LEAST_SPREAD * self._weight * self._xx
        spread = self._weight * self._xx - self._x * self._x + known
        common = self._weight * self._xy - self._x * self._y + known * self.per_token
        slope = common / spread
        self.per_token = max(1e-4, slope)
        self.first_token = max(0.0, (self._y - self.per_token * self._x) / self._weight)

    def seconds(self, tokens: float) -> float:
        """Return the expected seconds of a call that writes this many tokens."""
        return self.first_token + self.per_token * tokens


class OutputTokens:
    """Tokens of the answers on valid words and on outliers, and how often words are outliers.

    Tokens are a ridge regression of a call's completion tokens on its numbers of valid words and
    outliers; the observed share of outliers scales the expected one.
    """

    def __init__(self) -> None:
        # Ten valid words and ten outliers, as if they had been seen.
        self._gram: npt.NDArray[np.float64] = np.diag([10.0, 10.0])
        self._moment: npt.NDArray[np.float64] = np.array([140.0, 300.0])
        self._room = 1.0
        self._expected = 1.0
        self._found = 1.0
        self._fit()

    def learn(self, valid: int, outliers: int, tokens: int, expected_outliers: float) -> None:
        """Learn from one answer that covers all its words."""
        counts = np.array([valid, outliers], dtype=np.float64)
        self._gram = self._gram * _FORGET + np.outer(counts, counts)
        self._moment = self._moment * _FORGET + counts * tokens
        self._expected = self._expected * _FORGET + expected_outliers
        self._found = self._found * _FORGET + outliers
        self._fit()

    def _fit(self) -> None:
        # Calls without outliers add nothing to their column: keep it well-posed.
        found = np.linalg.solve(self._gram + 1e-3 * np.eye(2), self._moment)
        self.valid = float(max(4.0, found[0]))
        self.outlier = float(max(self.valid, found[1]))
        self._ratio = self._found / max(self._expected, 1e-9)

    def chance(self, chance: float) -> float:
        """Return the probability of an outlier, given the prior one, which may be overconfident."""
        return min(1.0, (0.9 * chance + 0.03) * self._ratio)

    def expected(self, chance: float) -> float:
        """Return the expected tokens of the answer on one word."""
        return self.valid + self.chance(chance) * (self.outlier - self.valid)

    def variance(self, chance: float) -> float:
        """Return the variance of the tokens of the answer on one word."""
        p = self.chance(chance)
        return p * (1.0 - p) * (self.outlier - self.valid) ** 2 + 1.0

    def limit(self, words: int) -> int:
        """Return the tokens at which an answer is cut off: more than any by the schema needs."""
        return math.ceil(self._room * (100 + 2 * self.outlier * words))

    def cut_off(self, words: int, limit: int) -> None:
        """Raise the limit after an answer was cut off; models that reason write more.

        Args:
            words: of the call.
            limit: that it was sent with. Where the limit has grown since, it says nothing new.
        """
        if limit >= _SAME_ROOM * self.limit(words):
            self._room = min(_MOST_ROOM, 2 * self._room)


class PromptTokens:
    """Tokens per byte of prompt."""

    def __init__(self) -> None:
        self._bytes = 2_000.0
        self._tokens = 2_000.0 * _TOKENS_PER_BYTE

    def learn(self, sent_bytes: int, tokens: int) -> None:
        """Learn from one answered call."""
        self._bytes = self._bytes * _FORGET + sent_bytes
        self._tokens = self._tokens * _FORGET + tokens

    def expected(self, sent_bytes: float) -> float:
        """Return the expected tokens of a prompt."""
        return sent_bytes * self._tokens / self._bytes


def tokens_in(text: str) -> int:
    """Estimate the tokens of a text that a model has written."""
    return math.ceil(_TOKENS_PER_BYTE * len(text.encode("utf-8", "replace")))


@dataclass(frozen=True)
class Estimates:
    """All estimates of the calls to one endpoint."""

    latency: Latency = field(default_factory=Latency)
    output: OutputTokens = field(default_factory=OutputTokens)
    prompt: PromptTokens = field(default_factory=PromptTokens)
