"""What an embedder that costs something tells of its calls, before and after each."""

from __future__ import annotations

from typing import Any, Protocol


class Meter(Protocol):
    """Keeps the calls of an embedder within a budget, and counts them."""

    def begin(self) -> None:
        """Wait until no other process of the home buys anything; called before what is to be
        embedded is decided."""

    def reserve(self, tokens: int) -> Any:
        """Reserve the most that a call can use.

        Raises:
            BudgetReached: it does not fit into the budget.
        """

    def settle(self, reserved: Any, tokens: int | None) -> None:
        """Replace what was reserved by what was used; None where that is not known."""
