"""The account that spending is charged to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_MOST_TOKENS: Final = 1_000_000_000
"""That one call can have taken: where an endpoint tells of more, it is mistaken."""


def token_count(told: Any) -> int:
    """Read how many tokens an endpoint says a call took; none where it says nothing.

    A negative number would give money back, and one that no column holds could not be stored.

    Raises:
        ValueError: it cannot be right.
    """
    try:
        number = int(told or 0)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"no number of tokens: {type(told).__name__}") from error
    if not 0 <= number <= _MOST_TOKENS:
        raise ValueError(f"{number} tokens")
    return number


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
