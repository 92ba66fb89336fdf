"""Metadata of materializations in the web UI: numbers, summaries, tables, pictures."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from dagster import (
    AssetExecutionContext,
    MarkdownMetadataValue,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
)

from harmonizer_assets.core.decide.explain import printable
from harmonizer_assets.core.judge.llm import Plan
from harmonizer_assets.core.measure.metrics import Quality
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.correction import CorrectionReport
from harmonizer_assets.core.records.reports import (
    IndexReport,
    IngestReport,
    PartitionResult,
    Published,
    RunTotals,
)
from harmonizer_assets.core.report.pictures import pictures
from harmonizer_assets.core.score.registry import NO_MODEL
from harmonizer_assets.core.store.prune import Freed
from harmonizer_assets.web.links import report_link

_LISTED: Final = 10
_NO_PRICE: Final = "unknown: no price for this model"


def partition_metadata(result: PartitionResult, *, asked: bool = True) -> dict[str, Any]:
    """Return the metadata of one partition: counts, rates, cost, time, the worst outliers.

    There is an event for each of thousands of partitions, and it is stored twice: what the tables
    or the event's tags hold does not belong here.

    Args:
        result: of the partition.
        asked: whether the asset is one that may ask a model.
    """
    metrics = dict(result.metrics)
    # Numbers that plot are on every partition, so that each has its line.
    metadata: dict[str, Any] = {
        "dagster/row_count": result.labels,
        "labels": result.labels,
        **result.counts,
        "outliers": result.counts.get("outlier", 0),
        "seconds": round(result.seconds, 4),
    }
    if asked:
        metadata |= {
            "asked": metrics.pop("words_asked", 0),
            "cached": metrics.pop("cache_hits", 0),
            "cost_usd": _cost([metrics.pop("cost_usd", None if metrics.get("calls") else 0.0)]),
        }
    metadata |= metrics
    if not result.changed:
        metadata["unchanged"] = True
    metadata.pop("outlier", None)
    if result.labels:
        for outcome, count in result.counts.items():
            metadata[f"{outcome}_rate"] = round(count / result.labels, 4)
    if result.worst:
        metadata["summary"] = summary(
            f"{result.labels:,} labels, {metadata['outliers']:,} outliers", result.worst
        )
    return metadata


_ARRIVED: Final = 20
"""Batches whose summaries are kept in the metadata."""
_MERCHANT_REMARKS: Final = 200
"""Names that have got another merchant, shown in one materialization; the table has them all."""


def ingest_metadata(
    report: IngestReport, labels: int, quarantined: int, partitions: int, new_merchants: int
) -> dict[str, dict[str, Any]]:
    """Return the metadata of the tables that batches are ingested into, by asset.

    Args:
        report: of ingesting the inbox.
        labels: how many the home holds now.
        quarantined: how many rows and files it holds that could not be used.
        partitions: how many partitions hold labels.
        new_merchants: how many merchants came with the batches.
    """
    batches = {"batches": len(report.batches), "batches_set_aside": len(report.failed)}
    shown: dict[str, dict[str, Any]] = {
        table: {
            **batches,
            "read": report.total(f"{table}_read"),
            "inserted": report.total(f"{table}_inserted"),
            "updated": report.total(f"{table}_updated"),
            "outdated": report.total(f"{table}_outdated"),
        }
        for table in ("words", "labels")
    }
    shown["labels"] |= {
        "repeated": report.total("labels_repeated"),
        "dagster/row_count": labels,
        "partitions_with_labels": partitions,
        "new_merchants": new_merchants,
        "merchant_moves": len(report.merchants.moves),
        "merchant_remarks": report.merchants.remarks()[:_MERCHANT_REMARKS],
    }
    shown["quarantine"] = {
        **batches,
        "quarantined": report.total("quarantined"),
        "remarks": [
            f"{batch.source}: {remark}" for batch in report.batches for remark in batch.remarks()
        ],
        "arrived": [
            {"source": batch.source, "facts": [[*fact] for fact in batch.summary.facts()]}
            for batch in report.batches
            if batch.summary is not None
        ][:_ARRIVED],
        "set_aside": [{"source": source, "error": error} for source, error in report.failed],
        "unread_sources": list(report.unread_sources),
        "dagster/row_count": quarantined,
    }
    return shown


def index_metadata(report: IndexReport) -> dict[str, Any]:
    """Return the metadata of the vector index."""
    return {"dagster/row_count": report.total, **asdict(report)}


def summary(heading: str, worst: Iterable[Mapping[str, Any]]) -> MarkdownMetadataValue:
    """Render a heading and the worst outliers in their lines as Markdown.

    Text of receipts could hold pictures and links of other hosts, so it stands in code spans, in
    which Markdown means nothing.
    """
    lines = [f"**{heading}**", ""]
    for row in worst:
        where = row.get("line") or row["word_text"] or ""
        why = row.get("reasoning") or f"looks like {row['suggested_label'] or 'another type'}"
        lines.append(f"- **{code_span(where)}** {code_span(why)}")
    return MetadataValue.md("\n".join(lines))


def code_span(text: str) -> str:
    """Render a text as a Markdown code span, which shows it literally."""
    shown = printable(text).strip() or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence} {shown} {fence}"


def picture(image: bytes) -> MarkdownMetadataValue:
    """Embed a PNG image in the metadata, so that the UI loads nothing."""
    return MetadataValue.md(f"![](data:image/png;base64,{base64.b64encode(image).decode()})")


def run_metadata(context: AssetExecutionContext, pipeline: Pipeline, page: Path) -> dict[str, Any]:
    """Return the metadata of a run: its report, totals that plot, a summary, pictures.

    Args:
        context: of a step of the run, whose questions, costs and seconds so far are counted.
        pipeline: of the home.
        page: the run's report.
    """
    run_id = context.run_id
    record = context.instance.get_run_record_by_id(run_id)
    began = None if record is None else record.start_time
    tables = pipeline.tables
    counts = tables.counts()
    usage = tables.usage(run_id)
    return {
        **_page_metadata(page),
        "labels": counts.labels,
        "outliers": counts.outliers,
        "unresolved": counts.unresolved,
        "rejected": counts.rejected,
        "rejected_look_right": counts.rejected_look_right,
        "outlier_rate": round(counts.outliers / counts.labels, 4) if counts.labels else 0.0,
        "asked": sum(row["words_asked"] for row in usage),
        "cached": sum(row["cache_hits"] for row in usage),
        "cost_usd": _cost([row["cost_usd"] for row in usage]),
        "seconds": 0.0 if began is None else round(time.time() - began, 1),
        "failed_partitions": len(tables.failures(run_id)),
        "summary": summary(counts.in_a_sentence(), tables.worst_outliers(_LISTED)),
        **{name: picture(image) for name, image in pictures(pipeline.warehouse).items()},
    }


def published_metadata(
    context: AssetExecutionContext, pipeline: Pipeline, published: Published
) -> dict[str, dict[str, Any]]:
    """Return the metadata of the assets that are published at the end of a run, by asset."""
    return {
        "merchant_alarms": {"dagster/row_count": published.merchant_alarms},
        "receipt_alarms": {"dagster/row_count": published.receipt_alarms},
        "label_patterns": pattern_metadata(pipeline),
        "missing_labels": missing_metadata(pipeline, published.missing_labels),
        "validation_queue": {"dagster/row_count": published.validation_queue},
        "harmonization_report": {
            **run_metadata(context, pipeline, published.report),
            **({} if published.version is None else {"published_version": published.version}),
        },
    }


def _cost(costs: Sequence[float | None]) -> float | str:
    """Return the sum of costs in USD, or a text if one of them is not known."""
    known = [cost for cost in costs if cost is not None]
    return round(sum(known, 0.0), 8) if len(known) == len(costs) else _NO_PRICE


def model_metadata(pipeline: Pipeline, version: str) -> dict[str, Any]:
    """Return the metadata of the model in force, or why there is none."""
    row = pipeline.registry.latest()
    if version == NO_MODEL or row is None:
        return {"model_version": NO_MODEL, "reason": pipeline.score.guarantee()}
    shown = {name: value for name, value in row.items() if value is not None}
    shown["model_version"] = shown.pop("version")
    shown["fitted_at"] = MetadataValue.timestamp(shown["fitted_at"])
    return {**shown, "guarantee": pipeline.score.guarantee()}


def correction_metadata(
    report: CorrectionReport, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Describe the corrections of one partition.

    Args:
        report: of the whole apply.
        rows: those of the partition.
    """
    done = "corrected" if report.operation_id else "would be corrected"
    lines = [
        f"- {code_span(row['word_text'] or '')}: {row['label']}"
        f"{' to ' + row['to_label'] if row['to_label'] else ', ' + row['action']}"
        for row in rows[:_LISTED]
    ]
    return {
        "corrections": len(rows),
        "refused_in_all": len(report.refused),
        "operation": report.operation_id or "dry run",
        "labels": MetadataValue.md("\n".join([f"{len(rows):,} labels {done}", "", *lines])),
    }


