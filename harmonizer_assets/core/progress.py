"""How long-running work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far one stage is; totals are 0 where they are not known or do not apply."""

    stage: str
    partitions_done: int
    partitions_total: int
    labels_done: int
    labels_total: int


ProgressFn = Callable[[Progress], None]
