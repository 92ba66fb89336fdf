"""Detection quality as an asset: what was found against what is known to be wrong."""

from dagster import AssetExecutionContext, MaterializeResult, asset

from harmonizer_assets import columns
from harmonizer_assets.assets.ingest import OWNERS
from harmonizer_assets.core.evaluation import figures
from harmonizer_assets.core.plots import draw, write_plots
from harmonizer_assets.lineage import CODE_VERSIONS, UPSTREAM
from harmonizer_assets.metadata import picture, quality_table
from harmonizer_assets.resources import HarmonizerResource


@asset(
    deps=UPSTREAM["detection_quality"],
    description="Precision, recall, calibration and cost against a truth file, where the settings "
    "name one; tracked over runs in quality_history.",
    group_name="report",
    owners=OWNERS,
    kinds={"duckdb"},
    code_version=CODE_VERSIONS["detection_quality"],
    metadata={"dagster/column_schema": columns.QUALITY_HISTORY},
)
def detection_quality(
    context: AssetExecutionContext, harmonizer: HarmonizerResource
) -> MaterializeResult:
    """Compare the decisions with the truth file that the settings name."""
    opened = harmonizer.open()
    truth = opened.truth_file
    if truth is None:
        context.log.info("no truth file: set [evaluation] truth in harmonizer.toml")
        return MaterializeResult(metadata={"truth": "none: set [evaluation] truth"})
    evaluation = opened.evaluate(truth, run_id=context.run_id)
    write_plots(evaluation, opened.home.reports / "quality")
    images = {name: picture(image) for name, image in draw(evaluation).items()}
    return MaterializeResult(
        metadata={
            "truth": evaluation.truth_file,
            **figures(evaluation.overall),
            "guarantee": opened.guarantee(),
            "by_label_type": quality_table(evaluation.per_label_type),
            "by_merchant_size": quality_table(evaluation.per_merchant_size),
            **images,
        }
    )
