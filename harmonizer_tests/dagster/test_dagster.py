from __future__ import annotations

import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetMaterialization,
    AssetSelection,
    DagsterRunStatus,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.errors import JudgeError
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.dagster_compat.event_log import BatchingSqliteEventLogStorage
from harmonizer_assets.dagster_compat.run_health import fail_abandoned_runs
from harmonizer_assets.definitions import build_definitions
from harmonizer_assets.defs.partitions import from_dagster, to_dagster
from harmonizer_assets.web.columns import OUTLIERS, SIMILARITY_MATCHES
from harmonizer_assets.web.lineage import CODE_VERSIONS
from harmonizer_tests.support.dagster_runs import (
    PARTITIONED,
    PUBLISHED,
    execute,
    range_run,
    shown,
    stale_causes,
    statuses,
)
from harmonizer_tests.support.receipts import OFFLINE, Receipts, score, shop_receipts, table

DATA_VERSION = "dagster/data_version"


@pytest.fixture
def graph(home):
    return build_definitions(home).resolve_asset_graph()


# Definitions


def test_the_graph_has_the_contracts_assets_with_their_dependencies(graph):
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
        "missing_labels": {"similarity_matches"},
        "validation_queue": {"outliers"},
        "detection_quality": {"outliers"},
        "corrections": {"outliers"},
        "harmonization_report": {
            *("outliers", "label_patterns", "receipt_alarms", "missing_labels")
        },
        "llm_usage": {"llm_verdicts"},
        "llm_plan": {"similarity_matches"},
        "llm_batch_jobs": {"similarity_matches"},
        "home_retention": set(),
    }


def test_every_asset_says_what_it_is_who_owns_it_and_which_columns_it_has(graph):
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.owners
        assert node.kinds
        assert node.code_version
        groups = {"ingest", "index", "harmonize", "review", "report", "maintenance"}
        assert node.group_name in groups
        no_tables = {
            "word_embeddings",
            "llm_plan",
            "llm_batch_jobs",
            "harmonization_report",
            "home_retention",
        }
        if key.to_user_string() not in no_tables:
            assert node.metadata["dagster/column_schema"].columns


def test_partitions_are_label_type_by_merchant(graph):
    for asset in PARTITIONED:
        definition = graph.get(AssetKey(asset)).partitions_def
        names = {dimension.name for dimension in definition.partitions_defs}
        assert names == {"label_type", "merchant"}


