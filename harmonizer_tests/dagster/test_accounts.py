"""Which of Dagster's runs share a budget."""

from __future__ import annotations

from threading import Event

import pytest
from dagster import DagsterRun

from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.account import Account
from harmonizer_assets.defs.jobs import harmonize_config
from harmonizer_assets.defs.resources import HarmonizeConfig, account_of
from harmonizer_tests.support.dagster_runs import execute
from harmonizer_tests.support.environment import use_endpoint
from harmonizer_tests.support.receipts import shop_receipts
from harmonizer_tests.support.simulated_endpoint import simulated_endpoint

FIRST = "00000000-0000-0000-0000-000000000001"
RETRY = "00000000-0000-0000-0000-000000000002"


def run(run_id: str, **tags: str) -> DagsterRun:
    return DagsterRun(
        job_name="harmonize_partitions",
        run_id=run_id,
        tags={f"dagster/{name}": value for name, value in tags.items()},
    )


def test_a_retry_is_charged_to_the_launch_of_the_run_that_it_retries():
    assert account_of(run(FIRST)) == Account(FIRST, FIRST)
    retry = run(RETRY, parent_run_id=FIRST, root_run_id=FIRST)
    assert account_of(retry) == Account(RETRY, FIRST)
    assert HarmonizeConfig().to_options(retry, print, Event()).account == Account(RETRY, FIRST)


def test_the_runs_of_a_backfill_are_charged_to_it():
    options = HarmonizeConfig().to_options(run(FIRST, backfill="abcdefgh"), print, Event())
    assert options.account == Account(FIRST, FIRST, "abcdefgh")


@pytest.mark.parametrize(
    ("budget", "tags"),
    [
        ("backfill_budget_tokens", {"dagster/backfill": "abcdefgh"}),
        ("budget_tokens", {"dagster/parent_run_id": FIRST, "dagster/root_run_id": FIRST}),
    ],
)
def test_runs_of_one_backfill_or_launch_spend_one_budget_between_them(
    home, instance, tmp_path, monkeypatch, budget, tags
):
    home.settings_file.write_text(
        f"[judge]\nskip_high_confidence = false\nllm_batch_size = 3\n{budget} = 9_000\n"
    )
    pipeline = Pipeline(home)
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.ingest()
    pipeline.index()
    with simulated_endpoint() as endpoint:
        endpoint.configure(first_token_seconds=0.02, tokens_per_second=20_000.0)
        use_endpoint(monkeypatch, endpoint.url)
        spent = []
        for label_types in (["DATE", "TIME", "PRODUCT_NAME"], ["GRAND_TOTAL"], None):
            config = harmonize_config(judge="openai", label_types=label_types)
            assert execute(instance, home, "harmonize_partitions", config, tags=tags).success
            stats = endpoint.stats()
            spent.append(stats["prompt_tokens"] + stats["completion_tokens"])
        assert 0 < spent[0] <= spent[1] <= spent[2] <= 9_000
        assert spent[2] > 4_500
        assert pipeline.tables.counts().unresolved > 0
        # The next launch has a budget of its own.
        assert execute(
            instance, home, "harmonize_partitions", harmonize_config(judge="openai")
        ).success
        stats = endpoint.stats()
        assert stats["prompt_tokens"] + stats["completion_tokens"] > 9_000
