from __future__ import annotations

import pytest
from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetSelection,
    DagsterInstance,
    DagsterRunStatus,
)
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from harmonizer_assets.abandoned_runs import fail_abandoned_runs
from harmonizer_assets.columns import OUTLIERS, SIMILARITY_MATCHES
from harmonizer_assets.core.errors import JudgeError
from harmonizer_assets.core.merchants import merchant_key
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.definitions import defs
from harmonizer_assets.event_log import BatchingSqliteEventLogStorage
from harmonizer_assets.instance import open_instance
from harmonizer_assets.lineage import CODE_VERSIONS
from harmonizer_assets.partitions import from_dagster, to_dagster
from harmonizer_assets.runs import run_pipeline
from harmonizer_tests.receipts import Receipts, shop_receipts, table

PARTITIONED = ("similarity_matches", "llm_verdicts", "outliers")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def instance(home):
    with open_instance(home) as instance:
        yield instance


def shown(instance: DagsterInstance, asset: str) -> set[PartitionKey]:
    return {from_dagster(key) for key in instance.get_materialized_partitions(AssetKey(asset))}


def execute(instance: DagsterInstance, job: str, **options):
    return defs.resolve_job_def(job).execute_in_process(
        instance=instance, run_config=QUIET, **options
    )


def range_run(instance: DagsterInstance, first: str, last: str, **config):
    """What the UI's backfill launches: one run of a range of partitions."""
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        run_config={**QUIET, **config},
        tags={ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last},
        asset_selection=[AssetKey(asset) for asset in PARTITIONED],
    )


# Definitions


def test_the_graph_has_the_contracts_assets_with_their_dependencies():
    graph = defs.resolve_asset_graph()
    parents = {
        asset.to_user_string(): {key.to_user_string() for key in graph.get(asset).parent_keys}
        for asset in graph.get_all_asset_keys()
    }
    assert parents == {
        "words": set(),
        "labels": set(),
        "quarantine": set(),
        "word_embeddings": {"words", "labels"},
        "suspicion_model": {"word_embeddings"},
        "similarity_matches": {"word_embeddings", "suspicion_model"},
        "llm_verdicts": {"similarity_matches"},
        "outliers": {"llm_verdicts"},
        "merchant_alarms": {"similarity_matches"},
        "receipt_alarms": {"outliers"},
        "label_patterns": {"outliers"},
        "detection_quality": {"outliers"},
        "harmonization_report": {"outliers", "label_patterns", "receipt_alarms"},
        "llm_usage": {"llm_verdicts"},
        "llm_plan": {"similarity_matches"},
    }


def test_every_asset_says_what_it_is_who_owns_it_and_which_columns_it_has():
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.owners
        assert node.kinds
        assert node.code_version
        assert node.group_name in {"ingest", "index", "harmonize", "report"}
        no_tables = {"word_embeddings", "llm_plan", "harmonization_report"}
        if key.to_user_string() not in no_tables:
            assert node.metadata["dagster/column_schema"].columns


def test_partitions_are_label_type_by_merchant():
    graph = defs.resolve_asset_graph()
    for asset in PARTITIONED:
        definition = graph.get(AssetKey(asset)).partitions_def
        names = {dimension.name for dimension in definition.partitions_defs}
        assert names == {"label_type", "merchant"}


def test_there_are_checks_on_counts_coverage_quarantine_and_dead_letters():
    keys = {
        (key.asset_key.to_user_string(), key.name)
        for key in AssetSelection.all_asset_checks().resolve_checks(defs.resolve_asset_graph())
    }
    assert keys == {
        ("outliers", "counts_reconcile"),
        ("outliers", "unresolved_share"),
        ("outliers", "all_partitions_current"),
        ("outliers", "no_failed_partitions"),
        ("outliers", "outlier_rate_steady"),
        ("llm_verdicts", "no_dead_letters"),
        ("llm_verdicts", "verdicts_steady"),
        ("quarantine", "quarantine_is_empty"),
        ("labels", "no_contradictions"),
        ("word_embeddings", "embeddings_complete"),
    }


# The event log