def test_there_are_checks_on_counts_coverage_quarantine_and_dead_letters(graph):
    keys = {
        (key.asset_key.to_user_string(), key.name)
        for key in AssetSelection.all_asset_checks().resolve_checks(graph)
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


def test_one_check_can_be_made_without_the_others(pipeline, tmp_path, instance):
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.ingest()
    one = AssetCheckKey(AssetKey("outliers"), "all_partitions_current")
    job = build_definitions(pipeline.home).resolve_implicit_global_asset_job_def()
    made = job.get_subset(asset_check_selection={one}, asset_selection=set()).execute_in_process(
        instance=instance
    )
    (evaluation,) = made.get_asset_check_evaluations()
    assert (evaluation.asset_check_key, evaluation.passed) == (one, False)
    assert evaluation.metadata["waiting"].value > 0


def test_jobs_are_selections_of_assets_and_checks_and_there_are_no_other_ops(home, graph):
    definitions = build_definitions(home)
    jobs = list(definitions.jobs or [])
    assert all(isinstance(job, UnresolvedAssetJobDefinition) for job in jobs)
    work = {assets.node_def.name for assets in graph.assets_defs if assets.is_executable}
    names = {job.name for job in jobs}
    assert names == {
        "ingest_and_index",
        "harmonize_partitions",
        "harmonize_arrivals",
        "retry_dead_letters",
        "collect_batches",
        "plan_verdicts",
        "submit_batches",
        "check_labels",
        "evaluate_labels",
        "apply_corrections",
        "prune_home",
    }
    for name in names:
        job = definitions.resolve_job_def(name)
        assert job.asset_layer.selected_asset_keys or job.asset_layer.asset_graph.asset_check_keys
        assert {node.definition.name for node in job.nodes} <= work
        assert {node.name for node in job.nodes} <= work
        assert job.nodes


# The event log


def test_a_batch_is_stored_like_single_events(shop, instance):
    assert isinstance(instance.event_log_storage, BatchingSqliteEventLogStorage)
    partition = PartitionKey("DATE", merchant_key("Alpha Mart"))
    for asset in PARTITIONED:
        assert shown(instance, asset) == set(shop.partitions.held())
        record = instance.fetch_materializations(AssetKey(asset), limit=1_000).records
        by_partition = {item.partition_key: item.asset_materialization for item in record}
        materialization = by_partition[to_dagster(partition)]
        assert materialization.tags["dagster/partition/label_type"] == "DATE"
        assert materialization.tags["dagster/data_version"]
        assert materialization.metadata["labels"].value == 5
        latest = instance.get_latest_materialization_event(AssetKey(asset))
        assert latest.run_id == record[0].run_id


# Runs


def test_a_run_computes_and_reports_only_partitions_that_hold_labels(pipeline, tmp_path, instance):
    shop_receipts(["Trader Joe's", "O'Reilly | Sons", "7/11", "日本"]).submit(pipeline, tmp_path)
    outcome = run_pipeline(pipeline.home, OFFLINE)
    held = pipeline.partitions.held()
    assert outcome.partitions_computed == dict.fromkeys(PARTITIONED, len(held))
    assert len(held) < 4 * len(pipeline.taxonomy.names)
    assert outcome.failed_checks == []
    assert all(run.status == DagsterRunStatus.SUCCESS for run in instance.get_runs())
    assert len(instance.get_runs()) == 2


def test_new_labels_rematerialize_their_merchant_alone(shop, tmp_path, instance):
    runs = {run.run_id for run in instance.get_runs()}
    more = Receipts()
    more.add_receipt("another", "Alpha Mart")
    more.submit(shop, tmp_path / "more")
    run_pipeline(shop.home, OFFLINE)
    touched = {
        from_dagster(record.partition_key).merchant_key
        for record in instance.fetch_materializations(AssetKey("outliers"), limit=1_000).records
        if record.run_id not in runs
    }
    assert touched == {merchant_key("Alpha Mart")}


def test_a_second_run_materializes_no_partition(shop, tmp_path, instance):
    before = len(instance.fetch_materializations(AssetKey("outliers"), limit=1_000).records)
    outcome = run_pipeline(shop.home, OFFLINE)
    after = len(instance.fetch_materializations(AssetKey("outliers"), limit=1_000).records)
    assert outcome.unchanged
    assert before == after


def test_partitions_that_a_killed_run_computed_but_did_not_report_are_reported_later(
    pipeline, tmp_path, instance
):
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.ingest()
    pipeline.index()
    score(pipeline)
    outcome = run_pipeline(pipeline.home, OFFLINE)
    assert outcome.partitions_computed["similarity_matches"] == 0
    assert shown(instance, "similarity_matches") == set(pipeline.partitions.held())


def test_a_backfill_range_computes_what_holds_labels_in_one_run(home, pipeline, tmp_path, instance):
    shop_receipts(["Alpha Mart", "Beta Cafe", "Gamma Bar"]).submit(pipeline, tmp_path)
    execute(instance, home, "ingest_and_index")
    merchants = instance.get_dynamic_partitions("merchants")
    assert len(merchants) == 3
    types = ("DATE", "GRAND_TOTAL")
    names = [n for n in pipeline.taxonomy.names if n in types]
    first, last = f"{names[0]}|{merchants[0]}", f"{names[-1]}|{merchants[-1]}"
    result = range_run(instance, home, first, last)
    assert result.success
    scored = {row["label_type"] for row in table(pipeline, "similarity_matches")}
    assert set(types) <= scored
    held = set(pipeline.partitions.held())
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
    pipeline, tmp_path, instance, monkeypatch
):
    shop_receipts().submit(pipeline, tmp_path)
    monkeypatch.setattr(
        "harmonizer_assets.core.judge.offline_judging.OfflineJudging.judge",
        lambda self, chunk: (_ for _ in ()).throw(JudgeError("the judge is gone")),
    )
    with pytest.raises(JudgeError, match="the judge is gone"):
        run_pipeline(pipeline.home, OFFLINE)
    assert shown(instance, "similarity_matches") == set(pipeline.partitions.held())
    assert DagsterRunStatus.FAILURE in {run.status for run in instance.get_runs()}


def test_runs_of_killed_processes_are_marked_as_failed(home, instance):
    job = build_definitions(home).resolve_job_def("check_labels")
    tags = {"harmonizer/pid": "999999999", "harmonizer/process_started": "1.00"}
    run = instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.STARTED)
    assert fail_abandoned_runs(instance) == [run.run_id]
    assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE


