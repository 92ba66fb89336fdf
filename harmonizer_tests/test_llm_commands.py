"""The language-model path from the command line and in Dagster, against a simulated endpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dagster import AssetKey

from benchmarks.simulated_endpoint import Endpoint, simulated_endpoint
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.definitions import defs
from harmonizer_assets.instance import open_instance
from harmonizer_assets.materializations import reported_versions
from harmonizer_assets.runs import run_pipeline
from harmonizer_tests.receipts import shop_receipts, table
from harmonizer_tests.test_cli import cli, shown_error
from harmonizer_tests.test_runs import last_materializations

KEY = "sk-test-very-secret"
MERCHANTS = ["Trader Joe's", "O'Reilly | Sons", "日本", "Ümlaut / Café 🍕"]
FAST = {"first_token_seconds": 0.02, "tokens_per_second": 20_000.0}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture(scope="module")
def simulated():
    with simulated_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(simulated: Endpoint, home, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    simulated.configure(**FAST)
    home.settings_file.write_text(
        "[judge]\nskip_high_confidence = false\nbackoff_seconds = 0.01\nmax_attempts = 2\n"
    )
    monkeypatch.setenv("OPENAI_BASE_URL", simulated.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HARMONIZER_MODEL", "gpt-4o-mini")
    return simulated


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return shop_receipts(MERCHANTS).write(tmp_path)


def test_plan_then_run_then_nothing_more(home, endpoint, files, tmp_path):
    words, labels = files
    out = tmp_path / "plan.json"
    planned = cli(
        *("plan", "--words", words, "--labels", labels, "--json", out),
        home=home.root,
        OPENAI_API_KEY="",
    )
    assert planned.returncode == 0, planned.stderr
    assert "to be asked" in planned.stdout
    assert '"items"' in planned.stdout
    assert endpoint.stats()["requests"] == 0
    plan = json.loads(out.read_text())
    run = cli("run", "--judge", "openai", home=home.root)
    assert run.returncode == 0, run.stderr
    stats = endpoint.stats()
    assert stats["words_asked"] == plan["words"] > 0
    assert f"{plan['words']} words in {stats['requests']} calls" in " ".join(run.stdout.split())
    again = cli("run", "--judge", "openai", home=home.root)
    assert again.returncode == 0
    assert "Nothing had changed" in again.stdout
    assert endpoint.stats()["requests"] == stats["requests"]
    assert KEY not in planned.stdout + run.stdout + run.stderr


def test_stopping_at_the_budget_is_neither_success_nor_failure(home, endpoint, files):
    words, labels = files
    run = ("run", "--judge", "openai", "--batch-size", "3", "--budget-tokens", "9000")
    codes = []
    first = cli(*run, "--words", words, "--labels", labels, home=home.root)
    assert first.returncode == 3
    assert "stopped at the budget" in shown_error(first)
    stats = endpoint.stats()
    assert 0 < stats["prompt_tokens"] + stats["completion_tokens"] <= 9_000
    while (result := cli(*run, home=home.root)).returncode == 3:
        codes.append(result.returncode)
        assert len(codes) < 20
    assert result.returncode == 0, result.stderr
    stats = endpoint.stats()
    assert stats["words_asked"] == len(table(Harmonizer(home), "llm_verdicts"))
    assert Harmonizer(home).counts().unresolved == 0


def test_a_budget_in_usd_for_an_unknown_model_is_bad_usage(home, endpoint, files):
    words, labels = files
    result = cli(
        *("run", "--judge", "openai", "--budget-usd", "1", "--words", words, "--labels", labels),
        home=home.root,
        HARMONIZER_MODEL="nobody-knows",
    )
    assert result.returncode == 2
    assert "prices.yaml" in shown_error(result)
    assert endpoint.stats()["requests"] == 0


def test_dead_letters_fail_a_check_until_they_are_retried(home, endpoint, files):
    words, labels = files
    endpoint.configure(**FAST, poison="Sandwich")
    run = cli("run", "--judge", "openai", "--words", words, "--labels", labels, home=home.root)
    assert run.returncode == 0, run.stderr
    assert "no_dead_letters did not pass (error)" in run.stderr
    dead = Harmonizer(home).counts().dead_letters
    assert dead == 16
    endpoint.configure(**FAST)
    assert cli("run", "--judge", "openai", home=home.root).returncode == 0
    assert endpoint.stats()["requests"] == 0
    retried = cli("retry-dead-letters", home=home.root)
    assert retried.returncode == 0, retried.stderr
    assert "16 dead letters before, 0 now" in retried.stdout
    assert "no_dead_letters" not in retried.stderr
    assert Harmonizer(home).counts().unresolved == 0
    assert "no dead letters" in cli("retry-dead-letters", home=home.root).stdout


def test_batches_from_the_command_line(home, endpoint, files):
    words, labels = files
    endpoint.configure(batch_seconds=0.0)
    assert cli("run", "--words", words, "--labels", labels, home=home.root).returncode == 0
    submitted = cli("batch", "submit", home=home.root)
    assert submitted.returncode == 0, submitted.stderr
    batch_id = submitted.stdout.split()[-9]
    status = cli("batch", "status", home=home.root)
    assert "completed" in status.stdout
    collected = cli("batch", "collect", home=home.root)
    assert collected.returncode == 0, collected.stderr
    assert "1 batches" in collected.stdout
    assert endpoint.stats()["requests"] == 0
    assert "collected" in cli("batch", "status", home=home.root).stdout
    assert Harmonizer(home).counts().unresolved == 0
    refused = cli("batch", "cancel", batch_id, home=home.root)
    assert refused.returncode == 2
    assert "no open batch" in shown_error(refused)


def test_usage_shows_in_dagster_per_run_and_per_partition(home, endpoint, files, tmp_path):
    harmonizer = Harmonizer(home)
    shop_receipts(MERCHANTS).submit(harmonizer, tmp_path / "again")
    outcome = run_pipeline(harmonizer, judge="openai")
    stats = endpoint.stats()
    with open_instance(home) as instance:
        event = instance.get_latest_materialization_event(AssetKey("llm_usage"))
        assert event is not None
        assert event.asset_materialization is not None
        totals = event.asset_materialization.metadata
        assert totals["calls"].value == stats["requests"]
        assert totals["prompt_tokens"].value == stats["prompt_tokens"]
        assert totals["cost_usd"].value == pytest.approx(
            sum(row["cost_usd"] for row in outcome.llm), abs=1e-6
        )
        assert len(totals["by_label_type"].value.records) == len(outcome.llm) > 5
        partitions = last_materializations(instance, "llm_verdicts").values()
        calls = sum(partition.metadata["calls"].value for partition in partitions)
        assert calls == stats["requests"]


def test_dagster_jobs_retry_dead_letters_and_plan(home, endpoint, files, tmp_path):
    harmonizer = Harmonizer(home)
    shop_receipts(MERCHANTS[:1]).submit(harmonizer, tmp_path / "again")
    endpoint.configure(**FAST, poison="Sandwich")
    run_pipeline(harmonizer, judge="openai")
    assert harmonizer.counts().dead_letters == 4
    endpoint.configure(**FAST)
    with open_instance(home) as instance:
        plan = defs.resolve_job_def("plan_verdicts").execute_in_process(
            instance=instance, run_config=QUIET
        )
        assert plan.output_for_node("plan")["words"] == 0
        selection = {"dead_letters": True, "judge": "openai"}
        retried = defs.resolve_job_def("retry_dead_letters").execute_in_process(
            instance=instance,
            run_config={**QUIET, "resources": {"selection": {"config": selection}}},
        )
        assert retried.success
        assert harmonizer.counts().dead_letters == 0
        assert set(reported_versions(instance, "outliers")) == set(harmonizer.partitions())
    assert not any(
        KEY.encode() in path.read_bytes() for path in Path(Home(home.root).root).rglob("*.db")
    )
