"""Assets of arriving data: words, labels and the rows that were quarantined."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetSpec,
    MaterializeResult,
    ResourceParam,
    multi_asset,
)

from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.records.reports import BatchReport
from harmonizer_assets.defs.erasing import erase_from_dagster
from harmonizer_assets.defs.partitions import add_merchants, remove_merchants
from harmonizer_assets.defs.progress import LogProgress
from harmonizer_assets.defs.resources import HomeResource
from harmonizer_assets.web import columns
from harmonizer_assets.web.lineage import CODE_VERSIONS
from harmonizer_assets.web.metadata import ingest_metadata


def _spec(name: str, description: str, metadata: Mapping[str, Any]) -> AssetSpec:
    return AssetSpec(
        name,
        description=description,
        group_name="ingest",
        kinds={"duckdb"},
        code_version=CODE_VERSIONS[name],
        metadata=metadata,
    )


@multi_asset(
    specs=[
        _spec(
            "words",
            "Words of receipts as OCR read them, with their boxes.",
            {"dagster/column_schema": columns.WORDS},
        ),
        _spec(
            "labels",
            "Labels on words, with status and merchant; later batches win.",
            {"dagster/column_schema": columns.LABELS},
        ),
        _spec(
            "quarantine",
            "Rows and files that could not be used, each with file, row and reason.",
            {"dagster/column_schema": columns.QUARANTINE},
        ),
    ],
    name="ingest_batches",
)
def ingest_batches(
    context: AssetExecutionContext,
    home: HomeResource,
    on_progress: ResourceParam[ProgressFn],
) -> Iterator[MaterializeResult]:
    """Ingest the batches of the inbox; the merchants that hold labels then are the partitions."""
    pipeline = home.open()
    report = pipeline.ingest(LogProgress(context.log, on_progress))
    for problem in report.unread_sources:
        context.log.error(problem)
    for batch in report.batches:
        context.log.info(f"{batch.source}: {_told(batch)}")
        for remark in batch.remarks():
            context.log.warning(f"{batch.source}: {remark}")
    for source, error in report.failed:
        context.log.error(f"{source} could not be read and was moved to inbox/.failed: {error}")
    for remark in report.merchants.remarks():
        context.log.info(f"merchants: {remark}")
    pipeline.deletion.finish([partial(erase_from_dagster, pipeline.home, context.instance)])
    partitions = pipeline.partitions.held()
    new = add_merchants(context.instance, {key.merchant_key for key in partitions})
    tables = pipeline.tables
    remove_merchants(context.instance, tables.left_merchants())
    shown = ingest_metadata(
        report, tables.labels(), tables.quarantined(), len(partitions), len(new)
    )
    for table, metadata in shown.items():
        yield MaterializeResult(table, metadata=metadata)


def _told(batch: BatchReport) -> str:
    if batch.unchanged:
        return "ingested before, nothing to do"
    return (
        f"{batch.labels_inserted} new and {batch.labels_updated} changed labels, "
        f"{batch.words_inserted} new and {batch.words_updated} changed words, "
        f"{batch.quarantined} rows quarantined"
    )