def test_quarantined_rows_make_a_check_warn(shop, tmp_path):
    receipts = shop_receipts(each=1, images="more")
    receipts.labels[0]["label"] = "NONSENSE"
    receipts.submit(shop, tmp_path)
    outcome = run_pipeline(shop.home, OFFLINE)
    assert outcome.quarantined == 1
    assert outcome.failed_checks == [("quarantine_is_empty", "WARN")]


def test_after_a_run_nothing_is_out_of_date_in_the_ui(home, shop, tmp_path, instance):
    partition = PartitionKey("DATE", merchant_key("Alpha Mart"))
    for asset in PARTITIONED:
        assert stale_causes(instance, home, asset, partition) == []
    for asset in ("word_embeddings", "receipt_alarms", "label_patterns", "harmonization_report"):
        assert stale_causes(instance, home, asset) == []


def test_a_run_launched_without_a_partition_brings_scattered_partitions_up_to_date(
    home, shop, tmp_path, instance
):
    pipeline, shops = shop, ("Alpha Mart", "Beta Cafe", "Gamma Bar")
    before = {asset: pipeline.partitions.stored(asset) for asset in PARTITIONED}
    later = Receipts()
    later.add_receipt("later-0", shops[0], wrong_total="TAX")
    later.add_receipt("later-2", shops[2])
    later.submit(pipeline, tmp_path / "later")
    execute(instance, home, "ingest_and_index")
    result = execute(instance, home, "harmonize_partitions")
    held = {*pipeline.partitions.held()}
    touched = {
        *pipeline.partitions.held(merchants=[merchant_key(shops[0]), merchant_key(shops[2])])
    }
    assert PartitionKey("TAX", merchant_key(shops[0])) in touched
    for asset in PARTITIONED:
        stored = pipeline.partitions.stored(asset)
        assert {key for key in stored if stored[key] != before[asset].get(key)} == touched
        records = instance.fetch_materializations(AssetKey(asset), limit=1_000).records
        reported = {
            from_dagster(record.partition_key): record.asset_materialization.tags[DATA_VERSION]
            for record in records
            if record.run_id == result.run_id
        }
        assert reported == {key: stored[key] for key in touched}
        assert statuses(instance, home, asset) == (held, set())
        assert stale_causes(instance, home, asset, *held) == []
    for asset in ("word_embeddings", "suspicion_model", *PUBLISHED):
        assert stale_causes(instance, home, asset) == []


def test_a_changed_prompt_invalidates_the_verdicts_and_not_the_scores(
    home, shop, instance, monkeypatch
):
    monkeypatch.setitem(CODE_VERSIONS, "llm_verdicts", "a newer prompt")
    partition = PartitionKey("DATE", merchant_key("Alpha Mart"))
    assert stale_causes(instance, home, "similarity_matches", partition) == []
    assert stale_causes(instance, home, "llm_verdicts", partition) == ["has a new code version"]


def test_a_newer_score_invalidates_the_verdict_of_its_partition_alone(
    home, shop, tmp_path, instance
):
    alpha, beta = (PartitionKey("DATE", merchant_key(name)) for name in ("Alpha Mart", "Beta Cafe"))
    instance.report_runless_asset_event(
        AssetMaterialization(
            "similarity_matches",
            partition=str(to_dagster(alpha)),
            tags={"dagster/data_version": "another"},
        )
    )
    assert stale_causes(instance, home, "llm_verdicts", alpha) == [
        "has a new dependency data version"
    ]
    assert stale_causes(instance, home, "llm_verdicts", beta) == []


def test_the_columns_say_which_columns_they_come_from(shop, tmp_path, instance):
    for asset, schema in (("similarity_matches", SIMILARITY_MATCHES), ("outliers", OUTLIERS)):
        latest = instance.get_latest_materialization_event(AssetKey(asset)).asset_materialization
        lineage = latest.metadata["dagster/column_lineage"].value.deps_by_column
        assert {*lineage} <= {column.name for column in schema.columns}
        assert lineage["merchant_key"]


def test_assets_that_should_keep_coming_have_a_freshness_policy(graph):
    watched = {
        key.to_user_string()
        for key in graph.get_all_asset_keys()
        if graph.get(key).freshness_policy is not None
    }
    assert watched == {"labels", *PARTITIONED, "harmonization_report"}
