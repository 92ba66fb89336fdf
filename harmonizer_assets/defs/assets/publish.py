"""Assets that are made of all outliers together: alarms, patterns, the report.

The step that computes partitions publishes all of these when it has finished, so that they are
there after every run; materialized by themselves, they are made from the tables as they are.
"""

from collections.abc import Iterator

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetSpec,
    MaterializeResult,
    TableSchema,
    multi_asset,
)

from harmonizer_assets.defs.resources import HomeResource
from harmonizer_assets.web import columns
from harmonizer_assets.web.lineage import CODE_VERSIONS, UPSTREAM
from harmonizer_assets.web.metadata import published_metadata


def _spec(
    name: str, description: str, group: str, kind: str, schema: TableSchema | None = None
) -> AssetSpec:
    return AssetSpec(
        name,
        deps=UPSTREAM[name],
        description=description,
        group_name=group,
        kinds={kind},
        code_version=CODE_VERSIONS[name],
        metadata={} if schema is None else {"dagster/column_schema": schema},
    )


@multi_asset(
    specs=[
        _spec(
            "merchant_alarms",
            "Receipts whose labels look like another merchant's: is the name wrong?",
            "harmonize",
            "duckdb",
            columns.MERCHANT_ALARMS,
        ),
        _spec(
            "receipt_alarms",
            "Receipts on which many label types are wrong together: shifted columns.",
            "harmonize",
            "duckdb",
            columns.RECEIPT_ALARMS,
        ),
        _spec(
            "label_patterns",
            "Wrong labels that recur, to be accepted as rules with `harmonizer rules accept`.",
            "harmonize",
            "duckdb",
            columns.LABEL_PATTERNS,
        ),
        _spec(
            "missing_labels",
            "Words that carry no label and look as if they should, with the proposed type.",
            "harmonize",
            "duckdb",
            columns.MISSING_LABELS,
        ),
        _spec(
            "validation_queue",
            "Labels whose validation by a person would teach most; `harmonizer next` lists them.",
            "harmonize",
            "duckdb",
            columns.VALIDATION_QUEUE,
        ),
        _spec(
            "harmonization_report",
            "One self-contained HTML page of what was found.",
            "report",
            "html",
        ),
    ],
    name="publish",
    can_subset=True,
)
def publish(context: AssetExecutionContext, home: HomeResource) -> Iterator[MaterializeResult]:
    """Publish what was found from the tables as they are."""
    pipeline = home.open()
    published = pipeline.publish(context.run_id)
    for asset, metadata in published_metadata(context, pipeline, published).items():
        if AssetKey(asset) in context.selected_asset_keys:
            yield MaterializeResult(asset, metadata=metadata)
