"""Assets about asking a model: usage, the plan, and batch jobs."""

from dagster import (
    AssetExecutionContext,
    AssetSpec,
    MaterializeResult,
    ResourceParam,
    asset,
)

from harmonizer_assets.core.base.interrupts import stopped_by_signals
from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.defs.progress import LogProgress
from harmonizer_assets.defs.reporting import DagsterReporter
from harmonizer_assets.defs.resources import HarmonizeConfig, HomeResource
from harmonizer_assets.web import columns
from harmonizer_assets.web.lineage import CODE_VERSIONS, UPSTREAM
from harmonizer_assets.web.metadata import plan_metadata

# Reported by the step that asks: the usage is known only there.
llm_usage = AssetSpec(
    "llm_usage",
    deps=UPSTREAM["llm_usage"],
    description="Calls, tokens and cost of each run that asks a model, per label type.",
    group_name="harmonize",
    kinds={"duckdb"},
    code_version=CODE_VERSIONS["llm_usage"],
    metadata={"dagster/column_schema": columns.LLM_USAGE},
)


@asset(
    deps=UPSTREAM["llm_plan"],
    description="What asking a model would take, with one real prompt; it spends nothing.",
    group_name="harmonize",
    kinds={"duckdb"},
    code_version=CODE_VERSIONS["llm_plan"],
)
def llm_plan(
    context: AssetExecutionContext,
    config: HarmonizeConfig,
    home: HomeResource,
    on_progress: ResourceParam[ProgressFn],
) -> MaterializeResult:
    """Score what is stale, and estimate what judging it would take."""
    pipeline = home.open(config.overrides())
    with stopped_by_signals() as stop:
        options = config.to_options(context.run, LogProgress(context.log, on_progress), stop)
        plan = pipeline.plan(options, DagsterReporter(context, pipeline))
    return MaterializeResult(metadata=plan_metadata(plan))


@asset(
    deps=UPSTREAM["llm_batch_jobs"],
    description="Open questions as batch jobs at the Batch API, answered within a day at half the "
    "price.",
    group_name="harmonize",
    kinds={"duckdb", "openai"},
    code_version=CODE_VERSIONS["llm_batch_jobs"],
)
def llm_batch_jobs(
    context: AssetExecutionContext,
    config: HarmonizeConfig,
    home: HomeResource,
    on_progress: ResourceParam[ProgressFn],
) -> MaterializeResult:
    """Score what is stale, and submit the open questions within the budget."""
    pipeline = home.open(config.overrides())
    with stopped_by_signals() as stop:
        options = config.to_options(context.run, LogProgress(context.log, on_progress), stop)
        submitted = pipeline.submit(options, DagsterReporter(context, pipeline))
    for state in submitted:
        context.log.info(f"batch job {state.batch_id}: {state.words} words, {state.status}")
    return MaterializeResult(
        metadata={
            "batch_jobs": [state.batch_id for state in submitted if state.batch_id],
            "words": sum(state.words for state in submitted),
        }
    )
