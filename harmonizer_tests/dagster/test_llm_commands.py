"""The language-model path from the command line and in Dagster, against a simulated endpoint."""

from __future__ import annotations

import json
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from dagster import AssetKey, DagsterRunStatus

from harmonizer_assets.cli.runs import run_pipeline, run_submit
from harmonizer_assets.core.base.errors import HarmonizerError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.dagster_compat.run_ids import new_run_id
from harmonizer_assets.defs.jobs import harmonize_config
from harmonizer_tests.support.chat_server import chat_server
from harmonizer_tests.support.cli import cli, shown_error, started
from harmonizer_tests.support.dagster_runs import execute, last_materializations, shown_versions
from harmonizer_tests.support.environment import KEY, use_endpoint
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import shop_receipts, table
from harmonizer_tests.support.served import wait_for
from harmonizer_tests.support.simulated_endpoint import Endpoint, simulated_endpoint

MERCHANTS = ["Trader Joe's", "O'Reilly | Sons", "日本", "Ümlaut / Café 🍕"]
PROGRESS = re.compile(r"\w+: [\d,]+( of [\d,]+)?( partitions, .*)?")
FAST = {"first_token_seconds": 0.02, "tokens_per_second": 20_000.0}


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
    use_endpoint(monkeypatch, simulated.url)
    return simulated


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return shop_receipts(MERCHANTS, each=2).write(tmp_path)


@pytest.fixture
def dead_letters(home: Home, endpoint: Endpoint) -> Pipeline:
    """A home whose run got no answers about sandwiches from the endpoint, which is well now."""

    def make(fresh: Home) -> None:
        fresh.settings_file.write_text(home.settings_file.read_text())
        words, labels = shop_receipts(MERCHANTS, each=2).write(fresh.scratch / "files")
        endpoint.configure(**FAST, poison="Sandwich")
        run = cli("run", "--judge", "openai", "--words", words, "--labels", labels, home=fresh.root)
        assert run.returncode == 0, run.stderr
        assert "no_dead_letters did not pass (error)" in run.stderr

    copy_home(home, "dead letters", make)
    endpoint.configure(**FAST)
    return Pipeline(home)


@pytest.mark.parametrize(
    ("command", "budget"),
    [
        (("run", "--judge", "openai"), ("--budget-usd", "0.0000001")),
        (("batch", "submit"), ("--budget-tokens", "10")),
    ],
)
def test_the_budget_of_a_command_limits_its_embeddings_too(
    home, tmp_path, monkeypatch, command, budget
):
    shop_receipts().submit(Pipeline(home), tmp_path)
    home.settings_file.write_text(
        '[embedding]\nembedder = "openai"\nopenai_dimensions = 16\n'
        "[judge]\nskip_high_confidence = false\n"
    )
    with chat_server() as server:
        use_endpoint(monkeypatch, server.url)
        run = cli(*command, *budget, home=home.root)
        assert run.returncode == 3, run.stderr
        assert "stopped at the budget before all documents were embedded" in shown_error(run)
        assert "raise the budget" in shown_error(run)
        assert server.requests == []


def test_embeddings_and_questions_of_a_submission_share_one_budget(home, tmp_path, monkeypatch):
    shop_receipts().submit(Pipeline(home), tmp_path)
    home.settings_file.write_text('[embedding]\nembedder = "openai"\nopenai_dimensions = 16\n')
    submitting = RunOptions(run_id=new_run_id(), judge="openai")
    # The server has no Batch API: what it has embedded before counts all the same.
    with chat_server() as server, suppress(HarmonizerError):
        use_endpoint(monkeypatch, server.url)
        run_submit(home, submitting)
    [embedded] = table(Pipeline(home), "llm_ledger")
    assert embedded["purpose"] == "embeddings"
    assert embedded["launch_id"] == submitting.run_id != embedded["run_id"]


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
    assert re.search(
        r"\d USD \(genai-prices [\d.]+, as of 20\d\d-\d\d-\d\d\)", " ".join(run.stdout.split())
    )
    again = cli("run", "--judge", "openai", home=home.root)
    assert again.returncode == 0
    assert "Nothing had changed" in again.stdout
    assert endpoint.stats()["requests"] == stats["requests"]
    assert KEY not in planned.stdout + run.stdout + run.stderr


def test_stopping_at_the_budget_is_neither_success_nor_failure(home, endpoint, tmp_path):
    words, labels = shop_receipts(MERCHANTS[:2]).write(tmp_path)
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
    assert stats["words_asked"] == len(table(Pipeline(home), "llm_verdicts"))
    assert Pipeline(home).tables.counts().unresolved == 0


def index(home: Home) -> None:
    pipeline = Pipeline(home)
    shop_receipts(MERCHANTS[:1], each=2).submit(pipeline, home.scratch / "files")
    pipeline.ingest()
    pipeline.index()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_step_asks_cancels_the_run_and_nothing_more_is_bought(
    home, endpoint, number, code
):
    copy_home(home, "a shop, indexed", index)
    endpoint.configure(faults={"hang": 1.0})
    run = ("run", "--judge", "openai", "--in-flight", 2, "--batch-size", 1)
    with started(*run, home=home.root) as process:
        wait_for(lambda: endpoint.stats()["requests"] == 2)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    said = [line for line in errors.splitlines() if not PROGRESS.fullmatch(line)]
    assert said == ["Interrupted; what is finished is kept, run again to continue."]
    assert endpoint.stats()["requests"] == 2
    with open_instance(home) as instance:
        assert [run.status for run in instance.get_runs()] == [DagsterRunStatus.CANCELED]


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


def test_dead_letters_fail_a_check_until_they_are_retried(home, endpoint, dead_letters):
    assert dead_letters.tables.counts().dead_letters == 8
    assert cli("run", "--judge", "openai", home=home.root).returncode == 0
    assert endpoint.stats()["requests"] == 0
    retried = cli("retry-dead-letters", home=home.root)
    assert retried.returncode == 0, retried.stderr
    assert "8 dead letters before, 0 now" in retried.stdout
    assert "no_dead_letters" not in retried.stderr
    assert Pipeline(home).tables.counts().unresolved == 0
    assert "no dead letters" in cli("retry-dead-letters", home=home.root).stdout


def test_batches_from_the_command_line(shop, home, endpoint):
    endpoint.configure(batch_seconds=0.0)
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
    assert Pipeline(home).tables.counts().unresolved == 0
    refused = cli("batch", "cancel", batch_id, home=home.root)
    assert refused.returncode == 2
    assert "no open batch" in shown_error(refused)


def test_usage_shows_in_dagster_per_run_and_per_partition(home, endpoint, files, tmp_path):
    pipeline = Pipeline(home)
    shop_receipts(MERCHANTS, each=2).submit(pipeline, tmp_path / "again")
    outcome = run_pipeline(pipeline.home, RunOptions(judge="openai"))
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


def test_dagster_jobs_retry_dead_letters_and_plan(home, dead_letters):
    pipeline = dead_letters
    with open_instance(home) as instance:
        plan = execute(instance, home, "plan_verdicts")
        [planned] = plan.asset_materializations_for_node("llm_plan")
        assert planned.metadata["words"].value == 0
        asked = harmonize_config(dead_letters=True, judge="openai")
        retried = execute(instance, home, "retry_dead_letters", asked)
        assert retried.success
        assert pipeline.tables.counts().dead_letters == 0
        assert set(shown_versions(instance, "outliers")) == set(pipeline.partitions.held())
    assert not any(
        KEY.encode() in path.read_bytes() for path in Path(Home(home.root).root).rglob("*.db")
    )
