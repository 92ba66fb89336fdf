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
from harmonizer_assets.materializations import materialized_partitions, report_materializations
from harmonizer_assets.partitions import to_dagster
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
            judge=selection.judge,
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
            judge=selection.judge,
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
    """Compute stale partitions; report them, and those that a killed run did not report."""
    shown = materialized_partitions(context.instance, asset)
    wanted = set(selection.stale(harmonizer))
    wanted.update(
        partition for partition in selection.all(harmonizer) if to_dagster(partition) not in shown
    )
    computed = rows = 0

    def worth_reporting() -> Iterator[PartitionResult]:
        nonlocal computed, rows
        for result in compute(sorted(wanted)):
            computed += result.changed
            rows += result.labels if result.changed else 0
            if result.changed or to_dagster(result.partition) not in shown:
                yield result

    reported = report_materializations(context, asset, worth_reporting())
    context.log.info(f"{asset}: {computed} partitions computed, {reported} reported")
    return {"computed": computed, "rows": rows}
