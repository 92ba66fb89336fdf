"""A partition that cannot be computed fails alone."""

from __future__ import annotations

import pytest
from dagster import AssetKey, DagsterRunStatus
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonizer_assets.core import stages
from harmonizer_assets.core.errors import HarmonizerError, PartitionsFailedError, StoreError
from harmonizer_assets.core.harmonizer import ASSETS, Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.merchants import merchant_key
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.similarity import SimilarityScorer
from harmonizer_assets.core.verdicts import OfflineJudging
from harmonizer_assets.definitions import defs
from harmonizer_assets.instance import open_instance
from harmonizer_assets.partitions import from_dagster, label_type_by_merchant, to_dagster
from harmonizer_assets.runs import run_pipeline
from harmonizer_tests.receipts import harmonize, shop_receipts, table
from harmonizer_tests.test_dagster import range_run

SHOPS = ("Alpha Mart", "Beta Cafe", "Gamma Bar")
POISONED = PartitionKey("DATE", merchant_key("Beta Cafe"))
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
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


def results(harmonizer: Harmonizer, without: PartitionKey | None = None) -> list[object]:
    return [
        [
            row
            for row in table(harmonizer, name)
            if without != (row["label_type"], row["merchant_key"])
        ]
        for name in TABLES
    ]


def prepared(home: Home, folder) -> Harmonizer:
    harmonizer = Harmonizer(home)
    shop_receipts(SHOPS).submit(harmonizer, folder)
    harmonizer.ingest_pending()
    harmonizer.index_documents()
    return harmonizer


def test_a_poisoned_partition_fails_and_its_siblings_rows_stand(home, tmp_path, poison):
    harmonizer = prepared(home, tmp_path / "files")
    scored = list(harmonizer.score_partitions(harmonizer.partitions()))
    assert {result.partition for result in scored} == {*harmonizer.partitions()}
    assert [(r.partition, r.error) for r in scored if r.error] == [
        (POISONED, "ValueError: a spoiled word")
    ]
    held = {(row["label_type"], row["merchant_key"]) for row in table(harmonizer, TABLES[0])}
    assert held == {*harmonizer.partitions()} - {POISONED}


def test_what_is_made_of_a_failed_partition_is_not_computed(home, tmp_path, poison):
    harmonizer = prepared(home, tmp_path / "files")
    harmonize(harmonizer)
    [judged] = [
        result
        for result in harmonizer.judge_partitions(harmonizer.partitions(), judge="offline")
        if result.error
    ]
    assert judged.partition == POISONED
    assert judged.error == "similarity_matches failed: ValueError: a spoiled word"
    assert harmonizer.stale_partitions("offline") == [POISONED]


def test_the_next_run_computes_only_what_failed_and_ends_like_an_undisturbed_one(
    home, tmp_path, poison
):
    harmonizer = prepared(home, tmp_path / "files")
    harmonize(harmonizer)
    before = results(harmonizer, without=POISONED)
    poison.partitions = set()
    computed = [
        result.partition
        for result in harmonizer.score_partitions(harmonizer.partitions())
        if result.changed
    ]
    assert computed == [POISONED]
    harmonize(harmonizer)
    assert harmonizer.failed_partitions() == []
    assert harmonizer.stale_partitions("offline") == []
    assert results(harmonizer, without=POISONED) == before
    undisturbed = prepared(Home(tmp_path / "undisturbed").ensure(), tmp_path / "again")
    harmonize(undisturbed)
    assert results(harmonizer) == results(undisturbed)


def test_a_failure_in_a_later_stage_leaves_the_earlier_ones_alone(home, tmp_path, monkeypatch):
    Poison(monkeypatch, OfflineJudging, "judge")
    harmonizer = prepared(home, tmp_path / "files")
    harmonize(harmonizer)
    [failed] = harmonizer.failed_partitions()
    assert (failed["asset"], failed["label_type"]) == ("llm_verdicts", "DATE")
    assert "spoiled word" in failed["traceback"]
    assert harmonizer.unscored_partitions() == []


def test_rows_that_cannot_be_written_fail_their_partition_alone(home, tmp_path, monkeypatch):
    score = SimilarityScorer.score

    def unwritable(scorer, chunk):
        rows = score(scorer, chunk)
        if POISONED not in chunk.partitions:
            return rows
        return stages.ChunkRows(
            rows.fingerprints, lambda con: con.execute("INSERT INTO outliers (label) VALUES (NULL)")
        )

    monkeypatch.setattr(SimilarityScorer, "score", unwritable)
    harmonizer = prepared(home, tmp_path / "files")
    failed = [r for r in harmonizer.score_partitions(harmonizer.partitions()) if r.error]
    assert [result.partition for result in failed] == [POISONED]
    assert "ConstraintException" in failed[0].error


