"""Sizing: choose how many words the next call holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harmonizer_assets.core.base.settings import Profile

MAX_CALL_WORDS: Final = 50
STRETCH: Final = 1.15
"""Factor by which calls may exceed the chosen size so that they are even."""
_OVERHEAD_SHARE: Final = 0.1
"""`cheap` makes calls so large that the shared prompt is a tenth of what the words cost."""
_CLIENT_CALLS_PER_SECOND: Final = 150.0
"""Calls in flight that one core handles; beyond it more and smaller calls take longer."""
_SPREAD: Final = 1.0
"""Standard deviations by which a first call stays short of its share, to even out later."""


@dataclass(frozen=True)
class Load:
    """The state of the scheduler when it asks for the next call.

    Attributes:
        slots: calls that may be in flight.
        busy_until: expected seconds from now until each call in flight ends.
        words, tokens: words that no call holds yet, and the expected tokens of their answers.
        mean_tokens, variance: of the answer on one of them.
        first_token, per_token: seconds.
        head_cost, word_cost: cost of the shared prompt of a call and of each word, in one unit.
        token_seconds: seconds that tokens per minute will take at least.
        calls_left, calls_per_second: calls that requests per minute allow now, and later.
    """

    slots: int
    busy_until: Sequence[float]
    words: int
    tokens: float
    mean_tokens: float
    variance: float
    first_token: float
    per_token: float
    head_cost: float
    word_cost: float
    token_seconds: float = 0.0
    calls_left: float = math.inf
    calls_per_second: float = 0.0


def words_per_call(profile: Profile, load: Load) -> int:
    """Choose how many words the next call should hold.

    `cheap` makes the shared prompt a small part of the cost. `fast` makes all calls end together:
    each free slot gets its share of the words that are left, less one standard deviation, which a
    later, smaller call uses. This is factoring, a rule for self-scheduling loops of uneven
    iterations (Hummel, Schonberg and Flynn 1992). Where the limits per minute bind and not the
    latency, larger calls spend fewer tokens and requests on shared prompts; they shrink towards
    the end, for the last call must not outlast the limits.
    """
    amortized = math.ceil(load.head_cost / (_OVERHEAD_SHARE * max(load.word_cost, 1e-12)))
    if profile == "cheap":
        return min(MAX_CALL_WORDS, max(1, amortized))
    share, end = _share(load)
    per_word = max(load.mean_tokens, 1e-9)
    deviation = math.sqrt(load.variance * share / per_word)
    if load.per_token * deviation * _SPREAD > load.first_token:
        share -= _SPREAD * deviation
    words = max(1.0, share / per_word)
    seconds = max(end, load.token_seconds)
    allowed = min(
        load.calls_left + load.calls_per_second * seconds, _CLIENT_CALLS_PER_SECOND * seconds
    )
    words = max(words, load.words / max(1.0, allowed))
    if load.token_seconds > end:
        # A call that takes a quarter of what is left leaves time to even out.
        short = (load.token_seconds / 4 - load.first_token) / (load.per_token * per_word)
        words = max(words, min(amortized, short))
    return min(MAX_CALL_WORDS, max(1, round(words)))


def _share(load: Load) -> tuple[float, float]:
    """Return the tokens a free slot takes for all slots to end together, and seconds until then."""
    free = max(1, load.slots - len(load.busy_until))
    ready = [0.0] * free + sorted(load.busy_until)
    work = load.tokens * load.per_token
    # Water-filling: slots that are free later count once the level has reached them.
    taken, total = 0, 0.0
    level = 0.0
    for taken, at in enumerate(ready, start=1):
        total += at + load.first_token
        level = (work + total) / taken
        if taken < len(ready) and level <= ready[taken] + load.first_token:
            break
    return max(0.0, (level - load.first_token) / load.per_token), level
