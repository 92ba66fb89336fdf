"""The partitioned assets: similarity, verdicts and outliers of label type x merchant."""

from collections.abc import Iterator
from typing import Literal

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetSpec,
    BackfillPolicy,
    Config,
    MaterializeResult,
    TableSchema,
    asset,
    multi_asset,
)

from harmonizer_assets import columns
from harmonizer_assets.assets.ingest import OWNERS, STALE_AFTER_DAYS
from harmonizer_assets.core.harmonizer import ASSETS, AssetName
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.results import PartitionResult
from harmonizer_assets.instance import LLM_POOL
from harmonizer_assets.lineage import CODE_VERSIONS, UPSTREAM
from harmonizer_assets.materializations import (
    fail_run,
    materialize_partitions,
    report_materializations,
)
from harmonizer_assets.metadata import pattern_metadata
from harmonizer_assets.partitions import from_dagster, label_type_by_merchant
from harmonizer_assets.resources import HarmonizerResource, JudgeOptions, named_judge

GROUP = "harmonize"


class HarmonizeConfig(Config):
    """How partitions are computed."""

    refresh: bool = False
    """Compute partitions again although their labels have not changed."""
    judge: Literal["settings", "offline", "openai"] = "settings"
    """Who decides what similarity leaves open: one of the judges, or as the settings say."""
    options: JudgeOptions = JudgeOptions()
    """Settings of the openai judge for this run."""


llm_usage = AssetSpec(
    "llm_usage",
    deps=UPSTREAM["llm_usage"],
    description="Calls, tokens and cost of each run that asks a model, per label type.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version=CODE_VERSIONS["llm_usage"],
    metadata={"dagster/column_schema": columns.LLM_USAGE},
)

llm_plan = AssetSpec(
    "llm_plan",
    deps=UPSTREAM["llm_plan"],
    description="What asking a model would take, by the job plan_verdicts; it spends nothing.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version=CODE_VERSIONS["llm_plan"],
)


def _spec(name: AssetName, description: str, kinds: set[str], schema: TableSchema) -> AssetSpec:
    return AssetSpec(
        name,
        deps=UPSTREAM[name],
        # The step reports each partition itself as soon as its rows are committed.
        skippable=True,
        partitions_def=label_type_by_merchant,
        description=description,
        group_name=GROUP,
        owners=OWNERS,
        kinds=kinds,
        code_version=CODE_VERSIONS[name],
        freshness_policy=STALE_AFTER_DAYS,
        metadata={"dagster/column_schema": schema},
    )


@multi_asset(
    specs=[
        _spec(
            "similarity_matches",
            "Evidence for and against each label, its outlier score and triage.",
            {"duckdb", "chroma"},
            columns.SIMILARITY_MATCHES,
        ),
        _spec(
            "llm_verdicts",
            "Decisions on the labels that similarity leaves open; answers are bought once.",
            {"duckdb", "openai"},
            columns.LLM_VERDICTS,
        ),
        _spec(
            "outliers",
            "Flagged and unresolved labels with reason, confidence and proposed label type.",
            {"duckdb"},
            columns.OUTLIERS,
        ),
    ],
    can_subset=True,
    backfill_policy=BackfillPolicy.single_run(),
    pool=LLM_POOL,
)
def harmonize(
    context: AssetExecutionContext, config: HarmonizeConfig, harmonizer: HarmonizerResource
) -> Iterator[MaterializeResult]:
    """Compute those partitions of a run (one, or a range) that hold labels.

    One step for the three assets: were they steps, Dagster would skip the later ones for all
    partitions once one partition has failed. A range is a cross product, so it also names
    partitions without labels; they say so.

    Raises:
        PartitionsFailedError: partitions have failed; all others are done and reported.
    """
    opened = harmonizer.open(config.options)
    requested = [from_dagster(key) for key in context.partition_keys]
    held = {*opened.partitions(), *opened.emptied_partitions()}
    op_context = context.op_execution_context
    failed: dict[PartitionKey, str] = {}
    for asset_name in ASSETS:
        if AssetKey(asset_name) not in context.selected_asset_keys:
            continue
        report = materialize_partitions(
            op_context,
            opened,
            asset_name,
            [partition for partition in requested if partition in held],
            judge=named_judge(config.judge, opened),
            refresh=config.refresh,
        )
        failed |= report.failed
        report_materializations(
            op_context,
            asset_name,
            [PartitionResult.empty(partition) for partition in requested if partition not in held],
        )
        context.log.info(
            f"{asset_name}: {len(requested)} partitions requested, "
            f"{sum(partition in held for partition in requested)} hold labels, "
            f"{report.computed} computed, {len(report.failed)} failed: "
            + ", ".join(f"{count} {outcome}" for outcome, count in sorted(report.outcomes.items()))
        )
    if opened.llm_totals.stopped_at_budget:
        context.log.warning("stopped at the budget: run again to go on where this run stopped")
    fail_run(failed)
    yield from ()


@asset(
    deps=UPSTREAM["merchant_alarms"],
    description="Receipts whose labels look like another merchant's: is the name wrong?",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version=CODE_VERSIONS["merchant_alarms"],
    metadata={"dagster/column_schema": columns.MERCHANT_ALARMS},
)
def merchant_alarms(harmonizer: HarmonizerResource) -> MaterializeResult:
    """Find receipts that disagree with their merchant."""
    return MaterializeResult(metadata={"dagster/row_count": harmonizer.open().update_alarms()})


@asset(
    deps=UPSTREAM["receipt_alarms"],
    description="Receipts on which many label types are wrong together: shifted columns.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version=CODE_VERSIONS["receipt_alarms"],
    metadata={"dagster/column_schema": columns.RECEIPT_ALARMS},
)
def receipt_alarms(harmonizer: HarmonizerResource) -> MaterializeResult:
    """Find receipts that are wrong as a whole."""
    return MaterializeResult(
        metadata={"dagster/row_count": harmonizer.open().update_receipt_alarms()}
    )


@asset(
    deps=UPSTREAM["label_patterns"],
    description="Wrong labels that recur, to be accepted as rules with `harmonizer rules accept`.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version=CODE_VERSIONS["label_patterns"],
    metadata={"dagster/column_schema": columns.LABEL_PATTERNS},
)
def label_patterns(harmonizer: HarmonizerResource) -> MaterializeResult:
    """Find patterns in what was found."""
    opened = harmonizer.open()
    opened.update_patterns()
    return MaterializeResult(metadata=pattern_metadata(opened))
