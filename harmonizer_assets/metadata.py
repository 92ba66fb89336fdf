"""What the web UI shows of a materialization: numbers that plot, summaries, tables, pictures."""

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
    OpExecutionContext,
    TableColumn,
    TableRecord,
    TableSchema,
)

from harmonizer_assets.core.explanations import printable
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.llm.plan import Plan
from harmonizer_assets.core.models import NO_MODEL
from harmonizer_assets.core.quality import Quality
from harmonizer_assets.core.results import IndexReport, PartitionResult
from harmonizer_assets.ui import report_address

_LISTED: Final = 10
_NO_PRICE: Final = "unknown: no price for this model"

_WORD_KEY = TableColumn("word_key", "string", description="image / receipt / line / word")
_SCORE = TableColumn("outlier_score", "float", description="0..1, higher is more suspicious")
_SCORED_SCHEMA = TableSchema(
    [
        TableColumn("word", "string", description="The word as OCR read it"),
        _SCORE,
        TableColumn("suggested_label", "string", description="The label type that fits better"),
        _WORD_KEY,
    ]
)
_EXPLAINED_SCHEMA = TableSchema(
    [
        TableColumn("line", "string", description="Its row on the receipt, the word marked"),
        TableColumn("reasoning", "string", description="Why it is doubted"),
        _SCORE,
        _WORD_KEY,
    ]
)


def partition_metadata(result: PartitionResult) -> dict[str, Any]:
    """What the UI shows of one partition: counts, rates, cost, time, the worst outliers."""
    metrics = dict(result.metrics)
    metadata: dict[str, Any] = {
        "dagster/row_count": result.labels,
        "labels": result.labels,
        **result.counts,
        # These six are on every partition, so that each has its line in the plots.
        "outliers": result.counts.get("outlier", 0),
        "asked": metrics.pop("words_asked", 0),
        "cached": metrics.pop("cache_hits", 0),
        "cost_usd": _cost([metrics.pop("cost_usd", None if metrics.get("calls") else 0.0)]),
        "seconds": round(result.seconds, 4),
        **metrics,
        "fingerprint": result.fingerprint,
        "unchanged": not result.changed,
    }
    metadata.pop("outlier", None)
    if result.labels:
        for outcome, count in result.counts.items():
            metadata[f"{outcome}_rate"] = round(count / result.labels, 4)
    if result.worst:
        metadata["summary"] = summary(
            f"{result.labels:,} labels, {metadata['outliers']:,} outliers", result.worst
        )
        metadata["worst_outliers"] = worst_table(result.worst)
    return metadata


def index_metadata(report: IndexReport) -> dict[str, Any]:
    """What the UI shows of the vector index."""
    return {"dagster/row_count": report.total, **asdict(report)}


