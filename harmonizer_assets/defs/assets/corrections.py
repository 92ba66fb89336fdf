"""The asset `corrections`: what people, or open rules of the review policy, have decided."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetMaterialization,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    MaterializeResult,
    multi_asset,
)

from harmonizer_assets.core.records.correction import CorrectionReport
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.defs.jobs import CORRECTIONS_STEP
from harmonizer_assets.defs.partitions import label_type_by_merchant, requested, to_dagster
from harmonizer_assets.defs.resources import CorrectionsConfig, HomeResource
from harmonizer_assets.web import columns
from harmonizer_assets.web.lineage import CODE_VERSIONS, UPSTREAM
from harmonizer_assets.web.metadata import correction_metadata


def corrections_asset(label_types: Sequence[str]) -> AssetsDefinition:
    """Define the corrections of a home with these label types."""

    @multi_asset(
        name=CORRECTIONS_STEP,
        specs=[
            AssetSpec(
                "corrections",
                deps=UPSTREAM["corrections"],
                # Each partition is reported by itself, as a launch without partitions needs it.
                skippable=True,
                partitions_def=label_type_by_merchant(label_types),
                description="Labels that are corrected as people, or open rules of the review "
                "policy, have decided; without `commit` it only says which would be.",
                group_name="review",
                kinds={"duckdb"},
                code_version=CODE_VERSIONS["corrections"],
                metadata={"dagster/column_schema": columns.LABEL_CORRECTIONS},
            )
        ],
        backfill_policy=BackfillPolicy.single_run(),
    )
    def correct(
        context: AssetExecutionContext, config: CorrectionsConfig, home: HomeResource
    ) -> Iterator[MaterializeResult]:
        """Correct labels of the run's partitions, or of all."""
        partitions = requested(context)
        report = home.open().apply(
            config.actor, commit=config.commit, note=config.note, partitions=partitions
        )
        for one in report.refused:
            context.log.warning(f"{one.label} on {one.image_id}: refused, {one.reason}")
        _report(context, report, partitions)
        yield from ()

    return correct


def _report(
    context: AssetExecutionContext,
    report: CorrectionReport,
    partitions: Sequence[PartitionKey] | None,
) -> None:
    made: dict[PartitionKey, list[Mapping[str, Any]]] = defaultdict(list)
    for row in report.corrections:
        made[PartitionKey(row["label"], row["merchant_key"])].append(row)
    if partitions is not None and len(partitions) == 1:
        # Who asks for one partition is told about it, also where it needs no correction.
        made.setdefault(partitions[0], [])
    for key, rows in sorted(made.items()):
        context.log_event(
            AssetMaterialization(
                "corrections",
                partition=str(to_dagster(key)),
                metadata=correction_metadata(report, rows),
            )
        )
