from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from dagster import AssetKey

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.store.deletions import Scope
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.integration.test_deletion import (
    IMAGE,
    TEXTS,
    files_with,
    mark,
    with_private_receipt,
)
from harmonizer_tests.support.cli import cli
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import (
    OFFLINE,
    WORD_COLUMNS,
    Receipts,
    shop_receipts,
    table,
)

MERCHANT = "Bäckerei Plauderbach"


@pytest.fixture
def private(home: Home) -> Pipeline:
    """A home that has run with a private receipt, whose batch lies in the inbox's `.done`."""
    copy_home(home, "run by Dagster with a private receipt", run_with(with_private_receipt()))
    return Pipeline(home)


def run_with(receipts: Receipts) -> Callable[[Home], None]:
    def run(home: Home) -> None:
        receipts.write(home.inbox / "monday")
        run_pipeline(home, OFFLINE, log_level="CRITICAL")

    return run


def test_the_command_says_what_would_go_and_deletes_it_when_asked(home, private):
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
    assert len(table(private, "words")) == 144
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


def test_what_python_deletes_leaves_the_events_with_the_next_run_of_dagster(home, private):
    private.deletion.delete(Scope(IMAGE))
    private.run(OFFLINE)
    run_pipeline(home, OFFLINE, log_level="CRITICAL")
    assert {text: files_with(home.root, text) for text in TEXTS} == {text: [] for text in TEXTS}


def test_a_word_without_its_line_is_refused(home):
    with_private_receipt().write(home.inbox / "monday")
    Pipeline(home).ingest()
    refused = cli("delete", "--image", IMAGE, "--word", "1", home=home.root)
    assert refused.returncode == 2
    assert "a word needs its --line and --receipt" in refused.stderr


def with_private_merchant() -> Receipts:
    """Shops' receipts, and one of a merchant that has no other, under two spellings."""
    receipts, mine = shop_receipts(), Receipts()
    mine.add_receipt(IMAGE, MERCHANT, wrong_total="DATE")
    mine.labels[0]["merchant_name"] = MERCHANT.upper()
    receipts.words += mine.words
    receipts.labels += mine.labels
    return receipts


@pytest.fixture
def deletable(home: Home) -> Pipeline:
    """A home that names that merchant wherever a home may."""
    copy_home(home, "a merchant that is named everywhere", name_everywhere)
    return Pipeline(home)


def name_everywhere(home: Home) -> None:
    run_with(with_private_merchant())(home)
    assert cli("run", "--merchant", MERCHANT, "--refresh", home=home.root).returncode == 0
    pipeline = Pipeline(home)
    key = key_of_merchant(pipeline)
    pipeline.warehouse.write(
        lambda con: (
            con.execute(
                "INSERT INTO llm_usage VALUES "
                "('r', 'DATE', $1, 3, 5, 0, 0, 9, 9, 0.5, 0, 0, 1.0, 0, 0)",
                [key],
            ),
            con.execute(
                "INSERT INTO label_rules VALUES "
                "('r', 1, 'accepted', 'DATE', 'm', NULL, $1, NULL, 's', 'ann', NULL, now())",
                [key],
            ),
        )
    )
    log = compute_log(home)
    log.parent.mkdir(parents=True)
    log.write_text(f"about {key} of {MERCHANT}\n")


def compute_log(home: Home) -> Path:
    return home.dagster / "storage" / "a-run" / "compute_logs" / "step.err"


def key_of_merchant(pipeline: Pipeline) -> str:
    [key] = {row["merchant_key"] for row in table(pipeline, "labels") if row["image_id"] == IMAGE}
    return str(key)


def naming(folder: Path) -> list[str]:
    """Files that hold a part of the merchant's name, in whatever case."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and b"plauderbach" in path.read_bytes().lower()
    ]


@pytest.mark.parametrize("by", ["command", "batch"])
def test_the_name_of_a_merchant_whose_last_receipt_is_deleted_is_nowhere(
    home, deletable, tmp_path, by
):
    key = key_of_merchant(deletable)
    with open_instance(home) as instance:
        assert key in instance.get_dynamic_partitions("merchants")
    assert {name.partition("/")[0] for name in naming(home.root)} >= {
        "chroma",
        "dagster",
        "harmonizer.duckdb",
        "inbox",
        "read_only",
        "reports",
    }
    if by == "command":
        assert cli("delete", "--image", IMAGE, "--yes", home=home.root).returncode == 0
        assert naming(home.root) == []
    else:
        row = {**dict.fromkeys(WORD_COLUMNS, ""), "image_id": IMAGE}
        submit_batch(home, mark(tmp_path, WORD_COLUMNS, row), None)
    outcome = run_pipeline(home, OFFLINE, log_level="CRITICAL")
    assert outcome.failed_checks == []
    assert naming(home.root) == []
    assert compute_log(home).read_text() == "about deleted-merchant of [deleted]\n"
    assert table(deletable, "label_rules") == []
    [usage] = table(deletable, "llm_usage")
    assert (usage["merchant_key"], usage["cost_usd"]) == ("deleted-merchant", 0.5)
    with open_instance(home) as instance:
        assert key not in instance.get_dynamic_partitions("merchants")
        materialized = instance.get_materialized_partitions(AssetKey("outliers"))
        assert f"DATE|{merchant_key('Alpha Mart')}" in materialized
        assert len(instance.get_run_records()) >= 4


def test_a_merchant_that_keeps_a_receipt_keeps_its_key(home):
    receipts = with_private_merchant()
    receipts.add_receipt("another", MERCHANT)
    receipts.write(home.inbox / "monday")
    run_pipeline(home, OFFLINE, log_level="CRITICAL")
    assert cli("delete", "--image", IMAGE, "--yes", home=home.root).returncode == 0
    key = merchant_key(MERCHANT)
    assert key in {row["merchant_key"] for row in table(Pipeline(home), "labels")}
    with open_instance(home) as instance:
        assert key in instance.get_dynamic_partitions("merchants")
    with closing(sqlite3.connect(home.dagster / "history" / "runs" / "index.db")) as con:
        found = con.execute(
            "SELECT count(*) FROM event_logs WHERE partition = ?", [f"DATE|{key}"]
        ).fetchone()
    assert found[0] > 0
