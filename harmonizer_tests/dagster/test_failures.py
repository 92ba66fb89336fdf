"""A partition that cannot be computed fails alone."""

from __future__ import annotations

import shutil
import sys

import pytest
from dagster import DagsterRunStatus
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonizer_assets.cli.runs import PipelineOutcome, run_pipeline
from harmonizer_assets.core.base.errors import HarmonizerError, PartitionsFailedError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.judge.offline_judging import OfflineJudging
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import ASSETS
from harmonizer_assets.core.score.stage import SimilarityScorer
from harmonizer_assets.core.stages import run as stages
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.defs.partitions import to_dagster
from harmonizer_tests.support.dagster_runs import execute, materialize, range_run, statuses
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import OFFLINE, harmonize, score, shop_receipts, table
from harmonizer_tests.support.reporters import Collecting

SHOPS = ("Alpha Mart", "Beta Cafe", "Gamma Bar")
POISONED = PartitionKey("DATE", merchant_key("Beta Cafe"))
TABLES = ("similarity_matches", "judgements", "outliers")


class Poison:
    """Makes chunks fail that hold some partitions, until it is taken away."""

    def __init__(self, monkeypatch, owner=SimilarityScorer, name="score"):
        self.partitions = {POISONED}
        self.error: Exception = ValueError("a spoiled word")
        compute = getattr(owner, name)

        def poisoned(stage, chunk):
            if self.partitions & {*chunk.partitions}:
                raise self.error
            return compute(stage, chunk)

        monkeypatch.setattr(owner, name, poisoned)


@pytest.fixture
def poison(monkeypatch):
    return Poison(monkeypatch)


def results(pipeline: Pipeline, without: PartitionKey | None = None) -> list[object]:
    return [
        [
            row
            for row in table(pipeline, name)
            if without != (row["label_type"], row["merchant_key"])
        ]
        for name in TABLES
    ]


def prepared(home: Home) -> Pipeline:
    copy_home(home, "three shops, indexed", index)
    return Pipeline(home)


def index(home: Home) -> None:
    pipeline = Pipeline(home)
    shop_receipts(SHOPS).submit(pipeline, home.scratch / "files")
    pipeline.ingest()
    pipeline.index()


def test_a_poisoned_partition_fails_and_its_siblings_rows_stand(home, poison):
    pipeline = prepared(home)
    scored = score(pipeline)
    assert {result.partition for result in scored} == {*pipeline.partitions.held()}
    assert [(r.partition, r.error) for r in scored if r.error] == [
        (POISONED, "ValueError: a spoiled word")
    ]
    held = {(row["label_type"], row["merchant_key"]) for row in table(pipeline, TABLES[0])}
    assert held == {*pipeline.partitions.held()} - {POISONED}


def test_what_is_made_of_a_failed_partition_is_not_computed(home, poison):
    pipeline = prepared(home)
    harmonize(pipeline)
    reporter = Collecting()
    pipeline.harmonize(
        OFFLINE, reporter, partitions=pipeline.partitions.held(), assets=["llm_verdicts"]
    )
    [judged] = [result for result in reporter.results["llm_verdicts"] if result.error]
    assert judged.partition == POISONED
    assert judged.error == "similarity_matches failed: ValueError: a spoiled word"
    assert pipeline.stale(OFFLINE) == [POISONED]


def test_the_next_run_computes_only_what_failed_and_ends_like_an_undisturbed_one(
    home, tmp_path, poison
):
    pipeline = prepared(home)
    harmonize(pipeline)
    before = results(pipeline, without=POISONED)
    poison.partitions = set()
    computed = [result.partition for result in score(pipeline) if result.changed]
    assert computed == [POISONED]
    harmonize(pipeline)
    assert pipeline.tables.failures() == []
    assert pipeline.stale(OFFLINE) == []
    assert results(pipeline, without=POISONED) == before
    undisturbed = prepared(Home(tmp_path / "undisturbed").ensure())
    harmonize(undisturbed)
    assert results(pipeline) == results(undisturbed)


def test_a_failure_in_a_later_stage_leaves_the_earlier_ones_alone(home, monkeypatch):
    Poison(monkeypatch, OfflineJudging, "judge")
    pipeline = prepared(home)
    harmonize(pipeline)
    [failed] = pipeline.tables.failures()
    assert (failed.asset, failed.partition.label_type) == ("llm_verdicts", "DATE")
    assert "spoiled word" in failed.traceback
    assert pipeline.partitions.waiting(pipeline.score.definition()) == []


def test_rows_that_cannot_be_written_fail_their_partition_alone(home, monkeypatch):
    compute = SimilarityScorer.score

    def unwritable(scorer, chunk):
        rows = compute(scorer, chunk)
        if POISONED not in chunk.partitions:
            return rows
        return stages.ChunkRows(
            rows.fingerprints, lambda con: con.execute("INSERT INTO outliers (label) VALUES (NULL)")
        )

    monkeypatch.setattr(SimilarityScorer, "score", unwritable)
    pipeline = prepared(home)
    failed = [result for result in score(pipeline) if result.error]
    assert [result.partition for result in failed] == [POISONED]
    assert "ConstraintException" in failed[0].error


