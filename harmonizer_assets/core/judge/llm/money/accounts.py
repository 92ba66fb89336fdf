"""The accounts of a run: reservations, usage, and its division among partitions and words."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from harmonizer_assets.core.judge.llm.money.budget import Budget, Reservation
from harmonizer_assets.core.judge.llm.money.ledger import Spent
from harmonizer_assets.core.judge.llm.money.prices import Price
from harmonizer_assets.core.judge.llm.money.shares import (
    Share,
    UsageByPartition,
    cost_of,
    share_out,
)
from harmonizer_assets.core.judge.llm.wire.prompt import Ask
from harmonizer_assets.core.judge.llm.wire.replies import Outcome, Reply
from harmonizer_assets.core.records.label import Usage
from harmonizer_assets.core.records.reports import RunTotals

_log = logging.getLogger(__name__)


class Accounts:
    """Keeps a run within its budget and adds up its usage.

    Attributes:
        price: of the model, or None where it is not known.
    """

    def __init__(self, budget: Budget, price: Price | None, totals: RunTotals) -> None:
        self._budget = budget
        self.price = price
        self._totals = totals
        totals.prices = price.note if price else None

    def reserve(self, prompt_tokens: int, completion_tokens: int) -> Reservation | None:
        """Reserve the most that a call can use; None when that does not fit now."""
        return self._budget.reserve(prompt_tokens, completion_tokens)

    def stop(self) -> None:
        """Record that the budget allows no further call in this run."""
        if not self._totals.stopped_at_budget:
            self._totals.stopped_at_budget = True
            _log.info(
                "the budget stops the run after %d calls: %d tokens, %.6f USD spent",
                self._totals.calls,
                self._budget.spent_tokens,
                self._budget.spent_usd,
            )

    def settle(
        self, asks: Sequence[Ask], reservation: Reservation, reply: Reply
    ) -> tuple[UsageByPartition, list[Share], Spent]:
        """Settle a call that has ended and count it as one more call of its words.

        Returns:
            Its usage per partition, per word in the order of `asks`, and what it has spent.
        """
        spent = self._spent(reservation, reply)
        cost = self._cost(reply)
        repeated = any(ask.calls for ask in asks)
        limited = reply.outcome is Outcome.RATE_LIMITED
        estimated = reply.is_completion and not reply.usage_known
        shares = share_out(reply, cost, len(asks))
        used: UsageByPartition = {}
        for index, (ask, share) in enumerate(zip(asks, shares, strict=True)):
            used.setdefault(ask.partition, Usage()).add(
                Usage(
                    calls=int(index == 0),
                    words_asked=int(ask.calls == 0),
                    prompt_tokens=share.prompt_tokens,
                    cached_tokens=share.cached_tokens,
                    completion_tokens=share.completion_tokens,
                    cost_usd=share.cost,
                    retries=int(index == 0 and repeated),
                    rate_limited=int(index == 0 and limited),
                    estimated_calls=int(index == 0 and estimated),
                )
            )
            ask.calls += 1
        self._add(asks, reply, cost, repeated=repeated, limited=limited)
        self._totals.estimated_calls += estimated
        return used, shares, spent

    def refused(self, reservation: Reservation) -> Spent:
        """Settle a call that the endpoint has refused to take, for which it charges nothing."""
        self._budget.release(reservation)
        return Spent()

    def most(self, reservation: Reservation) -> Spent:
        """Return what a call may use at most."""
        return Spent.at_most(reservation.tokens, reservation.usd if self.price else None)

    def _spent(self, reservation: Reservation, reply: Reply) -> Spent:
        """Settle the budget; return what the call has spent, or may have spent at most."""
        if reply.usage_known:
            cost = self._cost(reply)
            tokens = reply.prompt_tokens + reply.completion_tokens
            self._budget.settle(reservation, tokens, cost)
            return Spent(tokens, cost)
        if reply.outcome in (Outcome.RATE_LIMITED, Outcome.UNSUPPORTED):
            return self.refused(reservation)
        self._budget.forfeit(reservation)
        return self.most(reservation)

    def _cost(self, reply: Reply) -> float | None:
        """Return the USD of a call, None where that is not known.

        Where its tokens are estimated, budgets count the most, the tables what is likely.
        """
        if not (reply.usage_known or reply.is_completion):
            return 0.0
        return cost_of(reply, self.price) if self.price else None

    def _add(
        self,
        asks: Sequence[Ask],
        reply: Reply,
        cost: float | None,
        *,
        repeated: bool,
        limited: bool,
    ) -> None:
        totals = self._totals
        totals.calls += 1
        totals.words_asked += sum(ask.calls == 1 for ask in asks)
        totals.prompt_tokens += reply.prompt_tokens
        totals.completion_tokens += reply.completion_tokens
        if cost is None or totals.cost_usd is None:
            totals.cost_usd = None
        else:
            totals.cost_usd += cost
        totals.retries += repeated
        totals.rate_limited += limited
