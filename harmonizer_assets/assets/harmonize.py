"""The partitioned assets: similarity, verdicts and outliers of label type x merchant."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from dagster import (
    AssetExecutionContext,
    AssetSpec,
    BackfillPolicy,
    Config,
    MaterializeResult,
    asset,
)

from harmonizer_assets import columns
from harmonizer_assets.assets.ingest import OWNERS
from harmonizer_assets.core.harmonizer import AssetName
from harmonizer_assets.core.llm.wire import PROMPT_VERSION
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.scoring import SCORER_VERSION
from harmonizer_assets.materializations import (
    add_partition_metadata,
    partition_metadata,
    pattern_metadata,
    report_usage,
)
from harmonizer_assets.partitions import from_dagster, label_type_by_merchant
from harmonizer_assets.progress import LogProgress
from harmonizer_assets.resources import HarmonizerResource, JudgeOptions, named_judge

GROUP = "harmonize"


class RefreshConfig(Config):
    """How partitions are computed."""

    refresh: bool = False
    """Compute partitions again although their labels have not changed."""


class JudgeConfig(RefreshConfig):
    """How partitions are judged."""

    judge: Literal["settings", "offline", "openai"] = "settings"
    """Who decides what similarity leaves open: one of the judges, or as the settings say."""
    options: JudgeOptions = JudgeOptions()
    """Settings of the openai judge for this run."""


llm_usage = AssetSpec(
    "llm_usage",
    deps=["llm_verdicts"],
    description="Calls, tokens and cost of each run that asks a model, per label type.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version="1",
    metadata={"dagster/column_schema": columns.LLM_USAGE},
)

llm_plan = AssetSpec(
    "llm_plan",
    deps=["similarity_matches"],
    description="What asking a model would take, by the job plan_verdicts; it spends nothing.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version="1",
)


@asset(
    deps=["word_embeddings", "suspicion_model"],
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
    return _materialize(context, config, harmonizer, "similarity_matches")


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
    return _materialize(context, config, harmonizer, "llm_verdicts")


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
    return _materialize(context, config, harmonizer, "outliers")


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


@asset(
    deps=[outliers],
    description="Receipts on which many label types are wrong together: shifted columns.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version="1",
    metadata={"dagster/column_schema": columns.RECEIPT_ALARMS},
)
def receipt_alarms(harmonizer: HarmonizerResource) -> MaterializeResult:
    """Find receipts that are wrong as a whole."""
    return MaterializeResult(
        metadata={"dagster/row_count": harmonizer.open().update_receipt_alarms()}
    )


@asset(
    deps=[outliers],
    description="Wrong labels that recur, to be accepted as rules with `harmonizer rules accept`.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version="1",
    metadata={"dagster/column_schema": columns.LABEL_PATTERNS},
)
def label_patterns(harmonizer: HarmonizerResource) -> MaterializeResult:
    """Find patterns in what was found."""
    opened = harmonizer.open()
    opened.update_patterns()
    return MaterializeResult(metadata=pattern_metadata(opened))


def _materialize(
    context: AssetExecutionContext,
    config: RefreshConfig,
    resource: HarmonizerResource,
    asset_name: AssetName,
) -> MaterializeResult:
    """Compute those partitions of a run (one, or a range) that hold labels.

    A range is a cross product, so it also names partitions without labels; they say so.
    """
    asked = config if isinstance(config, JudgeConfig) else JudgeConfig()
    harmonizer = resource.open(asked.options)
    requested = [from_dagster(key) for key in context.partition_keys]
    held = {*harmonizer.partitions(), *harmonizer.emptied_partitions()}
    metadata: dict[PartitionKey, Mapping[str, Any]] = {
        partition: {"labels": 0} for partition in requested
    }
    totals: Counter[str] = Counter()
    computed = 0
    for result in harmonizer.materialize(
        asset_name,
        [partition for partition in requested if partition in held],
        judge=named_judge(asked.judge, harmonizer),
        run_id=context.run_id,
        refresh=config.refresh,
        on_progress=LogProgress(context.log),
    ):
        metadata[result.partition] = partition_metadata(result)
        totals.update(result.counts)
        computed += result.changed
    add_partition_metadata(context, metadata)
    if asset_name == "llm_verdicts":
        report_usage(context.op_execution_context, harmonizer)
        if harmonizer.llm_totals.stopped_at_budget:
            context.log.warning("stopped at the budget: run again to go on where this run stopped")
    context.log.info(
        f"{len(requested)} partitions requested, "
        f"{sum(partition in held for partition in requested)} hold labels, {computed} computed: "
        + ", ".join(f"{count} {outcome}" for outcome, count in sorted(totals.items()))
    )
    return MaterializeResult()
