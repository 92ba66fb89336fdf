from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from dagster import AssetKey, DagsterInstance, DagsterRunStatus

from harmonizer_assets.core.errors import InputError
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.definitions import defs
from harmonizer_assets.instance import LLM_POOL, open_instance
from harmonizer_assets.materializations import reported_versions
from harmonizer_assets.partitions import from_dagster
from harmonizer_assets.progress import listen, stop_listening
from harmonizer_assets.runs import run_pipeline
from harmonizer_assets.selection import merchant_keys
from harmonizer_tests.receipts import Receipts, shop_receipts, table
from harmonizer_tests.test_dagster import range_run

PARTITIONED = ("similarity_matches", "llm_verdicts", "outliers")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
COMMAND = [sys.executable, "-m", "harmonizer_assets.cli"]
ROOT = Path(__file__).parents[1]


@pytest.fixture
def instance(home):
    with open_instance(home) as instance:
        yield instance


@pytest.fixture
def shop(harmonizer, tmp_path):
    shop_receipts().submit(harmonizer, tmp_path)
    run_pipeline(harmonizer, judge="offline")
    return harmonizer


def last_materializations(instance: DagsterInstance, asset: str):
    records = instance.fetch_materializations(AssetKey(asset), limit=1_000).records
    return {
        from_dagster(record.partition_key): record.asset_materialization
        for record in reversed(records)
    }


def test_every_partition_carries_counts_rates_and_its_worst_outliers(shop, instance):
    found = last_materializations(instance, "outliers")
    suspicious = [partition for partition in found if partition.label_type == "DATE"]
    assert len(suspicious) == 2
    for partition in suspicious:
        metadata = found[partition].metadata
        assert metadata["labels"].value == 5
        assert metadata["outliers"].value == 1
        assert metadata["outlier_rate"].value == 0.2
        [record] = metadata["worst_outliers"].value.records
        assert record.data["line"] == "TOTAL [13.50]"
        assert "GRAND_TOTAL" in record.data["reasoning"]


def test_a_range_run_gives_each_partition_its_own_metadata(shop, instance):
    keys = instance.get_dynamic_partitions("merchants")
    assert range_run(instance, f"DATE|{keys[0]}", f"TAX|{keys[-1]}").success
    ranged = last_materializations(instance, "outliers")
    for key in keys:
        assert ranged[from_dagster(f"COUPON|{key}")].metadata["labels"].value == 0
    for partition in shop.partitions(["DATE", "TIME", "SUBTOTAL"]):
        labels = 5 if partition.label_type == "DATE" else 4
        assert ranged[partition].metadata["labels"].value == labels
        assert ranged[partition].metadata["unchanged"].value is True


def test_a_run_reports_the_partitions_whose_rows_are_not_those_that_the_ui_shows(
    shop, tmp_path, instance
):
    shown = reported_versions(instance, "similarity_matches")
    more = Receipts()
    more.add_receipt("another", "Alpha Mart")
    more.submit(shop, tmp_path / "more")
    # A run that is killed has committed its rows and not reported them.
    shop.ingest_pending()
    shop.index_documents()
    stale = shop.stale_partitions("offline")
    list(shop.score_partitions(stale))
    assert reported_versions(instance, "similarity_matches") == shown
    outcome = run_pipeline(shop, judge="offline")
    assert outcome.partitions_computed["similarity_matches"] == 0
    now = reported_versions(instance, "similarity_matches")
    assert {partition for partition in now if now[partition] != shown.get(partition)} == set(stale)


def test_a_partition_that_loses_its_labels_is_shown_as_empty(shop, tmp_path, instance):
    moved = Receipts()
    for copy in range(4):
        moved.add_receipt(f"image-0-{copy}", "Renamed Mart", total=f"{10 + copy}.50")
    moved.submit(shop, tmp_path / "moved")
    run_pipeline(shop, judge="offline")
    [alpha] = {
        partition.merchant_key
        for partition in reported_versions(instance, "outliers")
        if partition.merchant_key.startswith("alpha")
    }
    emptied = {
        partition: content.metadata["labels"].value
        for partition, content in last_materializations(instance, "outliers").items()
        if partition.merchant_key == alpha
    }
    # The mislabelled total keeps its label at the old merchant.
    assert {key.label_type for key, labels in emptied.items() if labels} == {"DATE"}
    assert shop.emptied_partitions() == []
    assert all(
        row["merchant_key"] != alpha or row["label"] == "DATE" for row in table(shop, "outliers")
    )


def test_the_judge_of_a_run_is_that_of_the_settings_unless_it_is_named(home, tmp_path, instance):
    home.settings_file.write_text("[judge]\njudge = 'openai'\n")
    harmonizer = Harmonizer(home)
    shop_receipts().submit(harmonizer, tmp_path)
    defs.resolve_job_def("ingest_and_index").execute_in_process(instance=instance, run_config=QUIET)
    job = defs.resolve_job_def("harmonize_partitions")
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        job.execute_in_process(instance=instance, run_config=QUIET)
    named = {"resources": {"selection": {"config": {"judge": "offline"}}}}
    assert job.execute_in_process(instance=instance, run_config={**QUIET, **named}).success


