"""The harmonization report as an asset."""

from dagster import AssetExecutionContext, MaterializeResult, asset

from harmonizer_assets.assets.ingest import OWNERS, STALE_AFTER_DAYS
from harmonizer_assets.lineage import CODE_VERSIONS, UPSTREAM
from harmonizer_assets.metadata import run_metadata
from harmonizer_assets.resources import HarmonizerResource


@asset(
    deps=UPSTREAM["harmonization_report"],
    description="One HTML page that says what was found, readable without anything else.",
    group_name="report",
    owners=OWNERS,
    kinds={"html"},
    code_version=CODE_VERSIONS["harmonization_report"],
    freshness_policy=STALE_AFTER_DAYS,
)
def harmonization_report(
    context: AssetExecutionContext, harmonizer: HarmonizerResource
) -> MaterializeResult:
    """Write the page of this run."""
    opened = harmonizer.open()
    opened.record_run(context.run_id)
    page = opened.write_report(context.run_id)
    return MaterializeResult(metadata=run_metadata(context, opened, page))
