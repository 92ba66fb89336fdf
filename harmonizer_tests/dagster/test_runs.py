from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from dagster import DagsterRunStatus

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.dagster_compat.instance import LLM_POOL, open_instance
from harmonizer_assets.definitions import build_definitions
from harmonizer_assets.defs.jobs import HARMONIZE_STEP, harmonize_config
from harmonizer_assets.defs.partitions import from_dagster
from harmonizer_tests.support.cli import ROOT, cli, started
from harmonizer_tests.support.dagster_runs import (
    execute,
    last_materializations,
    range_run,
    shown_versions,
)
from harmonizer_tests.support.receipts import OFFLINE, Receipts, shop_receipts, table
from harmonizer_tests.support.signals import DroppedSignal


def test_every_partition_carries_counts_rates_and_its_worst_outliers(shop, instance):
    found = last_materializations(instance, "outliers")
    suspicious = [partition for partition in found if partition.label_type == "DATE"]
    assert len(suspicious) == 2
    for partition in suspicious:
        metadata = found[partition].metadata
        assert metadata["labels"].value == 5
        assert metadata["outliers"].value == 1
        assert metadata["outlier_rate"].value == 0.2
        assert "TOTAL [13.50]" in metadata["summary"].value
        assert "GRAND_TOTAL" in metadata["summary"].value


def test_a_range_run_gives_each_partition_its_own_metadata(shop, home, instance):
    keys = instance.get_dynamic_partitions("merchants")
    assert range_run(instance, home, f"DATE|{keys[0]}", f"TAX|{keys[-1]}").success
    ranged = last_materializations(instance, "outliers")
    for key in keys:
        assert ranged[from_dagster(f"COUPON|{key}")].metadata["labels"].value == 0
    for partition in shop.partitions.held(["DATE", "TIME", "SUBTOTAL"]):
        labels = 5 if partition.label_type == "DATE" else 4
        assert ranged[partition].metadata["labels"].value == labels
        assert ranged[partition].metadata["unchanged"].value is True


def test_a_run_reports_the_partitions_whose_rows_are_not_those_that_the_ui_shows(
    shop, tmp_path, instance
):
    shown = shown_versions(instance, "similarity_matches")
    more = Receipts()
    more.add_receipt("another", "Alpha Mart")
    more.submit(shop, tmp_path / "more")
    # A run that is killed has committed its rows and not reported them.
    shop.ingest()
    shop.index()
    stale = shop.stale(OFFLINE)
    list(shop.score.run(stale, OFFLINE))
    assert shown_versions(instance, "similarity_matches") == shown
    outcome = run_pipeline(shop.home, OFFLINE)
    assert outcome.partitions_computed["similarity_matches"] == 0
    now = shown_versions(instance, "similarity_matches")
    assert {partition for partition in now if now[partition] != shown.get(partition)} == set(stale)


def test_a_partition_that_loses_its_labels_is_shown_as_empty(shop, tmp_path, instance):
    moved = Receipts()
    for copy in range(4):
        moved.add_receipt(f"image-0-{copy}", "Renamed Mart", total=f"{10 + copy}.50")
    moved.submit(shop, tmp_path / "moved")
    run_pipeline(shop.home, OFFLINE)
    [alpha] = {
        partition.merchant_key
        for partition in shown_versions(instance, "outliers")
        if partition.merchant_key.startswith("alpha")
    }
    emptied = {
        partition: content.metadata["labels"].value
        for partition, content in last_materializations(instance, "outliers").items()
        if partition.merchant_key == alpha
    }
    # The mislabelled total keeps its label at the old merchant.
    assert {key.label_type for key, labels in emptied.items() if labels} == {"DATE"}
    assert shop.partitions.emptied() == []
    assert all(
        row["merchant_key"] != alpha or row["label"] == "DATE" for row in table(shop, "outliers")
    )


