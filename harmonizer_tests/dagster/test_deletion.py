from __future__ import annotations

from dagster import AssetKey

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.store.deletions import Scope
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.integration.test_deletion import (
    IMAGE,
    TEXTS,
    files_with,
    with_private_receipt,
)
from harmonizer_tests.support.cli import cli
from harmonizer_tests.support.receipts import OFFLINE, table


def test_the_command_says_what_would_go_and_deletes_it_when_asked(home):
    with_private_receipt().write(home.inbox / "monday")
    run_pipeline(home, OFFLINE, log_level="CRITICAL")
    before = {text: files_with(home.root, text) for text in TEXTS}
    assert any(name.startswith("dagster/") for name in before[TEXTS[1]])

    home.settings_file.write_text('[judge]\nanswers = "dynamodb://answers"\n')
    dry = cli("delete", "--image", IMAGE, home=home.root)
    assert "Answers that homes share in dynamodb://answers may quote" in dry.stdout
    assert "answers that homes share" in dry.stdout
    assert dry.returncode == 0
    assert "16 words and 12 labels would be deleted" in dry.stdout
    assert "inbox/.done/monday/words.csv" in dry.stdout
    assert "Nothing was deleted." in dry.stdout
    assert len(table(Pipeline(home), "words")) == 144
    assert {text: files_with(home.root, text) for text in TEXTS} == before

    done = cli("delete", "--image", IMAGE, "--models", "--yes", home=home.root)
    assert done.returncode == 0
    assert "16 words and 12 labels deleted." in done.stdout
    assert {text: files_with(home.root, text) for text in TEXTS} == {text: [] for text in TEXTS}
    with open_instance(home) as instance:
        records = instance.fetch_materializations(AssetKey("outliers"), limit=1_000).records
        shown = [record.asset_materialization for record in records]
    assert any(merchant_key("Alpha Mart") in (event.partition or "") for event in shown)
    outcome = run_pipeline(home, OFFLINE, log_level="CRITICAL")
    assert outcome.failed_checks == []
    assert {text: files_with(home.root, text) for text in TEXTS} == {text: [] for text in TEXTS}


def test_what_python_deletes_leaves_the_events_with_the_next_run_of_dagster(home):
    with_private_receipt().write(home.inbox / "monday")
    run_pipeline(home, OFFLINE, log_level="CRITICAL")
    pipeline = Pipeline(home)
    pipeline.deletion.delete(Scope(IMAGE))
    pipeline.run(OFFLINE)
    run_pipeline(home, OFFLINE, log_level="CRITICAL")
    assert {text: files_with(home.root, text) for text in TEXTS} == {text: [] for text in TEXTS}


def test_a_word_without_its_line_is_refused(home):
    with_private_receipt().write(home.inbox / "monday")
    Pipeline(home).ingest()
    refused = cli("delete", "--image", IMAGE, "--word", "1", home=home.root)
    assert refused.returncode == 2
    assert "a word needs its --line and --receipt" in refused.stderr