def quality_table(groups: Mapping[str, Quality]) -> MetadataValue:
    """Make a table of the main figures of each group of labels."""
    names = ("labels", "errors", "precision", "recall", "f1", "auprc", "suggestion_accuracy")
    counts = ("labels", "errors")
    schema = TableSchema(
        [
            TableColumn("group", "string"),
            *(TableColumn(name, "int" if name in counts else "float") for name in names),
        ]
    )
    records = [
        TableRecord({"group": group, **{name: _known(getattr(quality, name)) for name in names}})
        for group, quality in groups.items()
    ]
    return MetadataValue.table(records, schema=schema)


def _known(value: float | int | str | None) -> float | int | str:
    if value is None:
        return ""
    return round(value, 4) if isinstance(value, float) else value


_SHOWN_PATTERNS: Final = 20
_PATTERN_COLUMNS: Final = ("pattern_id", "sentence", "support", "against")
_FINDING_COLUMNS: Final = ("sentence", "n_labels", "n_merchants", "line")


_MISSING_COLUMNS: Final = ("label_type", "line", "score", "reasoning")


def missing_metadata(pipeline: Pipeline, count: int) -> dict[str, Any]:
    """Return the metadata of missing labels: how many, and the surest."""
    rows = pipeline.tables.missing_labels(_SHOWN_PATTERNS)
    records = [TableRecord({name: _known(row[name]) for name in _MISSING_COLUMNS}) for row in rows]
    shown = {"surest": MetadataValue.table(records)} if records else {}
    return {"dagster/row_count": count, **shown}


