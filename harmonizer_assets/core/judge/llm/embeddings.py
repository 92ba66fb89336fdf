"""Embeddings through an endpoint: within the budgets, in the ledger and in the usage."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import duckdb

from harmonizer_assets.core.base.errors import BudgetReached
from harmonizer_assets.core.base.settings import JudgeSettings
from harmonizer_assets.core.judge.llm.memory.cache import add_usage
from harmonizer_assets.core.judge.llm.money.budget import Budget, Reservation
from harmonizer_assets.core.judge.llm.money.ledger import Spent, add_spent, left, settle
from harmonizer_assets.core.judge.llm.money.prices import Price
from harmonizer_assets.core.records.account import Account
from harmonizer_assets.core.records.label import Usage
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.store.warehouse import Warehouse

EMBEDDINGS: Final = PartitionKey("(embeddings)", "(all)")
"""The place of embeddings in `llm_usage`: they belong to no label type and no merchant."""


@dataclass(frozen=True)
class _Reserved:
    entry: str
    reservation: Reservation


class EmbeddingMeter:
    """Keeps embeddings within the budgets; each call is in the ledger before it is sent."""

    def __init__(
        self,
        warehouse: Warehouse,
        settings: JudgeSettings,
        account: Account,
        model: str,
        price: Price | None,
        take_lease: Callable[[], None],
    ) -> None:
        """Charge an account.

        Args:
            warehouse: holds the ledger.
            settings: with the budgets.
            account: that is charged.
            model: that embeds.
            price: of it; None where it is not known.
            take_lease: waits until nobody else asks; the caller gives the lease back.

        Raises:
            ConfigurationError: there is a budget in USD, and the model's price is not known.
        """
        self._warehouse = warehouse
        self._settings = settings
        self._account = account
        self._model = model
        self._price = price
        self._take_lease = take_lease
        self._budget: Budget | None = None
        Budget(None, 0.0 if settings.limits_usd else None, price, model)

    def begin(self) -> None:
        """Wait until nobody else asks, then read what the budgets leave."""
        if self._budget is None:
            self._take_lease()
            limits = self._warehouse.read(lambda con: left(con, self._settings, self._account))
            self._budget = Budget(*limits, self._price, self._model)

    def reserve(self, tokens: int) -> _Reserved:
        """Reserve the most that a call can use, and note it in the ledger.

        Raises:
            BudgetReached: it does not fit into the budget.
        """
        self.begin()
        assert self._budget is not None
        reservation = self._budget.reserve(tokens, 0)
        if reservation is None:
            raise BudgetReached(
                "stopped at the budget before all documents were embedded: what is embedded is "
                "kept; raise the budget, or run again when it allows more"
            )
        entry = f"embeddings {uuid.uuid4().hex}"
        most = Spent.at_most(tokens, reservation.usd if self._price else None)
        self._warehouse.write(
            lambda con: add_spent(con, entry, self._account, most, purpose="embeddings")
        )
        return _Reserved(entry, reservation)

    def settle(self, reserved: _Reserved, tokens: int | None) -> None:
        """Replace what was reserved by what was used; None where that is not known."""
        assert self._budget is not None
        if tokens is None:
            self._budget.forfeit(reserved.reservation)
            return
        usd = self._price.cost(tokens, 0) if self._price else None
        self._budget.settle(reserved.reservation, tokens, usd)
        usage = Usage(calls=1, prompt_tokens=tokens, cost_usd=usd)

        def write(con: duckdb.DuckDBPyConnection) -> None:
            settle(con, reserved.entry, tokens, usd)
            add_usage(con, self._account.run_id, {EMBEDDINGS: usage})

        self._warehouse.write(write)