def test_a_broken_store_ends_the_stage_at_once(home, poison):
    poison.error = StoreError("the disk is full")
    pipeline = prepared(home)
    with pytest.raises(StoreError, match="the disk is full"):
        score(pipeline)
    assert pipeline.tables.failures() == []


def test_where_everything_fails_it_gives_up_early_and_says_why(home, poison, monkeypatch):
    monkeypatch.setattr(stages, "GIVE_UP_AFTER", 5)
    pipeline = prepared(home)
    poison.partitions = {*pipeline.partitions.held()}
    with pytest.raises(HarmonizerError, match="the first 5 partitions all failed, the last one"):
        score(pipeline)


def test_a_failed_partition_that_loses_its_labels_is_forgotten(home, poison):
    pipeline = prepared(home)
    harmonize(pipeline)
    pipeline.warehouse.write(
        lambda con: con.execute(
            "DELETE FROM labels WHERE label = $1 AND merchant_key = $2", list(POISONED)
        )
    )
    poison.partitions = set()
    harmonize(pipeline)
    assert pipeline.tables.failures() == []


@settings(max_examples=50)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 40))
def test_whichever_partitions_fail_each_chunk_is_halved_down_to_exactly_them(poisoned, size):
    keys = [PartitionKey("DATE", f"m{i:02d}") for i in range(len(poisoned))]
    bad = {key for key, is_bad in zip(keys, poisoned, strict=True) if is_bad}
    done: list[PartitionKey] = []

    def split(chunk: stages.Chunk) -> set[PartitionKey]:
        if not bad & {*chunk.partitions}:
            done.extend(chunk.partitions)
            return set()
        if len(chunk.partitions) == 1:
            return {*chunk.partitions}
        return set().union(*(split(half) for half in chunk.halves()))

    failed: set[PartitionKey] = set()
    for start in range(0, len(keys), size):
        part = tuple(keys[start : start + size])
        failed |= split(stages.Chunk(part, dict.fromkeys(part, 1)))
    assert failed == bad
    assert sorted(done) == sorted({*keys} - bad)


# In Dagster


@pytest.fixture(scope="module")
def failed(tmp_path_factory) -> tuple[Home, PipelineOutcome]:
    """A home, which nothing may change, whose run a poisoned partition has failed."""
    home = Home(tmp_path_factory.mktemp("failed") / "home").ensure()
    prepared(home)
    with pytest.MonkeyPatch.context() as patch:
        Poison(patch)
        patch.setitem(sys.modules, "matplotlib", None)
        return home, run_pipeline(home, OFFLINE, log_level="CRITICAL")


@pytest.fixture
def failed_copy(home, failed) -> Pipeline:
    shutil.copytree(failed[0].root, home.root, dirs_exist_ok=True)
    return Pipeline(home)


def test_a_run_fails_for_a_failed_partition_and_shows_exactly_it_in_red(failed):
    home, outcome = failed
    held = {*Pipeline(home).partitions.held()}
    [partition] = outcome.failed_partitions
    assert partition.asset == ASSETS[0]
    assert partition.partition == POISONED
    assert partition.error == "ValueError: a spoiled word"
    assert ("no_failed_partitions", "ERROR") in outcome.failed_checks
    assert outcome.partitions_computed == dict.fromkeys(ASSETS, len(held) - 1)
    with open_instance(home) as instance:
        for name in ASSETS:
            assert statuses(instance, home, name) == (held - {POISONED}, {POISONED})
        runs = instance.get_runs()
    assert [run.status for run in runs].count(DagsterRunStatus.FAILURE) == 1


def test_a_retry_does_only_what_is_missing_and_turns_green(home, failed_copy, instance):
    outcome = run_pipeline(home, OFFLINE, log_level="CRITICAL")
    assert outcome.partitions_computed == dict.fromkeys(ASSETS, 1)
    assert outcome.failed_partitions == []
    for name in ASSETS:
        assert statuses(instance, home, name) == ({*failed_copy.partitions.held()}, set())


def test_in_a_range_of_the_ui_the_siblings_of_a_failed_partition_are_materialized(
    home, instance, poison
):
    pipeline = prepared(home)
    execute(instance, home, "ingest_and_index")
    shops = sorted({partition.merchant_key for partition in pipeline.partitions.held()})
    requested = {PartitionKey("DATE", shop) for shop in shops}

    def backfill():
        return range_run(instance, home, f"DATE|{shops[0]}", f"DATE|{shops[-1]}")

    with pytest.raises(PartitionsFailedError, match="spoiled word"):
        backfill()
    for name in ASSETS:
        assert statuses(instance, home, name) == (requested - {POISONED}, {POISONED})
    poison.partitions = set()
    assert backfill().success
    for name in ASSETS:
        assert statuses(instance, home, name) == (requested, set())
    computed = pipeline.warehouse.query(
        "SELECT count(DISTINCT run_id) AS n FROM partition_state WHERE asset = 'outliers'"
    ).to_pylist()
    assert computed[0]["n"] == 2


def test_a_partition_whose_scores_failed_cannot_be_published_alone(
    home, failed_copy, instance, poison
):
    with pytest.raises(PartitionsFailedError, match="similarity_matches failed: ValueError"):
        materialize(instance, home, ["outliers"], partition_key=str(to_dagster(POISONED)))