def test_an_interrupted_run_is_canceled_and_the_next_one_continues(harmonizer, tmp_path, instance):
    shop_receipts().submit(harmonizer, tmp_path)

    def interrupt(progress):
        if progress.stage == "llm_verdicts":
            raise KeyboardInterrupt

    listen(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(harmonizer, judge="offline")
    finally:
        stop_listening(interrupt)
    assert instance.get_runs(limit=1)[0].status == DagsterRunStatus.CANCELED
    outcome = run_pipeline(harmonizer, judge="offline")
    assert outcome.partitions_computed["similarity_matches"] == 0
    assert outcome.failed_checks == []


def test_labels_that_wait_to_be_scored_fail_a_check(shop, tmp_path, instance):
    more = Receipts()
    more.add_receipt("another", "Alpha Mart")
    more.submit(shop, tmp_path / "more")
    shop.ingest_pending()
    checks = defs.resolve_job_def("check_labels").execute_in_process(
        instance=instance, run_config=QUIET
    )
    failed = {
        check.check_name for check in checks.get_asset_check_evaluations() if not check.passed
    }
    assert failed == {"all_partitions_current", "embeddings_complete"}


def test_merchants_are_named_by_key_or_by_display_name_in_any_case(shop):
    [alpha, beta] = sorted({partition.merchant_key for partition in shop.partitions()})
    assert merchant_keys(shop, [alpha]) == [alpha]
    assert merchant_keys(shop, ["alpha mart", " BETA CAFE "]) == [alpha, beta]
    with pytest.raises(InputError, match="no merchant 'Alpha' holds labels; did you mean 'Alpha M"):
        merchant_keys(shop, ["Alpha"])


# The command line


def cli(*arguments: object, home: Path):
    return subprocess.run(
        [*COMMAND, "--home", str(home), *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_ctrl_c_exits_with_130_and_says_how_to_go_on(tmp_path):
    words, labels = shop_receipts(each=30).write(tmp_path)
    arguments = ["--home", tmp_path / "home", "run", "--words", words, "--labels", labels]
    # A shell that runs the tests in the background has its children ignore interrupts.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*COMMAND, *(str(argument) for argument in arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    signal.signal(signal.SIGINT, ignored)
    runs = tmp_path / "home" / "dagster" / "history" / "runs"
    while process.poll() is None and len(list(runs.glob("*.db"))) < 2:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "run again to continue" in errors
    assert cli("run", home=tmp_path / "home").returncode == 0
    assert Harmonizer(Home(tmp_path / "home")).stale_partitions("offline") == []


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
    harmonizer = Harmonizer(Home(home))
    assert {key.label_type for key in harmonizer.partitions()} == {"INVOICE_NUMBER", "DATE"}
    with open_instance(Home(home)) as instance:
        assert set(reported_versions(instance, "outliers")) == set(harmonizer.partitions())


def test_batches_of_the_inbox_are_run_and_an_unreadable_one_is_named(tmp_path):
    home = Home(tmp_path / "home").ensure()
    shop_receipts().write(home.inbox / "good")
    (home.inbox / "bad").mkdir()
    (home.inbox / "bad" / "labels.parquet").write_bytes(b"PAR1PAR1")
    result = cli("run", home=home.root)
    assert result.returncode == 2
    assert "bad" in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    harmonizer = Harmonizer(home)
    assert harmonizer.counts().labels > 0
    assert harmonizer.stale_partitions("offline") == []


def test_workspace_yaml_loads_the_code_location(home):
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "label_harmonizer" in result.stdout + result.stderr


def test_the_ui_serves_the_graph_and_stops_when_asked_even_from_a_background_job(shop, home):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*COMMAND, "--home", str(home.root), "ui", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        # What a shell does to its background jobs; this process has no threads that could mind.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # noqa: PLW1509
    )
    try:
        query = json.dumps({"query": "{ assetNodes { id partitionStats { numMaterialized } } }"})
        nodes = []
        while process.poll() is None and not nodes:
            with contextlib.suppress(OSError):
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}/graphql",
                    query.encode(),
                    {"content-type": "application/json"},
                )
                nodes = json.load(urllib.request.urlopen(request, timeout=30))["data"]["assetNodes"]
            time.sleep(0.2)
        shown = [node["partitionStats"] for node in nodes if node["partitionStats"]]
        assert shown == [{"numMaterialized": len(shop.partitions())}] * len(PARTITIONED)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        finally:
            process.kill()


# Pools


def test_steps_that_may_ask_a_model_take_turns_over_all_runs(home):
    asking = {
        (name, node.name)
        for name in ("harmonize_partitions", "harmonize_arrivals", "collect_batches")
        for node in defs.resolve_job_def(name).nodes
        if LLM_POOL in node.definition.pools
    }
    assert {name for _, name in asking} == {"judge"}
    assert len(asking) == 3
    with open_instance(home) as instance:
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default(LLM_POOL)
        assert storage.claim_concurrency_slot(LLM_POOL, "run-1", "judge").is_claimed
        assert not storage.claim_concurrency_slot(LLM_POOL, "run-2", "judge").is_claimed


def test_a_killed_run_gives_back_its_place_in_the_pool(home, harmonizer, tmp_path):
    with open_instance(home) as instance:
        killed = instance.create_run_for_job(
            defs.resolve_job_def("harmonize_partitions"),
            status=DagsterRunStatus.STARTED,
            tags={"harmonizer/pid": "999999999", "harmonizer/process_started": "1.00"},
        )
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default(LLM_POOL)
        assert storage.claim_concurrency_slot(LLM_POOL, killed.run_id, "judge").is_claimed
    shop_receipts(("Alpha",), 2).submit(harmonizer, tmp_path)
    outcome = run_pipeline(harmonizer, judge="offline", log_level="CRITICAL")
    assert outcome.counts.labels == 24