def test_the_judge_of_a_run_is_that_of_the_settings_unless_it_is_named(home, tmp_path, instance):
    home.settings_file.write_text("[judge]\njudge = 'openai'\n")
    pipeline = Pipeline(home)
    shop_receipts().submit(pipeline, tmp_path)
    execute(instance, home, "ingest_and_index")
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        execute(instance, home, "harmonize_partitions")
    named = harmonize_config(judge="offline")
    assert execute(instance, home, "harmonize_partitions", named).success


def test_an_interrupted_run_is_canceled_and_the_next_one_continues(pipeline, tmp_path, instance):
    shop_receipts().submit(pipeline, tmp_path)

    def interrupt(progress):
        if progress.stage == "llm_verdicts":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(pipeline.home, replace(OFFLINE, on_progress=interrupt))
    assert instance.get_runs(limit=1)[0].status == DagsterRunStatus.CANCELED
    outcome = run_pipeline(pipeline.home, OFFLINE)
    assert outcome.partitions_computed["similarity_matches"] == 0
    assert outcome.failed_checks == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_is_canceled_by_a_signal_whose_exception_was_dropped(pipeline, tmp_path, instance):
    shop_receipts().submit(pipeline, tmp_path)
    for number in (signal.SIGINT, signal.SIGTERM):
        noted = []

        def interrupt(progress, number=number, noted=noted):
            if progress.stage == "similarity_matches" and not noted:
                noted.append(DroppedSignal(number))
                noted[0] = None

        with pytest.raises(KeyboardInterrupt):
            run_pipeline(pipeline.home, replace(OFFLINE, on_progress=interrupt))
        assert instance.get_runs(limit=1)[0].status == DagsterRunStatus.CANCELED
        assert len(table(pipeline, "outliers")) == 0
    assert run_pipeline(pipeline.home, OFFLINE).failed_checks == []


def test_labels_that_wait_to_be_scored_fail_a_check(shop, home, tmp_path, instance):
    more = Receipts()
    more.add_receipt("another", "Alpha Mart")
    more.submit(shop, tmp_path / "more")
    shop.ingest()
    checks = execute(instance, home, "check_labels")
    failed = {
        check.check_name for check in checks.get_asset_check_evaluations() if not check.passed
    }
    assert failed == {"all_partitions_current", "embeddings_complete"}


def test_merchants_are_named_by_key_or_by_display_name_in_any_case(shop):
    [alpha, beta] = sorted({partition.merchant_key for partition in shop.partitions.held()})
    assert shop.partitions.merchant_keys([alpha]) == [alpha]
    assert shop.partitions.merchant_keys(["alpha mart", " BETA CAFE "]) == [alpha, beta]
    with pytest.raises(InputError, match="no merchant 'Alpha' holds labels; did you mean 'Alpha M"):
        shop.partitions.merchant_keys(["Alpha"])


# The command line


LINE = "Interrupted; what is finished is kept, run again to continue.\n"


@pytest.mark.parametrize(
    ("number", "code", "again"), [(signal.SIGINT, 130, False), (signal.SIGTERM, 143, True)]
)
def test_a_signal_ends_a_run_with_one_line_and_it_can_go_on(tmp_path, number, code, again):
    words, labels = shop_receipts(each=3).write(tmp_path)
    home = tmp_path / "home"
    with started("run", "--words", words, "--labels", labels, home=home) as process:
        runs = home / "dagster" / "history" / "runs"
        while process.poll() is None and len(list(runs.glob("*.db"))) < 2:
            time.sleep(0.02)
        process.send_signal(number)
        if again:  # who waits impatiently
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, LINE)
    with open_instance(Home(home)) as instance:
        assert {run.status for run in instance.get_runs()} == {DagsterRunStatus.CANCELED}
    assert cli("run", home=home).returncode == 0
    assert Pipeline(Home(home)).stale(OFFLINE) == []


def test_the_demo_goes_from_findings_to_corrected_labels_and_back(tmp_path):
    home = tmp_path / "demo"
    shown = cli("demo", "--labels", 200, home=home).stdout
    assert "3 labels corrected" in shown
    assert "3 labels are again exactly what they were" in shown
    pipeline = Pipeline(Home(home))
    assert pipeline.stale(OFFLINE) == []
    assert len(table(pipeline, "label_undos")) == 3
    assert {row["batch_id"] for row in table(pipeline, "labels")} == {
        row["batch_id"] for row in table(pipeline, "batches")
    }


