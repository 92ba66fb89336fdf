"""The harmonization report as an asset."""

from dagster import AssetExecutionContext, MaterializeResult, asset

from harmonizer_assets.assets.harmonize import label_patterns, outliers, receipt_alarms
from harmonizer_assets.assets.ingest import OWNERS
from harmonizer_assets.materializations import report_metadata
from harmonizer_assets.resources import HarmonizerResource


@asset(
    deps=[outliers, label_patterns, receipt_alarms],
    description="One HTML page that says what was found, readable without anything else.",
    group_name="report",
    owners=OWNERS,
    kinds={"html"},
    code_version="1",
)
def harmonization_report(
    context: AssetExecutionContext, harmonizer: HarmonizerResource
) -> MaterializeResult:
    """Write the page of this run."""
    return MaterializeResult(
        metadata=report_metadata(harmonizer.open().write_report(context.run_id))
    )