def summary(heading: str, worst: Iterable[Mapping[str, Any]]) -> MarkdownMetadataValue:
    """A heading and the worst outliers in their lines, as Markdown.

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
    """The text as a Markdown code span that shows it as it is, whatever it holds."""
    shown = printable(text).strip() or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence} {shown} {fence}"


def picture(image: bytes) -> MarkdownMetadataValue:
    """A PNG image inside the metadata, so that the UI asks nobody for it."""
    return MetadataValue.md(f"![](data:image/png;base64,{base64.b64encode(image).decode()})")


def run_metadata(
    context: OpExecutionContext | AssetExecutionContext, harmonizer: Harmonizer, page: Path
) -> dict[str, Any]:
    """What the UI shows of a run: its report, totals that plot, a summary, pictures.

    Args:
        context: of a step of the run, whose questions, costs and seconds so far are counted.
        harmonizer: of the home.
        page: the run's report.
    """
    run_id = context.run_id
    record = context.instance.get_run_record_by_id(run_id)
    began = None if record is None else record.start_time
    counts = harmonizer.counts()
    usage = harmonizer.usage(run_id)
    heading = (
        f"{counts.labels:,} labels of {counts.merchants:,} merchants: {counts.outliers:,} "
        f"outliers, {counts.unresolved:,} unresolved"
    )
    return {
        **_page_metadata(harmonizer.home, page),
        "labels": counts.labels,
        "outliers": counts.outliers,
        "unresolved": counts.unresolved,
        "outlier_rate": round(counts.outliers / counts.labels, 4) if counts.labels else 0.0,
        "asked": sum(row["words_asked"] for row in usage),
        "cached": sum(row["cache_hits"] for row in usage),
        "cost_usd": _cost([row["cost_usd"] for row in usage]),
        "seconds": 0.0 if began is None else round(time.time() - began, 1),
        "failed_partitions": len(harmonizer.failed_partitions(run_id)),
        "summary": summary(heading, harmonizer.worst_outliers(_LISTED)),
        **{name: picture(image) for name, image in harmonizer.pictures().items()},
    }


def _cost(costs: Sequence[float | None]) -> float | str:
    """Costs in USD together, as far as a price is known for each of them."""
    known = [cost for cost in costs if cost is not None]
    return round(sum(known, 0.0), 8) if len(known) == len(costs) else _NO_PRICE


def worst_table(rows: Iterable[Mapping[str, Any]]) -> MetadataValue:
    """A small table of suspicious labels, with the explanations of those that have one."""
    records = []
    schema = _SCORED_SCHEMA
    for row in rows:
        key = " / ".join(
            str(row[name]) for name in ("image_id", "receipt_id", "line_id", "word_id")
        )
        shown: dict[str, str | float] = {
            "outlier_score": float(row["outlier_score"]),
            "word_key": key,
        }
        if row.get("reasoning"):
            schema = _EXPLAINED_SCHEMA
            shown |= {"line": row["line"] or "", "reasoning": row["reasoning"]}
        else:
            shown |= {
                "word": str(row["word_text"]),
                "suggested_label": row["suggested_label"] or "",
            }
        records.append(
            TableRecord({column.name: shown.get(column.name, "") for column in schema.columns})
        )
    return MetadataValue.table(records, schema=schema)


def model_metadata(harmonizer: Harmonizer, version: str) -> dict[str, Any]:
    """What the UI shows of the model in force; without one, why there is none."""
    row = harmonizer.models.latest()
    if version == NO_MODEL or row is None:
        return {
            "model_version": NO_MODEL,
            "reason": "too few labels, or another scorer is set: similar words alone judge",
        }
    shown = {name: value for name, value in row.items() if value is not None}
    shown["model_version"] = shown.pop("version")
    shown["fitted_at"] = MetadataValue.timestamp(shown["fitted_at"])
    return {**shown, "guarantee": harmonizer.guarantee()}


def quality_table(groups: Mapping[str, Quality]) -> MetadataValue:
    """The main figures of each group of labels."""
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


def pattern_metadata(harmonizer: Harmonizer) -> dict[str, Any]:
    """What the UI shows of the patterns: how many, the most frequent, the findings."""
    tables = {
        "patterns": "SELECT pattern_id, sentence, support, against FROM label_patterns "
        "ORDER BY support DESC, pattern_id LIMIT 20",
        "findings": "SELECT sentence, n_labels, n_merchants, line FROM findings "
        "ORDER BY n_labels DESC, sentence LIMIT 20",
    }
    shown = {
        name: MetadataValue.table(
            [
                TableRecord({column: _known(value) for column, value in row.items()})
                for row in harmonizer.warehouse.query(sql).to_pylist()
            ]
        )
        for name, sql in tables.items()
        if harmonizer.warehouse.query(sql).num_rows
    }
    return {"dagster/row_count": harmonizer.counts().patterns, **shown}


def _page_metadata(home: Home, file: Path) -> dict[str, Any]:
    """Where the report lies, as a path and as an address that a browser opens."""
    return {
        "report": MetadataValue.path(str(file)),
        "open": MetadataValue.url(report_address(home, file)),
        "bytes": file.stat().st_size,
    }


def plan_metadata(plan: Plan) -> dict[str, Any]:
    """What the UI shows of a plan."""
    shown = {name: value for name, value in plan.to_dict().items() if name != "prompt"}
    if plan.usd is None:
        shown["usd"] = _NO_PRICE
    return {**shown, "prompt": MetadataValue.json(plan.prompt or [])}


def usage_metadata(harmonizer: Harmonizer, run_id: str) -> dict[str, Any] | None:
    """What a run has asked and spent, in all and per label type; None if it asked no model."""
    by_type = harmonizer.usage(run_id)
    if not by_type:
        return None
    totals = asdict(harmonizer.llm_totals)
    totals["cost_usd"] = _cost([totals["cost_usd"]])
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
    return {**totals, "by_label_type": table}
