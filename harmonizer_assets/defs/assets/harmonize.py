"""The partitioned assets: similarity, verdicts and outliers of label type x merchant."""

from collections.abc import Iterator, Sequence

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    MaterializeResult,
    PartitionsDefinition,
    ResourceParam,
    TableSchema,
    multi_asset,
)

from harmonizer_assets.core.base.interrupts import stopped_by_signals
from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import ASSETS, AssetName
from harmonizer_assets.dagster_compat.instance import LLM_POOL
from harmonizer_assets.defs.jobs import HARMONIZE_STEP
from harmonizer_assets.defs.partitions import label_type_by_merchant, requested
from harmonizer_assets.defs.progress import LogProgress
from harmonizer_assets.defs.reporting import DagsterReporter, fail_run
from harmonizer_assets.defs.resources import HarmonizeConfig, HomeResource
from harmonizer_assets.web import columns
from harmonizer_assets.web.lineage import CODE_VERSIONS, UPSTREAM


def _spec(
    name: AssetName,
    description: str,
    kinds: set[str],
    schema: TableSchema,
    partitions: PartitionsDefinition,
) -> AssetSpec:
    return AssetSpec(
        name,
        deps=UPSTREAM[name],
        # The step reports each partition itself as soon as its rows are committed.
        skippable=True,
        partitions_def=partitions,
        description=description,
        group_name="harmonize",
        kinds=kinds,
        code_version=CODE_VERSIONS[name],
        metadata={"dagster/column_schema": schema},
    )


def partitioned_assets(label_types: Sequence[str]) -> AssetsDefinition:
    """Define the partitioned assets of a home with these label types."""
    partitions = label_type_by_merchant(label_types)

    @multi_asset(
        name=HARMONIZE_STEP,
        specs=[
            _spec(
                "similarity_matches",
                "Votes and features of each label, its outlier score and triage.",
                {"duckdb", "chroma"},
                columns.SIMILARITY_MATCHES,
                partitions,
            ),
            _spec(
                "llm_verdicts",
                "Decisions on the labels that similarity leaves open; answers are bought once.",
                {"duckdb", "openai"},
                columns.LLM_VERDICTS,
                partitions,
            ),
            _spec(
                "outliers",
                "Flagged and unresolved labels with reason, confidence and proposed label type.",
                {"duckdb"},
                columns.OUTLIERS,
                partitions,
            ),
        ],
        can_subset=True,
        backfill_policy=BackfillPolicy.single_run(),
        pool=LLM_POOL,
    )
    def harmonize(
        context: AssetExecutionContext,
        config: HarmonizeConfig,
        home: HomeResource,
        on_progress: ResourceParam[ProgressFn],
    ) -> Iterator[MaterializeResult]:
        """Bring partitions up to date: those of the run, or all that are stale.

        One step for the three assets: were they steps, Dagster would skip the later ones for all
        partitions once one partition has failed.

        Raises:
            PartitionsFailedError: partitions have failed; all others are done and reported.
        """
        pipeline = home.open(config.overrides())
        wanted = requested(context)
        with stopped_by_signals() as stop:
            report = pipeline.harmonize(
                config.to_options(context.run, LogProgress(context.log, on_progress), stop),
                DagsterReporter(context, pipeline, wanted),
                partitions=None if wanted is None else _with_labels(pipeline, wanted),
                assets=[name for name in ASSETS if AssetKey(name) in context.selected_asset_keys],
            )
        fail_run(report.failed)
        yield from ()

    return harmonize


def _with_labels(pipeline: Pipeline, wanted: Sequence[PartitionKey]) -> list[PartitionKey]:
    """Select the partitions with labels or rows: a range is a cross product with others, too."""
    held = {*pipeline.partitions.held(), *pipeline.partitions.emptied()}
    return [partition for partition in wanted if partition in held]
