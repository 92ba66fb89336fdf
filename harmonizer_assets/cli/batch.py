"""Ask through the OpenAI Batch API: `harmonizer batch ...`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from harmonizer_assets.cli.opening import open_home, require_tables
from harmonizer_assets.cli.options import (
    JudgeCommand,
    home_option,
    label_types_option,
    merchants_option,
    verbose_option,
)
from harmonizer_assets.cli.run import execute, log_level
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.records.options import RunOptions

if TYPE_CHECKING:
    from harmonizer_assets.core.base.settings import JudgeOverrides
    from harmonizer_assets.core.judge.llm import Collected


_SHOWN: Final = 5


@click.group()
def batch() -> None:
    """Ask through the OpenAI Batch API: within a day, at half the price."""


@batch.command("submit", cls=JudgeCommand)
@label_types_option
@merchants_option
@verbose_option
@home_option
def batch_submit(
    *,
    home: Home,
    label_types: tuple[str, ...],
    merchants: tuple[str, ...],
    verbose: bool,
    overrides: JudgeOverrides,
) -> None:
    """Ingest, score, and submit the questions that are open."""
    from harmonizer_assets.cli.terminal import terminal_progress

    open_home(home, "openai", overrides=overrides)
    warnings.simplefilter("ignore")
    from harmonizer_assets.cli.runs import run_submit

    with terminal_progress() as on_progress:
        options = RunOptions(
            label_types=label_types or None,
            merchants=merchants or None,
            on_progress=on_progress,
        )
        ids = run_submit(home, options, overrides, log_level=log_level(verbose))
    if not ids:
        click.echo("There is nothing to ask.")
    for batch_id in ids:
        click.echo(f"{batch_id} submitted; `harmonizer batch collect` stores what it answers")


@batch.command("status")
@home_option
def batch_status(*, home: Home) -> None:
    """List all batches as they stand now."""
    from harmonizer_assets.cli.show import Column, listing, show

    require_tables(home)
    pipeline = open_home(home, "offline")
    if pipeline.tables.has_open_batch_jobs():
        pipeline.judge.check("openai")
        pipeline.judge.batch_jobs().refresh()
    rows = pipeline.tables.batch_jobs()
    if not rows:
        click.echo("There are no batches.")
        return
    columns = (
        Column("batch"),
        Column("status", wraps=False),
        Column("words", is_number=True),
        Column("submitted, UTC", wraps=False),
        Column("error"),
    )
    cells = [
        (
            row["batch_id"] or "-",
            row["status"],
            f"{row['words']:,}",
            f"{row['submitted_at']:%Y-%m-%d %H:%M}",
            row["error"],
        )
        for row in rows
    ]
    show(listing(columns, cells))


@batch.command("collect")
@verbose_option
@home_option
def batch_collect(*, home: Home, verbose: bool) -> None:
    """Store the answers of the batches that have ended, and bring up to date what waited.

    Nothing is asked, and only the partitions that the answers are about are computed.
    """
    from harmonizer_assets.cli.show_outcome import show_outcome
    from harmonizer_assets.core.base.settings import JudgeOverrides

    require_tables(home)
    pipeline = open_home(home, "openai")
    collected = pipeline.judge.batch_jobs().collect()
    click.echo(
        f"{collected.batches:,} batches, {collected.answers:,} answers, "
        f"{collected.unanswered:,} questions without one (asked by the next run or batch)"
    )
    for line in _told(collected):
        click.echo(line)
    if pipeline.judge.collected():
        # What has no answer is asked only on a further command.
        options, overrides = RunOptions(collect=True), JudgeOverrides(budget_tokens=0)
        show_outcome(pipeline, execute(home, options, overrides, verbose=verbose))


def _told(collected: Collected) -> Iterator[str]:
    """Say why questions have no answer, and which answers are of no use now."""
    for reason, count in collected.reasons.most_common(_SHOWN):
        yield f"  {count:,} without an answer: {reason}"
    if collected.unreadable:
        yield f"  {collected.unreadable:,} lines of results cannot be read"
    if collected.changed:
        words = ", ".join(repr(word) for word in collected.changed[:_SHOWN])
        more = " ..." if len(collected.changed) > _SHOWN else ""
        yield (
            f"  {len(collected.changed):,} questions have changed since they were submitted, and "
            f"are asked anew: {words}{more}"
        )


@batch.command("cancel")
@click.argument("batch_id")
@home_option
def batch_cancel(*, home: Home, batch_id: str) -> None:
    """Cancel the batch BATCH_ID; what it has answered by then can be collected."""
    require_tables(home)
    state = open_home(home, "openai").judge.batch_jobs().cancel(batch_id)
    click.echo(f"{batch_id}: {state.status}")
