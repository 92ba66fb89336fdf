"""Assets of arriving data: words, labels and the rows that had to be set aside."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetSpec,
    DagsterInstance,
    DagsterLogManager,
    FreshnessPolicy,
    MaterializeResult,
    multi_asset,
)

from harmonizer_assets import columns
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.lineage import CODE_VERSIONS
from harmonizer_assets.partitions import add_merchants
from harmonizer_assets.progress import LogProgress
from harmonizer_assets.resources import HarmonizerResource

OWNERS = ["team:label-quality"]
GROUP = "ingest"
STALE_AFTER_DAYS = FreshnessPolicy.time_window(
    fail_window=dt.timedelta(days=8), warn_window=dt.timedelta(days=2)
)
"""Days without any materialization: nothing arrives any more, or nothing computes."""


@multi_asset(
    specs=[
        AssetSpec(
            "words",
            description="Words of receipts as OCR read them, with their boxes.",
            group_name=GROUP,
            owners=OWNERS,
            kinds={"duckdb"},
            code_version=CODE_VERSIONS["words"],
            metadata={"dagster/column_schema": columns.WORDS},
        ),
        AssetSpec(
            "labels",
            description="Labels on words, with status and merchant; later batches win.",
            group_name=GROUP,
            owners=OWNERS,
            kinds={"duckdb"},
            freshness_policy=STALE_AFTER_DAYS,
            code_version=CODE_VERSIONS["labels"],
            metadata={"dagster/column_schema": columns.LABELS},
        ),
        AssetSpec(
            "quarantine",
            description="Rows and files that could not be used, each with file, row and reason.",
            group_name=GROUP,
            owners=OWNERS,
            kinds={"duckdb"},
            code_version=CODE_VERSIONS["quarantine"],
            metadata={"dagster/column_schema": columns.QUARANTINE},
        ),
    ],
    name="ingest_batches",
)
def ingest_batches(
    context: AssetExecutionContext, harmonizer: HarmonizerResource
) -> Iterator[MaterializeResult]:
    """Ingest the batches of the inbox and add the merchants that they bring as partitions."""
    for table, metadata in ingest_inbox(context.instance, context.log, harmonizer.open()).items():
        yield MaterializeResult(table, metadata=metadata)


def ingest_inbox(
    instance: DagsterInstance, log: DagsterLogManager, harmonizer: Harmonizer
) -> dict[str, dict[str, Any]]:
    """Ingest the inbox and add new merchants; what the UI shows of each table."""
    pulled, unread = harmonizer.pull_sources()
    for problem in unread:
        log.error(str(problem))
    if pulled:
        log.info(f"{pulled} batches copied into the inbox from buckets and tables")
    report = harmonizer.ingest_pending(LogProgress(log))
    partitions = harmonizer.partitions()
    new = add_merchants(instance, {key.merchant_key for key in partitions})
    for batch in report.batches:
        log.info(
            f"{batch.source}: "
            + (
                "ingested before, nothing to do"
                if batch.unchanged
                else f"{batch.labels_inserted} new and {batch.labels_updated} changed labels, "
                f"{batch.words_inserted} new and {batch.words_updated} changed words, "
                f"{batch.quarantined} rows quarantined"
            )
        )
    for source, error in report.failed:
        log.error(f"{source} could not be read and was set aside: {error}")
    counts = harmonizer.counts()
    batches = {"batches": len(report.batches), "batches_set_aside": len(report.failed)}
    shown: dict[str, dict[str, Any]] = {
        table: {
            **batches,
            "read": report.total(f"{table}_read"),
            "inserted": report.total(f"{table}_inserted"),
            "updated": report.total(f"{table}_updated"),
        }
        for table in ("words", "labels")
    }
    shown["labels"].update(
        {
            "dagster/row_count": counts.labels,
            "partitions_with_labels": len(partitions),
            "new_merchants": len(new),
        }
    )
    shown["quarantine"] = {
        **batches,
        "quarantined": report.total("quarantined"),
        "set_aside": [{"source": source, "error": error} for source, error in report.failed],
        "unread_sources": [str(problem) for problem in unread],
        "dagster/row_count": counts.quarantined,
    }
    return shown
