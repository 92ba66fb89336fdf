"""The vector index, and the model of suspicion that is fitted on it."""

from dagster import (
    AssetExecutionContext,
    Config,
    DataVersion,
    MaterializeResult,
    ResourceParam,
    asset,
)
from pydantic import Field

from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.base.settings import BUDGETS, JudgeOverrides
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.defs.progress import LogProgress
from harmonizer_assets.defs.resources import BudgetOptions, HomeResource, account_of
from harmonizer_assets.web import columns
from harmonizer_assets.web.lineage import CODE_VERSIONS, UPSTREAM
from harmonizer_assets.web.metadata import index_metadata, model_metadata


class EmbeddingConfig(Config):
    """What embedding may cost."""

    options: BudgetOptions = Field(  # type: ignore[valid-type]
        default=BudgetOptions(), description="Budgets for this run, where an endpoint embeds."
    )

    def overrides(self) -> JudgeOverrides:
        """Return the budgets that are replaced for this run."""
        return JudgeOverrides(**{name: getattr(self.options, name) for name in BUDGETS})


@asset(
    deps=UPSTREAM["word_embeddings"],
    description="Vectors of labelled words in their context, in Chroma; each document once.",
    group_name="index",
    kinds={"chroma"},
    code_version=CODE_VERSIONS["word_embeddings"],
)
def word_embeddings(
    context: AssetExecutionContext,
    config: EmbeddingConfig,
    home: HomeResource,
    on_progress: ResourceParam[ProgressFn],
) -> MaterializeResult:
    """Bring the vector index up to date with words and labels."""
    pipeline = home.open(config.overrides())
    report = pipeline.index(LogProgress(context.log, on_progress), account_of(context.run))
    context.log.info(
        f"{report.embedded} documents embedded for {report.words} labelled words, "
        f"{report.total} in the index"
        + (", which was rebuilt for this embedder" if report.rebuilt else "")
    )
    return MaterializeResult(
        metadata=index_metadata(report), data_version=DataVersion(pipeline.indexing.version)
    )


class FitConfig(Config):
    """When the model is fitted."""

    refit: bool = Field(
        default=False,
        description="Fit although the model in force is still good; all partitions have to be "
        "scored again.",
    )


@asset(
    deps=UPSTREAM["suspicion_model"],
    description="Learns from the labels what words of each type look like, and from validated "
    "labels which cases need no question.",
    group_name="index",
    kinds={"scikitlearn"},
    code_version=CODE_VERSIONS["suspicion_model"],
    metadata={"dagster/column_schema": columns.SUSPICION_MODELS},
)
def suspicion_model(
    context: AssetExecutionContext,
    config: FitConfig,
    home: HomeResource,
    on_progress: ResourceParam[ProgressFn],
) -> MaterializeResult:
    """Fit a model where one is due; a run that scores does so by itself."""
    pipeline = home.open()
    options = RunOptions(on_progress=LogProgress(context.log, on_progress))
    version, _ = pipeline.score.fit(options, refit=config.refit)
    return MaterializeResult(
        metadata=model_metadata(pipeline, version), data_version=DataVersion(version)
    )
