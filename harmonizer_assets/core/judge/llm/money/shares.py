"""The cost of a call, and its usage divided among its words."""

from __future__ import annotations

from dataclasses import dataclass

from harmonizer_assets.core.judge.llm.money.prices import Price
from harmonizer_assets.core.judge.llm.wire.replies import Reply
from harmonizer_assets.core.records.label import Usage
from harmonizer_assets.core.records.partition import PartitionKey

UsageByPartition = dict[PartitionKey, Usage]


def cost_of(reply: Reply, price: Price) -> float:
    """Return the USD that a call has cost."""
    return price.cost(
        reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens, reply.written_tokens
    )


@dataclass(frozen=True)
class Share:
    """One word's share of its call's usage; `cost` is None where no price is known."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost: float | None


def share_out(reply: Reply, cost: float | None, words: int) -> list[Share]:
    """Divide the usage of a reply among its words; the shares add up to the tokens."""
    return [
        Share(*tokens, cost=None if cost is None else cost / words)
        for tokens in zip(
            split_evenly(reply.prompt_tokens, words),
            split_evenly(reply.cached_tokens, words),
            split_evenly(reply.completion_tokens, words),
            strict=True,
        )
    ]


def split_evenly(total: int, parts: int) -> list[int]:
    """Divide a number into whole parts that differ by one at most and add up to it."""
    each, rest = divmod(total, parts)
    return [each + (index < rest) for index in range(parts)]
