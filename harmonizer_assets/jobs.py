"""Jobs: ingest what has arrived, harmonize what it touched, check the result."""

from collections.abc import Callable, Iterable, Iterator, Sequence

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

from harmonizer_assets.core import outliers, similarity, verdicts
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.partitions import PartitionKey
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
    opened = harmonizer.open()
    return _run_stage(
        context,
        opened,
        selection,
        similarity.ASSET,
        lambda partitions: opened.score_partitions(
            partitions,
            run_id=context.run_id,
            refresh=selection.refresh,
            on_progress=LogProgress(context.log),
        ),
    )


@op(ins={"scored": In(Nothing)}, description="Judge the labels that similarity leaves open.")
def judge(
    context: OpExecutionContext, harmonizer: HarmonizerResource, selection: PartitionSelection
) -> dict[str, int]:
    """Bring `llm_verdicts` up to date."""
    opened = harmonizer.open()
    return _run_stage(
        context,
        opened,
        selection,
        verdicts.ASSET,
        lambda partitions: opened.judge_partitions(
            partitions,
            judge=selection.judge_of(opened),
            run_id=context.run_id,
            refresh=selection.refresh,
            on_progress=LogProgress(context.log),
        ),
    )


@op(ins={"judged": In(Nothing)}, description="Write the outliers, each with its reason.")
def publish(
    context: OpExecutionContext, harmonizer: HarmonizerResource, selection: PartitionSelection
) -> dict[str, int]:
    """Bring `outliers` up to date."""
    opened = harmonizer.open()
    return _run_stage(
        context,
        opened,
        selection,
        outliers.ASSET,
        lambda partitions: opened.publish_outliers(
            partitions,
            judge=selection.judge_of(opened),
            run_id=context.run_id,
            refresh=selection.refresh,
            on_progress=LogProgress(context.log),
        ),
    )


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
    asset: str,
    compute: Callable[[Sequence[PartitionKey]], Iterable[PartitionResult]],
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
        for result in compute(sorted(wanted)):
            computed += result.changed
            rows += result.labels if result.changed else 0
            if result.changed or shown.get(result.partition) != result.fingerprint:
                yield result

    reported = report_materializations(context, asset, worth_reporting())
    context.log.info(f"{asset}: {computed} partitions computed, {reported} reported")
    totals = {"computed": computed, "rows": rows}
    context.add_output_metadata({**totals, "reported": reported})
    return totals
