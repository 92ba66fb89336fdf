"""The plan: what judging would take, before anything is spent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from harmonizer_assets.core.llm.batching import Load, Packer, PartitionWork, batch_words
from harmonizer_assets.core.llm.estimates import Latency, OutputTokens, PromptTokens
from harmonizer_assets.core.llm.judging import LLMJudge
from harmonizer_assets.core.llm.prices import Price
from harmonizer_assets.core.settings import JudgeSettings
from harmonizer_assets.core.stages import Chunk

_ASSUMED_IN_FLIGHT = 64
"""Calls in flight that time is estimated with, where no number is configured."""


@dataclass(frozen=True)
class Plan:
    """What judging some partitions would take; figures of calls, tokens and time are estimates.

    Attributes:
        labels: labels in the partitions that are not up to date.
        skipped_by_similarity: decided without a model.
        cache_hits: questions whose answer is known, or that are asked about another word already.
        words: questions that would be asked.
        usd: None when the model's price is not known.
        seconds: with the endpoint's limits as configured, else with 64 calls in flight.
        prompt: the messages of one call as it would be sent, or None if there is none.
    """

    model: str
    profile: str
    labels: int
    skipped_by_similarity: int
    without_word: int
    cache_hits: int
    words: int
    calls: int
    words_per_call: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    seconds: float
    prompt: list[dict[str, str]] | None

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        return asdict(self)

    def to_text(self) -> str:
        """The plan for people."""
        cost = "unknown: no price for this model" if self.usd is None else f"{self.usd:.4f} USD"
        lines = [
            f"model                  {self.model} ({self.profile})",
            f"labels                 {self.labels:,}",
            f"decided by similarity  {self.skipped_by_similarity:,}",
            f"without a word         {self.without_word:,}",
            f"known already          {self.cache_hits:,}",
            f"to be asked            {self.words:,} words in about {self.calls:,} calls",
            f"tokens, about          {self.prompt_tokens:,} in, {self.completion_tokens:,} out",
            f"cost, about            {cost}",
            f"time, about            {self.seconds:,.1f} s",
        ]
        if self.prompt:
            lines += ["", "One of the prompts:", ""]
            for message in self.prompt:
                content = message["content"]
                if message["role"] == "user":
                    content = json.dumps(json.loads(content), indent=1, ensure_ascii=False)
                lines.append(f"[{message['role']}] {content}")
        return "\n".join(lines)


def make_plan(
    judge: LLMJudge, chunks: Iterable[Chunk], settings: JudgeSettings, price: Price | None
) -> Plan:
    """Estimate what judging these chunks would take; asks nobody anything."""
    output, prompt_tokens, latency = OutputTokens(), PromptTokens(), Latency()
    wire = judge.wire
    packer = Packer(
        settings.max_label_type_concurrency,
        settings.max_merchant_concurrency,
        settings.max_word_concurrency,
    )
    labels = skipped = without_word = hits = 0
    for chunk in chunks:
        for partition in judge.prepare(chunk):
            labels += partition.labels
            skipped += partition.skipped
            without_word += len(partition.without_word)
            hits += len(partition.questions) - len(partition.asks)
            if partition.asks:
                packer.add(PartitionWork(partition.key, list(partition.asks.values())))
    words, calls, prompt_bytes, expected_output = packer.words, 0, 0, 0.0
    reach = packer.reach()
    in_flight = min(settings.max_requests_in_flight or _ASSUMED_IN_FLIGHT, reach.calls)
    example: list[dict[str, str]] | None = None
    price_ratio = price.output / price.input if price and price.input else 4.0
    mean = output.expected(packer.chances / max(1, words))
    load = Load(
        slots=in_flight,
        busy_until=[],
        words=reach.words,
        tokens=reach.words * mean,
        mean_tokens=mean,
        variance=output.variance(packer.chances / max(1, words)),
        first_token=latency.first_token,
        per_token=latency.per_token,
        head_cost=prompt_tokens.expected(wire.prompt_bytes([])),
        word_cost=prompt_tokens.expected(packer.bytes / max(1, words)) + price_ratio * mean,
    )
    most_words = settings.llm_batch_size or batch_words(settings.profile, load)
    while (batch := packer.next(most_words, 0.0)) is not None:
        packer.started(batch)
        packer.ended(batch)
        calls += 1
        prompt_bytes += wire.prompt_bytes(batch.asks)
        expected_output += sum(output.expected(ask.chance) for ask in batch.asks)
        example = example or wire.messages(batch.asks)[0]
    tokens_in, tokens_out = round(prompt_tokens.expected(prompt_bytes)), round(expected_output)
    return Plan(
        model=judge.model,
        profile=settings.profile,
        labels=labels,
        skipped_by_similarity=skipped,
        without_word=without_word,
        cache_hits=hits,
        words=words,
        calls=calls,
        words_per_call=most_words,
        prompt_tokens=tokens_in,
        completion_tokens=tokens_out,
        usd=None if price is None else round(price.cost(tokens_in, tokens_out), 6),
        seconds=_seconds(settings, latency, calls, tokens_in, tokens_out, in_flight),
        prompt=example,
    )


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
