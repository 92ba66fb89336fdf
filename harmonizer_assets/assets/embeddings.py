"""The vector index as an asset."""

from dataclasses import asdict

from dagster import AssetExecutionContext, MaterializeResult, asset

from harmonizer_assets.assets.ingest import OWNERS
from harmonizer_assets.core.documents import DOCUMENT_VERSION
from harmonizer_assets.progress import LogProgress
from harmonizer_assets.resources import HarmonizerResource


@asset(
    deps=["words", "labels"],
    description="Vectors of labelled words in their context, in Chroma; each document once.",
    group_name="index",
    owners=OWNERS,
    kinds={"chroma"},
    code_version=DOCUMENT_VERSION,
)
def word_embeddings(
    context: AssetExecutionContext, harmonizer: HarmonizerResource
) -> MaterializeResult:
    """Bring the vector index up to date with words and labels."""
    report = harmonizer.open().index_documents(LogProgress(context.log))
    context.log.info(
        f"{report.embedded} documents embedded for {report.words} labelled words, "
        f"{report.total} in the index"
        + (", which was rebuilt for this embedder" if report.rebuilt else "")
    )
    return MaterializeResult(metadata={"dagster/row_count": report.total, **asdict(report)})
