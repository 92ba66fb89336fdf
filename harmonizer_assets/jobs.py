"""Jobs: ingest what has arrived, harmonize what it touched, check the result."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dagster import (
    AssetSelection,
    In,
    Nothing,
    OpExecutionContext,
    define_asset_job,
    in_process_executor,
    job,
    op,
)

from harmonizer_assets.assets.ingest import ingest_inbox
from harmonizer_assets.core.harmonizer import AssetName, Harmonizer
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.stages import stored_fingerprints
from harmonizer_assets.instance import LLM_POOL
from harmonizer_assets.materializations import (
    fail_run,
    materialize_partitions,
    report_materialization,
    reported_version,
    reported_versions,
)
from harmonizer_assets.metadata import (
    index_metadata,
    model_metadata,
    pattern_metadata,
    plan_metadata,
    run_metadata,
)
from harmonizer_assets.progress import LogProgress
from harmonizer_assets.resources import HarmonizerResource, PartitionSelection

_NAMED = 20
"""Partitions that a log line names; the events of the run name them all."""

ingest_job = define_asset_job(
    "ingest_and_index",
    AssetSelection.assets("words", "labels", "quarantine", "word_embeddings"),
    description="Ingest the inbox and bring the vector index up to date.",
    executor_def=in_process_executor,
)

check_job = define_asset_job(
    "check_labels",
    AssetSelection.all_asset_checks(),
    description="Run all asset checks.",
    executor_def=in_process_executor,
)


evaluate_job = define_asset_job(
    "evaluate_labels",
    AssetSelection.assets("detection_quality"),
    description="Compare what was found with the truth file that the settings name.",
    executor_def=in_process_executor,
)


@op(ins={"collected": In(Nothing)}, description="Fit the model of suspicion where one is due.")
def fit(context: OpExecutionContext, harmonizer: HarmonizerResource) -> str:
    """Bring `suspicion_model` up to date; a model that stays in force is not reported again."""
    opened = harmonizer.open()
    version, _ = opened.fit_model(on_progress=LogProgress(context.log))
    if version != reported_version(context.instance, "suspicion_model"):
        report_materialization(context, "suspicion_model", model_metadata(opened, version), version)
    return version


@op(
    ins={"fitted": In(Nothing)},
    description="Score the labels of the partitions that are not up to date.",
)
def score(
    context: OpExecutionContext, harmonizer: HarmonizerResource, selection: PartitionSelection
) -> dict[str, int]:
    """Bring `similarity_matches` up to date."""
    opened = selection.open(harmonizer)
    if selection.dead_letters:
        requeued = opened.requeue_dead_letters()
        context.log.info(f"{len(requeued)} partitions hold dead letters and are judged again")
    return _run_stage(context, opened, selection, "similarity_matches")


@op(
    ins={"scored": In(Nothing)},
    description="Judge the labels that similarity leaves open.",
    pool=LLM_POOL,
)
def judge(
    context: OpExecutionContext, harmonizer: HarmonizerResource, selection: PartitionSelection
) -> dict[str, int]:
    """Bring `llm_verdicts` up to date; what the model took is an event of `llm_usage`."""
    opened = selection.open(harmonizer)
    totals = _run_stage(context, opened, selection, "llm_verdicts")
    return totals | {"stopped_at_budget": int(opened.llm_totals.stopped_at_budget)}


@op(ins={"judged": In(Nothing)}, description="Write the outliers, each with its reason.")
def publish(
    context: OpExecutionContext, harmonizer: HarmonizerResource, selection: PartitionSelection
) -> dict[str, int]:
    """Bring `outliers` up to date."""
    return _run_stage(context, selection.open(harmonizer), selection, "outliers")


@op(
    ins={"published": In(Nothing)},
    description="Find receipts that are wrong as a whole, and recurring patterns.",
)
def raise_alarms(context: OpExecutionContext, harmonizer: HarmonizerResource) -> None:
    """Bring alarms and patterns up to date; publish the report and the copy of the tables.

    Raises:
        PartitionsFailedError: partitions have failed in this run; all else is done by then.
    """
    opened = harmonizer.open()
    alarms = opened.update_alarms()
    report_materialization(context, "merchant_alarms", {"dagster/row_count": alarms})
    receipts = opened.update_receipt_alarms()
    report_materialization(context, "receipt_alarms", {"dagster/row_count": receipts})
    opened.update_patterns()
    report_materialization(context, "label_patterns", pattern_metadata(opened))
    opened.record_run(context.run_id)
    opened.warehouse.publish_snapshot()
    page = opened.write_report(context.run_id)
    report_materialization(context, "harmonization_report", run_metadata(context, opened, page))
    failed = opened.failed_partitions(context.run_id)
    fail_run({PartitionKey(row["label_type"], row["merchant_key"]): row["error"] for row in failed})


@job(
    name="harmonize_partitions",
    description="Bring scattered partitions up to date in one run: those that new labels touched, "
    "or those of the selected label types and merchants.",
    executor_def=in_process_executor,
)
def harmonize_job() -> None:
    """Score, judge, publish, raise alarms."""
    raise_alarms(published=publish(judged=judge(scored=score(fitted=fit()))))


@job(
    name="retry_dead_letters",
    description="Ask the words again that could not be judged, and bring up to date what waits.",
    executor_def=in_process_executor,
    config={"resources": {"selection": {"config": {"dead_letters": True}}}},
)
def retry_job() -> None:
    """Requeue, score, judge, publish, raise alarms."""
    raise_alarms(published=publish(judged=judge(scored=score(fitted=fit()))))


@op(ins={"scored": In(Nothing)}, description="Estimate what judging would take; spends nothing.")
def plan(
    context: OpExecutionContext, harmonizer: HarmonizerResource, selection: PartitionSelection
) -> dict[str, Any]:
    """Make the plan of the partitions that are not up to date."""
    opened = selection.open(harmonizer)
    made = opened.plan(
        opened.stale_partitions(
            "openai", selection.label_types, selection.merchants, refresh=selection.refresh
        ),
        refresh=selection.refresh,
    )
    report_materialization(context, "llm_plan", plan_metadata(made))
    return made.to_dict()


@job(
    name="plan_verdicts",
    description="Say what judging the waiting partitions with a model would cost, with one real "
    "prompt; it asks nobody and needs no key.",
    executor_def=in_process_executor,
)
def plan_job() -> None:
    """Score, plan."""
    plan(scored=score(fitted=fit()))


@op(ins={"scored": In(Nothing)}, description="Submit the open questions to the Batch API.")
def submit(
    context: OpExecutionContext, harmonizer: HarmonizerResource, selection: PartitionSelection
) -> list[str]:
    """Submit what the partitions that are not up to date leave open, as far as the budget goes."""
    opened = selection.open(harmonizer)
    partitions = opened.stale_partitions("openai", selection.label_types, selection.merchants)
    made = opened.submit_batch(partitions, run_id=context.run_id)
    for state in made:
        context.log.info(f"batch {state.batch_id}: {state.words} words, {state.status}")
    context.add_output_metadata({"batches": len(made), "words": sum(state.words for state in made)})
    return [state.batch_id for state in made if state.batch_id]


@job(
    name="submit_batches",
    description="Submit open questions to the Batch API at half the price; the sensor "
    "batch_api_sensor has the answers collected.",
    executor_def=in_process_executor,
)
def submit_job() -> None:
    """Score, submit."""
    submit(scored=score(fitted=fit()))


@op(description="Store the answers of the batches that have ended.")
def collect(context: OpExecutionContext, harmonizer: HarmonizerResource) -> None:
    """Collect batches into the verdict cache."""
    collected = harmonizer.open().batch_api().collect()
    context.log.info(
        f"{collected.batches} batches, {collected.answers} answers, "
        f"{collected.unanswered} questions without one"
    )
    context.add_output_metadata(asdict(collected))


@job(
    name="collect_batches",
    description="Collect the batches that have ended and bring up to date what waited for them.",
    executor_def=in_process_executor,
    # What no batch has answered is left to be asked when somebody says so.
    config={
        "resources": {"selection": {"config": {"judge": "openai", "options": {"budget_tokens": 0}}}}
    },
)
def collect_job() -> None:
    """Collect, score, judge, publish, raise alarms."""
    raise_alarms(published=publish(judged=judge(scored=score(fitted=fit(collected=collect())))))


def _run_stage(
    context: OpExecutionContext,
    harmonizer: Harmonizer,
    selection: PartitionSelection,
    asset: AssetName,
) -> dict[str, int]:
    """Compute the stale partitions and report those that the instance shows another version of.

    The two differ after a run that was killed between the commit of its tables and its report.
    """
    shown = reported_versions(context.instance, asset)
    stored = harmonizer.warehouse.read(lambda con: stored_fingerprints(con, asset))
    wanted = set(selection.stale(harmonizer))
    wanted.update(
        partition
        for partition in selection.all(harmonizer)
        if partition in stored and shown.get(partition) != stored[partition]
    )
    context.log.info(f"{asset}: {_why(wanted, stored)}")
    report = materialize_partitions(
        context,
        harmonizer,
        asset,
        sorted(wanted),
        judge=selection.judge_of(harmonizer),
        refresh=selection.refresh,
        shown=shown,
    )
    context.log.info(
        f"{asset}: {report.computed} partitions computed, {report.reported} reported, "
        f"{len(report.failed)} failed"
    )
    context.add_output_metadata({**report.totals(), "reported": report.reported})
    return report.totals()


@op(description="Ingest what waits in the inbox and bring the vector index up to date.")
def ingest_arrivals(context: OpExecutionContext, harmonizer: HarmonizerResource) -> None:
    """Ingest and index; a run that finds nothing new goes on with what waits to be computed."""
    opened = harmonizer.open()
    for table, metadata in ingest_inbox(context.instance, context.log, opened).items():
        report_materialization(context, table, metadata)
    report = opened.index_documents(LogProgress(context.log))
    report_materialization(context, "word_embeddings", index_metadata(report), opened.index_version)


@job(
    name="harmonize_arrivals",
    description="Ingest what has arrived and bring the partitions that it touches up to date, all "
    "in one run; requested by new_labels_sensor.",
    executor_def=in_process_executor,
)
def arrivals_job() -> None:
    """Ingest, index, fit, score, judge, publish, raise alarms."""
    raise_alarms(
        published=publish(judged=judge(scored=score(fitted=fit(collected=ingest_arrivals()))))
    )


def _why(wanted: set[PartitionKey], stored: Mapping[PartitionKey, str]) -> str:
    """Which partitions are to be computed, and why, for the log."""
    if not wanted:
        return "all partitions are up to date"
    new = sorted(partition for partition in wanted if partition not in stored)
    changed = sorted(wanted - {*new})
    reasons = {
        "never computed": new,
        "labels, statuses, settings, model or judge have changed": changed,
    }
    return "; ".join(
        f"{len(keys)} partitions because {reason}: "
        + ", ".join("|".join(key) for key in keys[:_NAMED])
        + (" ..." if len(keys) > _NAMED else "")
        for reason, keys in reasons.items()
        if keys
    )
