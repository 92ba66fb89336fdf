"""What a home keeps of its past as an asset: materializing it prunes the home."""

from dagster import AssetExecutionContext, MaterializeResult, asset

from harmonizer_assets.defs.pruning import prune
from harmonizer_assets.defs.resources import HomeResource
from harmonizer_assets.web.lineage import CODE_VERSIONS
from harmonizer_assets.web.metadata import freed_metadata


@asset(
    description="Runs, reports and batches that the home keeps; a materialization removes what the "
    "retention settings let go and says how much that was.",
    group_name="maintenance",
    kinds={"dagster"},
    code_version=CODE_VERSIONS["home_retention"],
)
def home_retention(context: AssetExecutionContext, home: HomeResource) -> MaterializeResult:
    """Prune the home and its instance."""
    pipeline = home.open()
    freed = prune(pipeline.home, context.instance, pipeline.settings)
    return MaterializeResult(metadata=freed_metadata(freed))
