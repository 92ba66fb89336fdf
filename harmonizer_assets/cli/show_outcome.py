"""Show what a run did, and the most suspicious labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from rich.table import Table
from rich.text import Text

from harmonizer_assets.cli.show import as_text, facts, printable, show

if TYPE_CHECKING:
    from harmonizer_assets.cli.runs import PipelineOutcome
    from harmonizer_assets.core.pipeline import Pipeline

_WORST_SHOWN: Final = 6


def show_outcome(pipeline: Pipeline, outcome: PipelineOutcome) -> None:
    """Show the home's totals and what the run did; remarks and checks go to standard error."""
    show(facts([*_totals(pipeline, outcome), *_usage(pipeline, outcome), *_work(outcome)]))
    if outcome.unchanged:
        click.echo("Nothing had changed: 0 embeddings computed, 0 rows changed.")
    for remark in outcome.remarks:
        click.echo(remark, err=True)
    for remark in outcome.merchant_remarks:
        click.echo(printable(remark), err=True)
    for name, severity in outcome.failed_checks:
        click.echo(f"Check {name} did not pass ({severity.lower()}).", err=True)


def show_arrived(outcome: PipelineOutcome) -> None:
    """Show what was in the batches that the run has ingested."""
    for source, arrived in outcome.arrived:
        show(Text(printable(source), style="bold"), facts(arrived), Text())


def show_worst(pipeline: Pipeline) -> None:
    """Show the labels with the highest outlier scores: what they are, their lines, and why."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in pipeline.tables.worst_outliers(_WORST_SHOWN):
        table.add_row()
        table.add_row(f"{row['outlier_score']:.3f}", _finding(row))
    show(Text("\nMost suspicious", style="bold"), table)


def _finding(row: Mapping[str, Any]) -> Text:
    merchant = as_text(row["merchant_name"] or "unknown merchant")
    head = Text.assemble(as_text(_change(row), style="bold"), "   ", merchant)
    return Text("\n").join([head, as_text(row["line"]), as_text(row["reasoning"])])


def _change(row: Mapping[str, Any]) -> str:
    suggested = row["suggested_label"]
    return f"{row['label']} → {suggested}" if suggested else str(row["label"])


def _totals(pipeline: Pipeline, outcome: PipelineOutcome) -> Iterator[tuple[str, str]]:
    counts = outcome.counts
    decided = pipeline.tables.decided_by()
    yield (
        "labels",
        f"{counts.labels:,} in {counts.partitions:,} partitions of {counts.merchants:,} merchants",
    )
    yield "valid", f"{counts.valid:,}"
    yield "outliers", f"{counts.outliers:,}"
    yield "unresolved", f"{counts.unresolved:,}"
    if counts.rejected:
        yield (
            "rejected",
            f"{counts.rejected:,} already; {counts.rejected_look_right:,} of them look "
            "right (harmonizer export rejected_labels)",
        )
    yield "decided by", ", ".join(f"{name} {count:,}" for name, count in decided.items())
    yield "triage", pipeline.score.guarantee()
    yield (
        "alarms",
        f"{counts.merchant_alarms:,} on merchants, {counts.receipt_alarms:,} on receipts",
    )
    yield "patterns", f"{counts.patterns:,} could become rules (harmonizer patterns)"
    yield (
        "missing",
        f"{counts.missing_labels:,} words without a label look as if they should carry one "
        "(harmonizer export missing_labels)",
    )
    yield (
        "quarantined",
        f"{outcome.quarantined:,} rows by this run, {counts.quarantined:,} in all",
    )


def _usage(pipeline: Pipeline, outcome: PipelineOutcome) -> Iterator[tuple[str, str]]:
    from harmonizer_assets.core.judge.llm import EMBEDDINGS

    asked = [row for row in outcome.llm if row["label_type"] != EMBEDDINGS.label_type]

    def total(name: str) -> int:
        return sum(row[name] for row in asked)

    for row in outcome.llm:
        if row not in asked:
            cost = (
                "at an unknown price" if row["cost_usd"] is None else f"{row['cost_usd']:.4f} USD"
            )
            yield "embeddings", f"{row['calls']:,} calls, {row['prompt_tokens']:,} tokens, {cost}"
    if asked:
        yield (
            "model",
            f"{total('words_asked'):,} words in {total('calls'):,} calls "
            f"({total('retries'):,} repeated), {total('cache_hits'):,} known already, "
            f"{total('prompt_tokens'):,} tokens in, {total('completion_tokens'):,} out"
            f"{_estimated(total('estimated_calls'))}, "
            f"{_cost(pipeline, asked)}",
        )


def _cost(pipeline: Pipeline, asked: Sequence[Mapping[str, Any]]) -> str:
    """Return the cost, with source and date of the price."""
    from harmonizer_assets.core.judge.llm import model_name, price_of

    costs = [row["cost_usd"] for row in asked]
    if None in costs:
        return "at unknown prices"
    price = price_of(pipeline.home, model_name())
    return f"{sum(costs):.4f} USD" + (f" ({price.note})" if price and any(costs) else "")


def _estimated(calls: int) -> str:
    """Say of how many calls the tokens are estimates."""
    return f" (estimated for {calls:,} calls: the endpoint did not say)" if calls else ""


def _work(outcome: PipelineOutcome) -> Iterator[tuple[str, str]]:
    computed = outcome.partitions_computed.items()
    yield "changed", f"{outcome.words_changed:,} words, {outcome.labels_changed:,} labels"
    if outcome.merchant_moves:
        yield "merchants", f"{outcome.merchant_moves:,} names moved (harmonizer merchants)"
    yield "embedded", f"{outcome.embedded:,} documents"
    yield "computed", ", ".join(f"{asset} {count:,} partitions" for asset, count in computed)
