"""The plan: estimate calls, tokens, time and cost before anything is spent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from harmonizer_assets.core.base.settings import JudgeSettings
from harmonizer_assets.core.judge.llm.calls.estimates import Estimates, Latency
from harmonizer_assets.core.judge.llm.calls.packing import Packer, Reach
from harmonizer_assets.core.judge.llm.calls.sizing import Load, words_per_call
from harmonizer_assets.core.judge.llm.calls.work import PartitionWork
from harmonizer_assets.core.judge.llm.judging import LLMJudge
from harmonizer_assets.core.judge.llm.memory.shared.sharing import open_cache
from harmonizer_assets.core.judge.llm.money.prices import Price
from harmonizer_assets.core.judge.llm.partitions import PreparedPartition
from harmonizer_assets.core.judge.llm.wire.prompt import Prompts
from harmonizer_assets.core.stages.stage import Chunk

_ASSUMED_IN_FLIGHT = 64
"""Calls in flight that time is estimated with, where no number is configured."""


@dataclass(frozen=True)
class Plan:
    """Estimates of judging some partitions: calls, tokens, time and cost.

    Attributes:
        labels: labels in the partitions that are not up to date.
        skipped_by_similarity: decided without a model.
        unasked: not worth a question as long as there is no guarantee.
        cache_hits: questions whose answer is cached, or that equal the question about another word.
        words: questions that would be asked.
        usd: None when the model's price is not known.
        price_source: source of the price, None when it is not known.
        prices_as_of: the date of the price data, as YYYY-MM-DD.
        seconds: with the endpoint's limits as configured, else with 64 calls in flight.
        prompt: the messages of one call as it would be sent, or None if there is none.
    """

    model: str
    profile: str
    labels: int
    skipped_by_similarity: int
    without_word: int
    unasked: int
    cache_hits: int
    words: int
    calls: int
    words_per_call: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    price_source: str | None
    prices_as_of: str | None
    seconds: float
    prompt: list[dict[str, str]] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return asdict(self)

    def cost(self) -> str:
        """Describe the cost, with source and date of the price."""
        if self.usd is None:
            return "unknown: no price for this model"
        return f"{self.usd:.4f} USD ({self.price_source}, as of {self.prices_as_of})"


@dataclass
class _Asked:
    """Totals of the calls of a plan."""

    calls: int = 0
    prompt_bytes: int = 0
    completion_tokens: float = 0.0
    example: list[dict[str, str]] | None = None


def make_plan(
    judge: LLMJudge, chunks: Iterable[Chunk], settings: JudgeSettings, price: Price | None
) -> Plan:
    """Estimate what judging these chunks would take; no call is sent.

    Raises:
        StoreError: the cache that homes share cannot be read.
    """
    estimates = Estimates()
    packer = Packer(
        settings.max_label_type_concurrency,
        settings.max_merchant_concurrency,
        settings.max_word_concurrency,
    )
    partitions = [partition for chunk in chunks for partition in judge.prepare(chunk)]
    if settings.answers is not None:
        _leave_out_shared(partitions, settings.answers)
    for partition in partitions:
        if partition.asks:
            packer.add(PartitionWork(partition.key, list(partition.asks.values())))
    words, reach = packer.words, packer.reach()
    in_flight = min(settings.max_requests_in_flight or _ASSUMED_IN_FLIGHT, reach.calls)
    most_words = settings.llm_batch_size or words_per_call(
        settings.profile, _load(packer, reach, in_flight, judge.wording.prompts, estimates, price)
    )
    asked = _ask(packer, most_words, judge.wording.prompts, estimates)
    tokens_in = round(estimates.prompt.expected(asked.prompt_bytes))
    tokens_out = round(asked.completion_tokens)
    return Plan(
        model=judge.model,
        profile=settings.profile,
        **_counts(partitions),
        words=words,
        calls=asked.calls,
        words_per_call=most_words,
        prompt_tokens=tokens_in,
        completion_tokens=tokens_out,
        usd=None if price is None else round(price.cost(tokens_in, tokens_out), 6),
        price_source=None if price is None else price.source,
        prices_as_of=None if price is None else price.as_of.isoformat(),
        seconds=_seconds(
            settings, estimates.latency, asked.calls, tokens_in, tokens_out, in_flight
        ),
        prompt=asked.example,
    )


def _leave_out_shared(partitions: Sequence[PreparedPartition], url: str) -> None:
    """Leave out the questions whose answers are in the cache that homes share."""
    keys = {key for partition in partitions for key in partition.asks}
    with closing(open_cache(url)) as cache:
        answered = cache.look_up(sorted(keys))
    for partition in partitions:
        partition.asks = {k: ask for k, ask in partition.asks.items() if k not in answered}


def _counts(partitions: Sequence[PreparedPartition]) -> dict[str, int]:
    return {
        "labels": sum(one.labels for one in partitions),
        "skipped_by_similarity": sum(one.skipped for one in partitions),
        "without_word": sum(len(one.without_word) for one in partitions),
        "unasked": sum(len(one.unasked) for one in partitions),
        "cache_hits": sum(len(one.questions) - len(one.asks) for one in partitions),
    }


def _load(
    packer: Packer,
    reach: Reach,
    in_flight: int,
    prompts: Prompts,
    estimates: Estimates,
    price: Price | None,
) -> Load:
    """Describe the load before the first call, when the endpoint's limits are unknown."""
    words = max(1, packer.words)
    output, latency = estimates.output, estimates.latency
    mean = output.expected(packer.chances / words)
    price_ratio = price.output / price.input if price and price.input else 4.0
    return Load(
        slots=in_flight,
        busy_until=[],
        words=reach.words,
        tokens=reach.words * mean,
        mean_tokens=mean,
        variance=output.variance(packer.chances / words),
        first_token=latency.first_token,
        per_token=latency.per_token,
        head_cost=estimates.prompt.expected(prompts.prompt_bytes([])),
        word_cost=estimates.prompt.expected(packer.bytes / words) + price_ratio * mean,
    )


def _ask(packer: Packer, most_words: int, prompts: Prompts, estimates: Estimates) -> _Asked:
    """Take all calls from a packer, as if each were sent."""
    asked = _Asked()
    while (call := packer.next(most_words, 0.0)) is not None:
        packer.started(call)
        packer.ended(call)
        asked.calls += 1
        asked.prompt_bytes += prompts.prompt_bytes(call.asks)
        expected = sum(estimates.output.expected(ask.chance) for ask in call.asks)
        asked.completion_tokens += expected
        asked.example = asked.example or prompts.messages(call.asks)[0]
    return asked


def _seconds(
    settings: JudgeSettings,
    latency: Latency,
    calls: int,
    tokens_in: int,
    tokens_out: int,
    in_flight: int,
) -> float:
    by_latency = latency.first_token * calls + latency.per_token * tokens_out
    by_calls = calls * 60 / settings.requests_per_minute if settings.requests_per_minute else 0.0
    tokens = tokens_in + tokens_out
    by_tokens = tokens * 60 / settings.tokens_per_minute if settings.tokens_per_minute else 0.0
    return round(max(by_latency / max(1, min(calls, in_flight)), by_calls, by_tokens), 1)