def pattern_metadata(pipeline: Pipeline) -> dict[str, Any]:
    """Return the metadata of the patterns: how many, the most frequent, the findings."""
    patterns, findings = pipeline.tables.patterns(), pipeline.tables.findings()
    shown = {
        name: MetadataValue.table(
            [
                TableRecord({column: _known(row[column]) for column in columns})
                for row in rows[:_SHOWN_PATTERNS]
            ]
        )
        for name, rows, columns in (
            ("patterns", patterns, _PATTERN_COLUMNS),
            ("findings", findings, _FINDING_COLUMNS),
        )
        if rows
    }
    return {"dagster/row_count": len(patterns), **shown}


def _page_metadata(file: Path) -> dict[str, Any]:
    """Return the path of a report, and its address for a browser."""
    return {
        "report": MetadataValue.path(str(file)),
        "open": MetadataValue.url(report_link(file)),
        "bytes": file.stat().st_size,
    }


def freed_metadata(freed: Iterable[Freed]) -> dict[str, Any]:
    """Return the metadata of a pruning: how many things of each kind went, and megabytes."""
    counts, megabytes = {}, 0.0
    for one in freed:
        counts[f"{one.what.replace(' ', '_')}_removed"] = one.count
        megabytes += one.bytes / 1e6
    return {**counts, "megabytes_freed": round(megabytes, 1)}


def plan_metadata(plan: Plan) -> dict[str, Any]:
    """Return the metadata of a plan."""
    shown = {name: value for name, value in plan.to_dict().items() if name != "prompt"}
    if plan.usd is None:
        shown["usd"] = _NO_PRICE
    return {
        **shown,
        "prompt": MetadataValue.json(plan.prompt or []),
        "plan": MetadataValue.json(plan.to_dict()),
    }


def usage_metadata(by_type: Sequence[Mapping[str, Any]], totals: RunTotals) -> dict[str, Any]:
    """Return the metadata of a run's usage, in all and per label type.

    Args:
        by_type: rows of `Tables.usage`, at least one.
        totals: of the run.
    """
    shown = asdict(totals)
    shown["cost_usd"] = _cost([totals.cost_usd])
    columns = [TableColumn("label_type", "string")] + [
        TableColumn(name, "float" if name == "cost_usd" else "int")
        for name in by_type[0]
        if name != "label_type"
    ]
    records = [
        TableRecord({name: "" if value is None else value for name, value in row.items()})
        for row in by_type
    ]
    table = MetadataValue.table(records, schema=TableSchema(columns))
    return {**shown, "by_label_type": table}
