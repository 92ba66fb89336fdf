"""Python's garbage collector, set for processes that load and make many objects that stay."""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (50_000, 20, 50)


def collect_garbage_seldom() -> None:
    """Have this process look for garbage in cycles after 50,000 new objects instead of 700.

    Dagster, Chroma and scikit-learn load some 350,000 objects that stay; looking through them all
    takes 0.15 s, and Python does so about ten times while a short command loads and runs. Most
    objects are in no cycle and are freed at once, whatever these thresholds are.
    """
    gc.set_threshold(*_THRESHOLDS)
