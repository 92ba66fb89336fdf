"""Jobs: ingest what has arrived, harmonize what it touched, check the result."""

from collections.abc import Iterator

from dagster import (
    AssetMaterialization,
    AssetSelection,
    In,
    Nothing,
    OpExecutionContext,
    define_asset_job,
    in_process_executor,
    job,
    op,
)

from harmonizer_assets.core.harmonizer import AssetName, Harmonizer
from harmonizer_assets.core.results import PartitionResult
from harmonizer_assets.core.stages import stored_fingerprints
from harmonizer_assets.materializations import report_materializations, reported_versions
from harmonizer_assets.progress import LogProgress
from harmonizer_assets.resources import HarmonizerResource, PartitionSelection

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


@op(description="Score the labels of the partitions that are not up to date.")
def score(
    context: OpExecutionContext, harmonizer: HarmonizerResource, selection: PartitionSelection
) -> dict[str, int]:
    """Bring `similarity_matches` up to date."""
    return _run_stage(context, harmonizer.open(), selection, "similarity_matches")


@op(ins={"scored": In(Nothing)}, description="Judge the labels that similarity leaves open.")
def judge(
    context: OpExecutionContext, harmonizer: HarmonizerResource, selection: PartitionSelection
) -> dict[str, int]:
    """Bring `llm_verdicts` up to date."""
    return _run_stage(context, harmonizer.open(), selection, "llm_verdicts")


@op(ins={"judged": In(Nothing)}, description="Write the outliers, each with its reason.")
def publish(
    context: OpExecutionContext, harmonizer: HarmonizerResource, selection: PartitionSelection
) -> dict[str, int]:
    """Bring `outliers` up to date."""
    return _run_stage(context, harmonizer.open(), selection, "outliers")


@op(ins={"published": In(Nothing)}, description="Find receipts that disagree with their merchant.")
def raise_alarms(context: OpExecutionContext, harmonizer: HarmonizerResource) -> None:
    """Bring `merchant_alarms` up to date and publish the read-only copy of the tables."""
    opened = harmonizer.open()
    alarms = opened.update_alarms()
    context.log_event(
        AssetMaterialization("merchant_alarms", metadata={"dagster/row_count": alarms})
    )
    opened.warehouse.publish_snapshot()


@job(
    name="harmonize_partitions",
    description="Bring scattered partitions up to date in one run: those that new labels touched, "
    "or those of the selected label types and merchants.",
    executor_def=in_process_executor,
)
def harmonize_job() -> None:
    """Score, judge, publish, raise alarms."""
    raise_alarms(published=publish(judged=judge(scored=score())))


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
    computed = rows = 0

    def worth_reporting() -> Iterator[PartitionResult]:
        nonlocal computed, rows
        for result in harmonizer.materialize(
            asset,
            sorted(wanted),
            judge=selection.judge_of(harmonizer),
            run_id=context.run_id,
            refresh=selection.refresh,
            on_progress=LogProgress(context.log),
        ):
            computed += result.changed
            rows += result.labels if result.changed else 0
            if result.changed or shown.get(result.partition) != result.fingerprint:
                yield result

    reported = report_materializations(context, asset, worth_reporting())
    context.log.info(f"{asset}: {computed} partitions computed, {reported} reported")
    totals = {"computed": computed, "rows": rows}
    context.add_output_metadata({**totals, "reported": reported})
    return totals
