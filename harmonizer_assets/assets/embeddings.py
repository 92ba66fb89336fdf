"""The vector index as an asset."""

from dagster import AssetExecutionContext, DataVersion, MaterializeResult, asset

from harmonizer_assets.assets.ingest import OWNERS
from harmonizer_assets.lineage import CODE_VERSIONS, UPSTREAM
from harmonizer_assets.metadata import index_metadata
from harmonizer_assets.progress import LogProgress
from harmonizer_assets.resources import HarmonizerResource


@asset(
    deps=UPSTREAM["word_embeddings"],
    description="Vectors of labelled words in their context, in Chroma; each document once.",
    group_name="index",
    owners=OWNERS,
    kinds={"chroma"},
    code_version=CODE_VERSIONS["word_embeddings"],
)
def word_embeddings(
    context: AssetExecutionContext, harmonizer: HarmonizerResource
) -> MaterializeResult:
    """Bring the vector index up to date with words and labels."""
    opened = harmonizer.open()
    report = opened.index_documents(LogProgress(context.log))
    context.log.info(
        f"{report.embedded} documents embedded for {report.words} labelled words, "
        f"{report.total} in the index"
        + (", which was rebuilt for this embedder" if report.rebuilt else "")
    )
    return MaterializeResult(
        metadata=index_metadata(report), data_version=DataVersion(opened.index_version)
    )