def test_the_demo_is_not_mixed_with_other_labels(shop, home):
    before = table(shop, "labels")
    result = cli("demo", "--labels", 200, home=home.root)
    assert result.returncode == 2
    assert "holds other labels already" in result.stderr
    assert table(shop, "labels") == before


def test_a_taxonomy_that_lacks_types_of_the_home_is_refused(shop, home, tmp_path):
    taxonomy = tmp_path / "invoices.yaml"
    taxonomy.write_text("label_types:\n  INVOICE_NUMBER: The number of the invoice.\n")
    result = cli("run", "--taxonomy", taxonomy, home=home.root)
    assert result.returncode == 2
    assert "holds labels of types that are not in it" in result.stderr
    assert not home.taxonomy.exists()


def test_a_home_with_its_own_taxonomy_is_partitioned_by_it(tmp_path):
    taxonomy = tmp_path / "invoices.yaml"
    taxonomy.write_text(
        "label_types:\n  INVOICE_NUMBER: The number of the invoice.\n  DATE: The date.\n"
    )
    receipts = shop_receipts()
    for row in receipts.labels:
        if row["label"] == "GRAND_TOTAL":
            row["label"] = "INVOICE_NUMBER"
    words, labels = receipts.write(tmp_path)
    home = tmp_path / "home"
    result = cli("run", "--taxonomy", taxonomy, "--words", words, "--labels", labels, home=home)
    assert result.returncode == 0, result.stderr
    pipeline = Pipeline(Home(home))
    assert {key.label_type for key in pipeline.partitions.held()} == {"INVOICE_NUMBER", "DATE"}
    with open_instance(Home(home)) as instance:
        assert set(shown_versions(instance, "outliers")) == set(pipeline.partitions.held())


def test_batches_of_the_inbox_are_run_and_an_unreadable_one_is_named(shop, home):
    before = shop.tables.counts().labels
    shop_receipts(each=1, images="good").write(home.inbox / "good")
    (home.inbox / "bad").mkdir()
    (home.inbox / "bad" / "labels.parquet").write_bytes(b"PAR1PAR1")
    result = cli("run", home=home.root)
    assert result.returncode == 2
    assert "bad" in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert shop.tables.counts().labels > before
    assert shop.stale(OFFLINE) == []


def test_workspace_yaml_loads_the_code_location(home):
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "label_harmonizer" in result.stdout + result.stderr


# Pools


def test_steps_that_may_ask_a_model_take_turns_over_all_runs(home):
    definitions = build_definitions(home)
    asking = {
        (name, node.name)
        for name in ("harmonize_partitions", "harmonize_arrivals", "collect_batches")
        for node in definitions.resolve_job_def(name).nodes
        if LLM_POOL in node.definition.pools
    }
    assert {name for _, name in asking} == {HARMONIZE_STEP}
    assert len(asking) == 3
    with open_instance(home) as instance:
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default(LLM_POOL)
        assert storage.claim_concurrency_slot(LLM_POOL, "run-1", HARMONIZE_STEP).is_claimed
        assert not storage.claim_concurrency_slot(LLM_POOL, "run-2", HARMONIZE_STEP).is_claimed


def test_a_killed_run_gives_back_its_place_in_the_pool(home, shop):
    with open_instance(home) as instance:
        killed = instance.create_run_for_job(
            build_definitions(home).resolve_job_def("harmonize_partitions"),
            status=DagsterRunStatus.STARTED,
            tags={"harmonizer/pid": "999999999", "harmonizer/process_started": "1.00"},
        )
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default(LLM_POOL)
        assert storage.claim_concurrency_slot(LLM_POOL, killed.run_id, HARMONIZE_STEP).is_claimed
    outcome = run_pipeline(home, OFFLINE, log_level="CRITICAL")
    assert outcome.counts.labels == 96
