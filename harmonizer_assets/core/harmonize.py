"""`harmonize_all_labels`: score, judge and publish, for asynchronous callers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from harmonizer_assets.core.base.aio import in_thread
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.base.settings import CacheScope, Profile, Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.reports import HarmonizeReport


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
    the setting of the home as it is; see `JudgeSettings` for what each does. A caller that is
    cancelled ends the run: no call is started any more, and what was answered is kept.

    Args:
        home: with labels that are ingested and indexed.
        label_types: only these.
        merchants: only these merchants, by key or display name.
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
        InputError: a label type or merchant does not exist.
        ConfigurationError: there is no key, or a budget in USD for a model without a price.
        JudgeError: the endpoint can answer nothing; what it answered before is kept.
    """
    base = settings or Settings.load(home.settings_file)
    pipeline = Pipeline(
        home,
        base.with_judge(
            max_label_type_concurrency=max_label_type_concurrency,
            max_merchant_concurrency=max_merchant_concurrency,
            max_word_concurrency=max_word_concurrency,
            llm_batch_size=llm_batch_size,
            skip_high_confidence=skip_high_confidence,
            max_requests_in_flight=max_requests_in_flight,
            profile=profile,
            cache_scope=cache_scope,
            budget_usd=budget_usd,
            budget_tokens=budget_tokens,
        ),
    )
    pipeline.judge.check("openai")
    pipeline.partitions.check_label_types(label_types or ())
    options = RunOptions(
        judge="openai",
        label_types=label_types,
        merchants=merchants,
        refresh=refresh,
        on_progress=on_progress,
    )

    def work(stop: threading.Event) -> HarmonizeReport:
        return pipeline.harmonize(replace(options, stop=stop))

    return await in_thread(work)
