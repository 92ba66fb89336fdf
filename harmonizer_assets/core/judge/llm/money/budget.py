"""A budget that spending and reservations together never exceed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.judge.llm.money.prices import Price


@dataclass(frozen=True)
class Reservation:
    """The most that one call can use."""

    tokens: int
    usd: float


NOTHING: Final = Reservation(0, 0.0)


class Budget:
    """Keeps spending and reservations within limits of tokens and USD.

    A call reserves the most that it could use before it is sent, and releases what it did not use.
    The usage of a failed call is not known; it counts as the whole reservation.
    """

    def __init__(
        self, max_tokens: int | None, max_usd: float | None, price: Price | None, model: str
    ) -> None:
        """Set the limits; None means no limit.

        Raises:
            ConfigurationError: there is a limit in USD, and the model's price is not known.
        """
        if max_usd is not None and price is None:
            raise ConfigurationError(
                f"a budget in USD needs the price of model {model!r}, which nobody has "
                "published: add it to prices.yaml in the home folder, or set a budget in tokens"
            )
        self._max_tokens = max_tokens
        self._max_usd = max_usd
        self._price = price
        self.spent_tokens = 0
        self.spent_usd = 0.0
        self.reserved_tokens = 0
        self.reserved_usd = 0.0

    def reserve(self, prompt_tokens: int, completion_tokens: int) -> Reservation | None:
        """Reserve the most that a call can use; None when that does not fit now."""
        usd = 0.0
        if self._price is not None:
            usd = self._price.most(prompt_tokens, completion_tokens)
        tokens = prompt_tokens + completion_tokens
        taken_tokens = self.spent_tokens + self.reserved_tokens + tokens
        taken_usd = self.spent_usd + self.reserved_usd + usd
        if self._max_tokens is not None and taken_tokens > self._max_tokens:
            return None
        if self._max_usd is not None and taken_usd > self._max_usd:
            return None
        self.reserved_tokens += tokens
        self.reserved_usd += usd
        return Reservation(tokens, usd)

    def settle(self, reservation: Reservation, tokens: int, usd: float | None) -> None:
        """Replace a reservation by the usage of the call."""
        self.release(reservation)
        self.spent_tokens += tokens
        self.spent_usd += usd or 0.0

    def forfeit(self, reservation: Reservation) -> None:
        """Count a reservation as spent, for a call whose usage is not known."""
        self.settle(reservation, reservation.tokens, reservation.usd)

    def release(self, reservation: Reservation) -> None:
        """Release a reservation, for example of a call that the endpoint refused."""
        self.reserved_tokens -= reservation.tokens
        # Sums of many small amounts must not leave a negative rest.
        self.reserved_usd = max(0.0, self.reserved_usd - reservation.usd)
