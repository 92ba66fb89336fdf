"""The partitioned assets: similarity, verdicts and outliers of label type x merchant."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from dagster import (
    AssetExecutionContext,
    BackfillPolicy,
    Config,
    MaterializeResult,
    asset,
)

from harmonizer_assets import columns
from harmonizer_assets.assets.ingest import OWNERS
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.openai_judge import PROMPT_VERSION
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.results import PartitionResult
from harmonizer_assets.core.scoring import SCORER_VERSION
from harmonizer_assets.materializations import partition_metadata
from harmonizer_assets.partitions import from_dagster, label_type_by_merchant, to_dagster
from harmonizer_assets.progress import LogProgress
from harmonizer_assets.resources import HarmonizerResource

GROUP = "harmonize"


class RefreshConfig(Config):
    """How partitions are computed."""

    refresh: bool = False
    """Compute partitions again although their labels have not changed."""


class JudgeConfig(RefreshConfig):
    """How partitions are judged."""

    judge: Literal["offline", "openai"] = "offline"
    """Who decides what similarity leaves open."""


@asset(
    deps=["word_embeddings"],
    partitions_def=label_type_by_merchant,
    backfill_policy=BackfillPolicy.single_run(),
    description="Evidence for and against each label, its outlier score and triage.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb", "chroma"},
    code_version=SCORER_VERSION,
    metadata={"dagster/column_schema": columns.SIMILARITY_MATCHES},
)
def similarity_matches(
    context: AssetExecutionContext, config: RefreshConfig, harmonizer: HarmonizerResource
) -> MaterializeResult:
    """Score the labels of the requested partitions."""
    opened = harmonizer.open()
    return _materialize(
        context,
        opened,
        lambda partitions: opened.score_partitions(
            partitions,
            run_id=context.run_id,
            refresh=config.refresh,
            on_progress=LogProgress(context.log),
        ),
    )


@asset(
    deps=[similarity_matches],
    partitions_def=label_type_by_merchant,
    backfill_policy=BackfillPolicy.single_run(),
    description="Decisions on the labels that similarity leaves open; answers are bought once.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb", "openai"},
    code_version=PROMPT_VERSION,
    metadata={"dagster/column_schema": columns.LLM_VERDICTS},
)
def llm_verdicts(
    context: AssetExecutionContext, config: JudgeConfig, harmonizer: HarmonizerResource
) -> MaterializeResult:
    """Judge the ambiguous labels of the requested partitions."""
    opened = harmonizer.open()
    return _materialize(
        context,
        opened,
        lambda partitions: opened.judge_partitions(
            partitions,
            judge=config.judge,
            run_id=context.run_id,
            refresh=config.refresh,
            on_progress=LogProgress(context.log),
        ),
    )


@asset(
    deps=[llm_verdicts],
    partitions_def=label_type_by_merchant,
    backfill_policy=BackfillPolicy.single_run(),
    description="Flagged and unresolved labels with reason, confidence and proposed label type.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version="1",
    metadata={"dagster/column_schema": columns.OUTLIERS},
)
def outliers(
    context: AssetExecutionContext, config: JudgeConfig, harmonizer: HarmonizerResource
) -> MaterializeResult:
    """Write the outlier rows of the requested partitions."""
    opened = harmonizer.open()
    return _materialize(
        context,
        opened,
        lambda partitions: opened.publish_outliers(
            partitions,
            judge=config.judge,
            run_id=context.run_id,
            refresh=config.refresh,
            on_progress=LogProgress(context.log),
        ),
    )


@asset(
    deps=[similarity_matches],
    description="Receipts whose labels look like another merchant's: is the name wrong?",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version="1",
    metadata={"dagster/column_schema": columns.MERCHANT_ALARMS},
)
def merchant_alarms(harmonizer: HarmonizerResource) -> MaterializeResult:
    """Find receipts that disagree with their merchant."""
    return MaterializeResult(metadata={"dagster/row_count": harmonizer.open().update_alarms()})


def _materialize(
    context: AssetExecutionContext,
    harmonizer: Harmonizer,
    compute: Callable[[Sequence[PartitionKey]], Iterable[PartitionResult]],
) -> MaterializeResult:
    """Compute the partitions of a run (one, or a range) that hold labels."""
    requested = [from_dagster(key) for key in context.partition_keys]
    held = {*harmonizer.partitions(), *harmonizer.emptied_partitions()}
    totals: dict[str, Any] = {}
    changed = 0
    for result in compute([partition for partition in requested if partition in held]):
        context.add_asset_metadata(
            partition_metadata(result), partition_key=to_dagster(result.partition)
        )
        changed += result.changed
        for outcome, count in result.counts.items():
            totals[outcome] = totals.get(outcome, 0) + count
    for partition in requested:
        if partition not in held:
            context.add_asset_metadata({"labels": 0}, partition_key=to_dagster(partition))
    context.log.info(
        f"{len(requested)} partitions requested, "
        f"{sum(partition in held for partition in requested)} hold labels, {changed} computed: "
        + ", ".join(f"{count} {outcome}" for outcome, count in sorted(totals.items()))
    )
    return MaterializeResult()
