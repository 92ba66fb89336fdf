"""`harmonize_all_labels`: the whole way from scored evidence to outliers, in one call."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.llm.scheduler import RunTotals
from harmonizer_assets.core.progress import ProgressFn
from harmonizer_assets.core.results import Counts
from harmonizer_assets.core.settings import CacheScope, Profile, Settings


@dataclass(frozen=True)
class HarmonizeReport:
    """What a run did.

    Attributes:
        run_id: under which `llm_usage` keeps what it used.
        partitions: partitions that were judged anew.
        failed: partitions that could not be computed; all others are done.
        counts: the home's totals afterwards.
        totals: calls, tokens and cost of this run.
        seconds: from start to end.
    """

    run_id: str
    partitions: int
    failed: int
    counts: Counts
    totals: RunTotals
    seconds: float

    @property
    def stopped_at_budget(self) -> bool:
        """Whether the budget was used up before all was asked; run again to go on."""
        return self.totals.stopped_at_budget


async def harmonize_all_labels(
    home: Home,
    *,
    label_types: Sequence[str] | None = None,
    merchants: Sequence[str] | None = None,
    settings: Settings | None = None,
    max_label_type_concurrency: int | None = None,
    max_merchant_concurrency: int | None = None,
    max_word_concurrency: int | None = None,
    llm_batch_size: int | None = None,
    skip_high_confidence: bool | None = None,
    max_requests_in_flight: int | None = None,
    profile: Profile | None = None,
    cache_scope: CacheScope | None = None,
    budget_usd: float | None = None,
    budget_tokens: int | None = None,
    refresh: bool = False,
    on_progress: ProgressFn | None = None,
) -> HarmonizeReport:
    """Score, judge and publish all labels that are not up to date, with the openai judge.

    Label types, merchants and words are in flight at the same time. Arguments that are None leave
    the setting of the home as it is; see `JudgeSettings` for what each does.

    Args:
        home: with labels that are ingested and indexed.
        label_types: only these.
        merchants: only these merchant keys.
        settings: instead of the home's `harmonizer.toml`.
        max_label_type_concurrency: label types in flight (5 by default).
        max_merchant_concurrency: merchants of one label type in flight (10).
        max_word_concurrency: calls in flight for one merchant and label type (20).
        llm_batch_size: words per call; chosen by default (the old plan's size was 10).
        skip_high_confidence: ask only about what similarity leaves open.
        max_requests_in_flight: in all; learned by default.
        profile: `fast` or `cheap`.
        cache_scope: `context` or `word`.
        budget_usd: the most that this run may spend.
        budget_tokens: the most tokens that this run may use.
        refresh: judge partitions again although nothing has changed; answers still come from the
            cache.
        on_progress: called as partitions are finished.

    Raises:
        ConfigurationError: there is no key, or a budget in USD for a model without a price.
        JudgeError: the endpoint can answer nothing; what it answered before is kept.
    """
    began = time.monotonic()
    chosen: dict[str, Any] = {
        "max_label_type_concurrency": max_label_type_concurrency,
        "max_merchant_concurrency": max_merchant_concurrency,
        "max_word_concurrency": max_word_concurrency,
        "llm_batch_size": llm_batch_size,
        "skip_high_confidence": skip_high_confidence,
        "max_requests_in_flight": max_requests_in_flight,
        "profile": profile,
        "cache_scope": cache_scope,
        "budget_usd": budget_usd,
        "budget_tokens": budget_tokens,
    }
    base = settings or Settings.load(home.settings_file)
    harmonizer = Harmonizer(home, base.with_judge(**chosen))
    harmonizer.check_judge("openai")
    run_id = uuid.uuid4().hex
    options: dict[str, Any] = {"run_id": run_id, "on_progress": on_progress, "refresh": refresh}
    partitions = await asyncio.to_thread(
        harmonizer.stale_partitions, "openai", label_types, merchants, refresh=refresh
    )
    await asyncio.to_thread(lambda: list(harmonizer.score_partitions(partitions, **options)))
    judged = 0
    async for result in harmonizer.ask_partitions(partitions, **options):
        judged += result.changed
    await asyncio.to_thread(
        lambda: list(harmonizer.publish_outliers(partitions, judge="openai", **options))
    )
    counts = await asyncio.to_thread(harmonizer.counts)
    failed = await asyncio.to_thread(harmonizer.failed_partitions, run_id)
    return HarmonizeReport(
        run_id,
        judged,
        len(failed),
        counts,
        replace(harmonizer.llm_totals),
        time.monotonic() - began,
    )