def test_a_batch_is_stored_like_single_events(tmp_path, home, harmonizer, instance):
    assert isinstance(instance.event_log_storage, BatchingSqliteEventLogStorage)
    shop_receipts().submit(harmonizer, tmp_path)
    run_pipeline(harmonizer, judge="offline")
    partition = PartitionKey("DATE", merchant_key("Alpha Mart"))
    for asset in PARTITIONED:
        assert shown(instance, asset) == set(harmonizer.partitions())
        record = instance.fetch_materializations(AssetKey(asset), limit=1_000).records
        by_partition = {item.partition_key: item.asset_materialization for item in record}
        materialization = by_partition[to_dagster(partition)]
        assert materialization.tags["dagster/partition/label_type"] == "DATE"
        assert materialization.tags["dagster/data_version"]
        assert materialization.metadata["labels"].value == 5
        latest = instance.get_latest_materialization_event(AssetKey(asset))
        assert latest.run_id == record[0].run_id


# Runs


def test_a_run_computes_and_reports_only_partitions_that_hold_labels(
    harmonizer, tmp_path, instance
):
    shop_receipts(["Trader Joe's", "O'Reilly | Sons", "7/11", "日本"]).submit(harmonizer, tmp_path)
    outcome = run_pipeline(harmonizer, judge="offline")
    held = harmonizer.partitions()
    assert outcome.partitions_computed == dict.fromkeys(PARTITIONED, len(held))
    assert len(held) < 4 * len(harmonizer.taxonomy.names)
    assert outcome.failed_checks == []
    assert all(run.status == DagsterRunStatus.SUCCESS for run in instance.get_runs())
    assert len(instance.get_runs()) == 3


def test_new_labels_rematerialize_their_merchant_alone(harmonizer, tmp_path, instance):
    shop_receipts().submit(harmonizer, tmp_path)
    run_pipeline(harmonizer, judge="offline")
    runs = {run.run_id for run in instance.get_runs()}
    more = Receipts()
    more.add_receipt("another", "Alpha Mart")
    more.submit(harmonizer, tmp_path / "more")
    run_pipeline(harmonizer, judge="offline")
    touched = {
        from_dagster(record.partition_key).merchant_key
        for record in instance.fetch_materializations(AssetKey("outliers"), limit=1_000).records
        if record.run_id not in runs
    }
    assert touched == {merchant_key("Alpha Mart")}


def test_a_second_run_materializes_no_partition(harmonizer, tmp_path, instance):
    shop_receipts().submit(harmonizer, tmp_path)
    run_pipeline(harmonizer, judge="offline")
    before = len(instance.fetch_materializations(AssetKey("outliers"), limit=1_000).records)
    outcome = run_pipeline(harmonizer, judge="offline")
    after = len(instance.fetch_materializations(AssetKey("outliers"), limit=1_000).records)
    assert outcome.unchanged
    assert before == after


def test_partitions_that_a_killed_run_computed_but_did_not_report_are_reported_later(
    harmonizer, tmp_path, instance
):
    shop_receipts().submit(harmonizer, tmp_path)
    harmonizer.ingest_pending()
    harmonizer.index_documents()
    list(harmonizer.score_partitions(harmonizer.partitions()))
    outcome = run_pipeline(harmonizer, judge="offline")
    assert outcome.partitions_computed["similarity_matches"] == 0
    assert shown(instance, "similarity_matches") == set(harmonizer.partitions())


def test_a_backfill_range_computes_what_holds_labels_in_one_run(harmonizer, tmp_path, instance):
    shop_receipts(["Alpha Mart", "Beta Cafe", "Gamma Bar"]).submit(harmonizer, tmp_path)
    execute(instance, "ingest_and_index")
    merchants = instance.get_dynamic_partitions("merchants")
    assert len(merchants) == 3
    types = ("DATE", "GRAND_TOTAL")
    names = [n for n in harmonizer.taxonomy.names if n in types]
    first, last = f"{names[0]}|{merchants[0]}", f"{names[-1]}|{merchants[-1]}"
    result = range_run(instance, first, last)
    assert result.success
    scored = {row["label_type"] for row in table(harmonizer, "similarity_matches")}
    assert set(types) <= scored
    held = set(harmonizer.partitions())
    for asset in PARTITIONED:
        reported = shown(instance, asset)
        assert {key for key in held if key.label_type in types} <= reported
    records = instance.fetch_materializations(AssetKey("outliers"), limit=1_000).records
    labels = {
        from_dagster(record.partition_key): record.asset_materialization.metadata["labels"].value
        for record in records
    }
    assert all((count > 0) == (key in held) for key, count in labels.items())


