"""The account that spending is charged to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_TOKENS: Final = 1_000_000_000
"""That one call can have taken: where an endpoint tells of more, it is mistaken."""


@dataclass(frozen=True)
class Account:
    """Who spends.

    Attributes:
        run_id: the run.
        launch_id: the first of the runs that retry each other; budgets of a run hold for all.
        backfill_id: the backfill that the run belongs to, if any.
    """

    run_id: str
    launch_id: str
    backfill_id: str | None = None
