"""Detection quality as an asset: compares what was found with a truth file."""

from dagster import AssetExecutionContext, MaterializeResult, asset

from harmonizer_assets.core.base.figure import can_draw
from harmonizer_assets.core.measure.evaluation import figures
from harmonizer_assets.core.measure.history import record_evaluation
from harmonizer_assets.core.measure.plots import draw, write_plots
from harmonizer_assets.defs.resources import HomeResource
from harmonizer_assets.web import columns
from harmonizer_assets.web.lineage import CODE_VERSIONS, UPSTREAM
from harmonizer_assets.web.metadata import picture, quality_table


@asset(
    deps=UPSTREAM["detection_quality"],
    description="Precision, recall, calibration and cost against a truth file, where the settings "
    "name one; tracked over runs in quality_history.",
    group_name="report",
    kinds={"duckdb"},
    code_version=CODE_VERSIONS["detection_quality"],
    metadata={"dagster/column_schema": columns.QUALITY_HISTORY},
)
def detection_quality(context: AssetExecutionContext, home: HomeResource) -> MaterializeResult:
    """Compare the decisions with the truth file that the settings name."""
    pipeline = home.open()
    truth = pipeline.settings.evaluation.truth_file(pipeline.home.root)
    if truth is None:
        context.log.info("no truth file: set [evaluation] truth in harmonizer.toml")
        return MaterializeResult(metadata={"truth": "none: set [evaluation] truth"})
    evaluation = record_evaluation(pipeline.warehouse, truth, run_id=context.run_id)
    images = {}
    if can_draw():
        write_plots(evaluation, pipeline.home.reports / "quality")
        images = {name: picture(image) for name, image in draw(evaluation).items()}
    return MaterializeResult(
        metadata={
            "truth": evaluation.truth_file,
            **figures(evaluation.overall),
            "unmatched": evaluation.unmatched,
            "without_truth": evaluation.without_truth,
            "doubled": evaluation.doubled,
            "contradicting": evaluation.contradicting,
            "guarantee": pipeline.score.guarantee(),
            "by_label_type": quality_table(evaluation.per_label_type),
            "by_merchant_size": quality_table(evaluation.per_merchant_size),
            **images,
        }
    )
