"""The model of suspicion as an asset: fitted on the home's own labels, refitted as they grow."""

from dagster import AssetExecutionContext, Config, DataVersion, MaterializeResult, asset

from harmonizer_assets import columns
from harmonizer_assets.assets.ingest import OWNERS
from harmonizer_assets.lineage import CODE_VERSIONS, UPSTREAM
from harmonizer_assets.metadata import model_metadata
from harmonizer_assets.progress import LogProgress
from harmonizer_assets.resources import HarmonizerResource


class FitConfig(Config):
    """When the model is fitted."""

    refit: bool = False
    """Fit although the model in force is still good; all partitions have to be scored again."""


@asset(
    deps=UPSTREAM["suspicion_model"],
    description="Learns from the labels what words of each type look like, and from validated "
    "labels which cases need no question.",
    group_name="index",
    owners=OWNERS,
    kinds={"scikitlearn"},
    code_version=CODE_VERSIONS["suspicion_model"],
    metadata={"dagster/column_schema": columns.SUSPICION_MODELS},
)
def suspicion_model(
    context: AssetExecutionContext, config: FitConfig, harmonizer: HarmonizerResource
) -> MaterializeResult:
    """Fit a model where one is due."""
    opened = harmonizer.open()
    version, _ = opened.fit_model(refit=config.refit, on_progress=LogProgress(context.log))
    return MaterializeResult(
        metadata=model_metadata(opened, version), data_version=DataVersion(version)
    )