def test_a_broken_store_ends_the_stage_at_once(home, tmp_path, poison):
    poison.error = StoreError("the disk is full")
    harmonizer = prepared(home, tmp_path / "files")
    with pytest.raises(StoreError, match="the disk is full"):
        list(harmonizer.score_partitions(harmonizer.partitions()))
    assert harmonizer.failed_partitions() == []


def test_where_everything_fails_it_gives_up_early_and_says_why(home, tmp_path, poison, monkeypatch):
    monkeypatch.setattr(stages, "GIVE_UP_AFTER", 5)
    harmonizer = prepared(home, tmp_path / "files")
    poison.partitions = {*harmonizer.partitions()}
    with pytest.raises(HarmonizerError, match="the first 5 partitions all failed, the last one"):
        list(harmonizer.score_partitions(harmonizer.partitions()))


def test_a_failed_partition_that_loses_its_labels_is_forgotten(home, tmp_path, poison):
    harmonizer = prepared(home, tmp_path / "files")
    harmonize(harmonizer)
    harmonizer.warehouse.write(
        lambda con: con.execute(
            "DELETE FROM labels WHERE label = $1 AND merchant_key = $2", list(POISONED)
        )
    )
    poison.partitions = set()
    harmonize(harmonizer)
    assert harmonizer.failed_partitions() == []


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


@pytest.fixture
def instance(home):
    with open_instance(home) as instance:
        yield instance


def statuses(instance, asset: str) -> tuple[set[PartitionKey], set[PartitionKey]]:
    """What the UI shows as materialized, and what as failed."""
    cached = get_and_update_asset_status_cache_value(
        instance, AssetKey(asset), label_type_by_merchant
    )
    green = cached.deserialize_materialized_partition_subsets(label_type_by_merchant)
    red = cached.deserialize_failed_partition_subsets(label_type_by_merchant)
    return (
        {from_dagster(key) for key in green.get_partition_keys()},
        {from_dagster(key) for key in red.get_partition_keys()},
    )


def test_a_run_fails_for_a_failed_partition_and_shows_exactly_it_in_red(
    home, tmp_path, instance, poison
):
    harmonizer = prepared(home, tmp_path / "files")
    outcome = run_pipeline(harmonizer, judge="offline", log_level="CRITICAL")
    held = {*harmonizer.partitions()}
    [(asset, partition, error)] = outcome.failed_partitions
    assert (asset, partition, error) == (ASSETS[0], POISONED, "ValueError: a spoiled word")
    assert ("no_failed_partitions", "ERROR") in outcome.failed_checks
    assert outcome.partitions_computed == dict.fromkeys(ASSETS, len(held) - 1)
    for name in ASSETS:
        assert statuses(instance, name) == (held - {POISONED}, {POISONED})
    assert [run.status for run in instance.get_runs()].count(DagsterRunStatus.FAILURE) == 1


def test_a_retry_does_only_what_is_missing_and_turns_green(home, tmp_path, instance, poison):
    harmonizer = prepared(home, tmp_path / "files")
    run_pipeline(harmonizer, judge="offline", log_level="CRITICAL")
    poison.partitions = set()
    outcome = run_pipeline(harmonizer, judge="offline", log_level="CRITICAL")
    assert outcome.partitions_computed == dict.fromkeys(ASSETS, 1)
    assert outcome.failed_partitions == []
    for name in ASSETS:
        assert statuses(instance, name) == ({*harmonizer.partitions()}, set())


def test_in_a_range_of_the_ui_the_siblings_of_a_failed_partition_are_materialized(
    home, tmp_path, instance, poison
):
    harmonizer = prepared(home, tmp_path / "files")
    defs.resolve_job_def("ingest_and_index").execute_in_process(instance=instance, run_config=QUIET)
    shops = sorted({partition.merchant_key for partition in harmonizer.partitions()})
    requested = {PartitionKey("DATE", shop) for shop in shops}

    def backfill():
        return range_run(instance, f"DATE|{shops[0]}", f"DATE|{shops[-1]}")

    with pytest.raises(PartitionsFailedError, match="spoiled word"):
        backfill()
    for name in ASSETS:
        assert statuses(instance, name) == (requested - {POISONED}, {POISONED})
    poison.partitions = set()
    assert backfill().success
    for name in ASSETS:
        assert statuses(instance, name) == (requested, set())
    computed = harmonizer.warehouse.query(
        "SELECT count(DISTINCT run_id) AS n FROM partition_state WHERE asset = 'outliers'"
    ).to_pylist()
    assert computed[0]["n"] == 2


def test_a_partition_whose_scores_failed_cannot_be_published_alone(
    home, tmp_path, instance, poison
):
    harmonizer = prepared(home, tmp_path / "files")
    run_pipeline(harmonizer, judge="offline", log_level="CRITICAL")
    with pytest.raises(PartitionsFailedError, match="similarity_matches failed: ValueError"):
        defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            run_config=QUIET,
            partition_key=str(to_dagster(POISONED)),
            asset_selection=[AssetKey("outliers")],
        )
