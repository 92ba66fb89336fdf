"""A home that the version before 0.1.0 made opens, and a run brings it up to date.

The archive is a home of `harmonizer demo --labels 300 --merchants 4`, made by the last version that
had one class for everything: its tables, vectors, models, and its Dagster instance of three runs.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from dagster import AssetKey, DagsterRunStatus

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.records.reports import ASSETS
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.support.dagster_runs import shown_versions, stale_causes
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import OFFLINE, Receipts, table

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "home_before_0_1_0.tar.xz"
MERCHANT = "Wren's Pantry"
JOBS = {"ingest_and_index", "harmonize_partitions", "check_labels"}
RESULTS = ("similarity_matches", "judgements", "outliers", "label_decisions", "suspicion_models")


@pytest.fixture
def old_home(tmp_path):
    home = Home(tmp_path / "home")
    home.root.mkdir()
    extract(home)
    return home


@pytest.fixture
def old_home_run_again(tmp_path):
    home = Home(tmp_path / "home")
    home.root.mkdir()
    copy_home(home, "a home from before that has been run again", extract_and_run)
    return home


def extract(home):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(home.root, filter="data")


def extract_and_run(home):
    extract(home)
    first = run_pipeline(home, OFFLINE, log_level="CRITICAL")
    assert first.embedded == 0
    held = len(Pipeline(home).partitions.held())
    assert first.partitions_computed == dict.fromkeys(ASSETS, held)


def test_its_tables_are_read(old_home):
    pipeline = Pipeline(old_home)
    counts = pipeline.tables.counts()
    assert (counts.labels, counts.merchants, counts.batches) == (354, 4, 1)
    assert counts.valid + counts.outliers + counts.unresolved == counts.labels
    assert counts.outliers == len(pipeline.tables.worst_outliers(1_000)) > 0


def test_one_run_computes_what_is_scored_otherwise_now_and_the_next_one_nothing(
    old_home_run_again,
):
    home = old_home_run_again
    pipeline = Pipeline(home)
    before = {name: table(pipeline, name) for name in RESULTS}
    outcome = run_pipeline(home, OFFLINE, log_level="CRITICAL")
    assert outcome.unchanged
    assert outcome.embedded == 0
    assert outcome.partitions_computed == dict.fromkeys(ASSETS, 0)
    assert outcome.failed_checks == []
    assert {name: table(pipeline, name) for name in RESULTS} == before
    with open_instance(home) as instance:
        for name in ASSETS:
            assert stale_causes(instance, home, name, *pipeline.partitions.held()) == []
        for name in ("word_embeddings", "suspicion_model", "harmonization_report"):
            assert stale_causes(instance, home, name) == []


def test_a_new_batch_is_ingested_and_computed_for_its_merchant_alone(old_home_run_again, tmp_path):
    pipeline = Pipeline(old_home_run_again)
    earlier = {name: pipeline.partitions.stored(name) for name in ASSETS}
    receipts = Receipts()
    for number in range(3):
        receipts.add_receipt(f"later-{number}", MERCHANT)
    receipts.submit(pipeline, tmp_path / "later")
    outcome = run_pipeline(old_home_run_again, OFFLINE, log_level="CRITICAL")
    touched = {*pipeline.partitions.held(merchants=[merchant_key(MERCHANT)])}
    assert outcome.labels_changed == len(receipts.labels)
    assert outcome.partitions_computed == dict.fromkeys(ASSETS, len(touched))
    assert pipeline.stale(OFFLINE) == []
    with open_instance(old_home_run_again) as instance:
        for name in ASSETS:
            now = pipeline.partitions.stored(name)
            assert {key for key in now if now[key] != earlier[name].get(key)} == touched
            assert shown_versions(instance, name) == now


def test_earlier_runs_and_materializations_are_still_shown(old_home):
    held = {*Pipeline(old_home).partitions.held()}
    with open_instance(old_home) as instance:
        runs = instance.get_runs()
        assert {run.job_name for run in runs} == JOBS
        assert {run.status for run in runs} == {DagsterRunStatus.SUCCESS}
        for run in runs:
            assert instance.all_logs(run.run_id)
        for asset in ASSETS:
            stored = Pipeline(old_home).partitions.stored(asset)
            assert shown_versions(instance, asset) == stored
            assert {*stored} == held
        for asset in ("labels", "word_embeddings", "harmonization_report"):
            assert instance.fetch_materializations(AssetKey(asset), limit=1).records


def test_earlier_runs_stay_beside_those_of_this_version(old_home_run_again):
    with open_instance(old_home_run_again) as instance:
        runs = instance.get_runs()
    assert len(runs) == 5
    assert {run.job_name for run in runs} == JOBS | {"harmonize_arrivals"}


def test_links_to_its_reports_lead_to_where_they_are_served(old_home):
    report = AssetKey("harmonization_report")
    with open_instance(old_home) as instance:
        (record,) = instance.fetch_materializations(report, limit=1).records
    metadata = record.asset_materialization.metadata
    assert metadata["open"].value == f"/reports/{Path(metadata['report'].value).name}"
    files = [*old_home.dagster.rglob("*.db")]
    assert len(files) > 3
    assert [path for path in files if b"http://127.0.0.1" in path.read_bytes()] == []


def test_its_dagster_yaml_names_the_modules_as_they_are_named_now(old_home):
    config = old_home.dagster / "dagster.yaml"
    before = config.read_text()
    assert "module: harmonizer_assets.event_log\n" in before
    with open_instance(old_home):
        pass
    after = config.read_text()
    assert "module: harmonizer_assets.dagster_compat.event_log\n" in after
    assert "module: harmonizer_assets.dagster_compat.run_coordinator\n" in after
    assert len(after.splitlines()) == len(before.splitlines())