def test_a_failed_step_fails_the_run_and_keeps_what_was_finished(
    harmonizer, tmp_path, instance, monkeypatch
):
    shop_receipts().submit(harmonizer, tmp_path)
    monkeypatch.setattr(
        "harmonizer_assets.core.verdicts.OfflineJudging.judge",
        lambda self, chunk: (_ for _ in ()).throw(JudgeError("the judge is gone")),
    )
    with pytest.raises(JudgeError, match="the judge is gone"):
        run_pipeline(harmonizer, judge="offline")
    assert shown(instance, "similarity_matches") == set(harmonizer.partitions())
    assert DagsterRunStatus.FAILURE in {run.status for run in instance.get_runs()}


def test_runs_of_killed_processes_are_marked_as_failed(instance):
    job = defs.resolve_job_def("check_labels")
    tags = {"harmonizer/pid": "999999999", "harmonizer/process_started": "1.00"}
    run = instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.STARTED)
    assert fail_abandoned_runs(instance) == [run.run_id]
    assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE


def test_quarantined_rows_make_a_check_warn(harmonizer, tmp_path):
    receipts = shop_receipts()
    receipts.labels[0]["label"] = "NONSENSE"
    receipts.submit(harmonizer, tmp_path)
    outcome = run_pipeline(harmonizer, judge="offline")
    assert outcome.quarantined == 1
    assert outcome.failed_checks == [("quarantine_is_empty", "WARN")]


def stale_causes(instance: DagsterInstance, asset: str, partition: PartitionKey | None = None):
    """Why the UI would call an asset, or a partition of it, out of date."""
    resolver = CachingStaleStatusResolver(
        instance, defs.resolve_asset_graph(), LoadingContextForTest(instance)
    )
    key = None if partition is None else str(to_dagster(partition))
    return [cause.reason for cause in resolver.get_stale_causes(AssetKey(asset), key)]


def test_after_a_run_nothing_is_out_of_date_in_the_ui(harmonizer, tmp_path, instance):
    shop_receipts().submit(harmonizer, tmp_path)
    run_pipeline(harmonizer, judge="offline")
    partition = PartitionKey("DATE", merchant_key("Alpha Mart"))
    for asset in PARTITIONED:
        assert stale_causes(instance, asset, partition) == []
    for asset in ("word_embeddings", "receipt_alarms", "label_patterns", "harmonization_report"):
        assert stale_causes(instance, asset) == []


def test_a_changed_prompt_outdates_the_verdicts_and_not_the_scores(
    harmonizer, tmp_path, instance, monkeypatch
):
    shop_receipts().submit(harmonizer, tmp_path)
    monkeypatch.setitem(CODE_VERSIONS, "llm_verdicts", "an older prompt")
    run_pipeline(harmonizer, judge="offline")
    partition = PartitionKey("DATE", merchant_key("Alpha Mart"))
    assert stale_causes(instance, "similarity_matches", partition) == []
    assert stale_causes(instance, "llm_verdicts", partition) == ["has a new code version"]


def test_a_newer_score_outdates_the_verdict_of_its_partition_alone(harmonizer, tmp_path, instance):
    shop_receipts().submit(harmonizer, tmp_path)
    run_pipeline(harmonizer, judge="offline")
    alpha, beta = (PartitionKey("DATE", merchant_key(name)) for name in ("Alpha Mart", "Beta Cafe"))
    instance.report_runless_asset_event(
        AssetMaterialization(
            "similarity_matches",
            partition=str(to_dagster(alpha)),
            tags={"dagster/data_version": "another"},
        )
    )
    assert stale_causes(instance, "llm_verdicts", alpha) == ["has a new dependency data version"]
    assert stale_causes(instance, "llm_verdicts", beta) == []


def test_the_columns_say_which_columns_they_come_from(harmonizer, tmp_path, instance):
    shop_receipts().submit(harmonizer, tmp_path)
    run_pipeline(harmonizer, judge="offline")
    for asset, schema in (("similarity_matches", SIMILARITY_MATCHES), ("outliers", OUTLIERS)):
        latest = instance.get_latest_materialization_event(AssetKey(asset)).asset_materialization
        lineage = latest.metadata["dagster/column_lineage"].value.deps_by_column
        assert {*lineage} <= {column.name for column in schema.columns}
        assert lineage["merchant_key"]


def test_assets_that_should_keep_coming_have_a_freshness_policy():
    graph = defs.resolve_asset_graph()
    watched = {
        key.to_user_string()
        for key in graph.get_all_asset_keys()
        if graph.get(key).freshness_policy is not None
    }
    assert watched == {"labels", *PARTITIONED, "harmonization_report"}
