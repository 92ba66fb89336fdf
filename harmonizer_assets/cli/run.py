"""Run the pipeline: `harmonizer run` and `harmonizer retry-dead-letters`."""

from __future__ import annotations

import datetime as dt
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from harmonizer_assets.cli.opening import open_home, require_tables, submit_files
from harmonizer_assets.cli.options import (
    FILE,
    JudgeCommand,
    RunCommand,
    home_option,
    label_types_option,
    labels_option,
    merchants_option,
    verbose_option,
    words_option,
)
from harmonizer_assets.core.base.errors import (
    BudgetReached,
    InputError,
    PartitionsFailedError,
    SourceError,
)
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.records.options import RunOptions

if TYPE_CHECKING:
    from harmonizer_assets.cli.runs import PipelineOutcome
    from harmonizer_assets.core.base.settings import JudgeName, JudgeOverrides

_LISTED: Final = 20
"""Number of failed partitions in the error; the table holds them all."""


@click.command(cls=RunCommand)
@words_option
@labels_option
@label_types_option
@merchants_option
@click.option("--taxonomy", type=FILE, help="Label types of this home, as YAML.")
@click.option("--batch-time", type=click.DateTime(), help="Time of the batch, UTC [default: now].")
@click.option("--refresh", is_flag=True, help="Compute partitions again though nothing changed.")
@verbose_option
@home_option
def run(
    *,
    home: Home,
    words: Path | None,
    labels: Path | None,
    judge: JudgeName | None,
    label_types: tuple[str, ...],
    merchants: tuple[str, ...],
    taxonomy: Path | None,
    batch_time: dt.datetime | None,
    refresh: bool,
    verbose: bool,
    overrides: JudgeOverrides,
) -> None:
    """Ingest words and labels, then bring every partition that they touch up to date.

    Without files, the batches that wait in the home's inbox are ingested.
    """
    from harmonizer_assets.cli.show_outcome import show_arrived, show_outcome

    pipeline = open_home(home, judge, taxonomy=taxonomy, overrides=overrides)
    # Options are checked before anything is ingested, except merchants, which may only arrive
    # with the files.
    pipeline.partitions.check_label_types(label_types)
    submit_files(home, words, labels, batch_time)
    options = RunOptions(
        judge=judge,
        label_types=label_types or None,
        merchants=merchants or None,
        refresh=refresh,
    )
    outcome = execute(home, options, overrides, verbose=verbose)
    show_arrived(outcome)
    show_outcome(pipeline, outcome)
    refuse_half_done(outcome)


@click.command("retry-dead-letters", cls=JudgeCommand)
@verbose_option
@home_option
def retry_dead_letters(*, home: Home, verbose: bool, overrides: JudgeOverrides) -> None:
    """Ask the words again that could not be judged after all attempts."""
    from harmonizer_assets.cli.show_outcome import show_outcome

    require_tables(home)
    pipeline = open_home(home, "openai", overrides=overrides)
    before = pipeline.tables.dead_letters()
    if not before:
        click.echo("There are no dead letters.")
        return
    options = RunOptions(judge="openai", dead_letters=True)
    outcome = execute(home, options, overrides, verbose=verbose)
    show_outcome(pipeline, outcome)
    click.echo(f"{before:,} dead letters before, {outcome.counts.dead_letters:,} now.")
    refuse_half_done(outcome)


def execute(
    home: Home,
    options: RunOptions,
    overrides: JudgeOverrides | None = None,
    *,
    verbose: bool,
) -> PipelineOutcome:
    """Run the pipeline with progress on the terminal; see `run_pipeline`."""
    from harmonizer_assets.cli.runs import run_pipeline
    from harmonizer_assets.cli.terminal import terminal_progress

    warnings.simplefilter("ignore")
    with terminal_progress() as on_progress:
        return run_pipeline(
            home,
            replace(options, on_progress=on_progress),
            overrides,
            log_level=log_level(verbose),
        )


def log_level(verbose: bool) -> str:
    """Return the level of Dagster's log on the terminal."""
    return "INFO" if verbose else "CRITICAL"


def refuse_half_done(outcome: PipelineOutcome) -> None:
    """Raise the error, and so the exit code, of a run that is incomplete.

    Raises:
        InputError: a batch could not be read.
        SourceError: a bucket or table could not be read.
        PartitionsFailedError: partitions could not be computed.
        BudgetReached: the budget ended before the questions did.
    """
    if outcome.unread_batches:
        raise InputError(
            "; ".join(
                f"{source} could not be read and was moved to inbox/.failed: {error}"
                for source, error in outcome.unread_batches
            )
        )
    if outcome.unread_sources:
        raise SourceError("; ".join(outcome.unread_sources))
    if outcome.failed_partitions:
        raise PartitionsFailedError(_failed_partitions(outcome))
    if outcome.stopped_at_budget:
        raise BudgetReached(
            "stopped at the budget: what was answered is kept, the rest is unresolved; run again "
            "to go on, as far as a daily budget allows it"
        )


def _failed_partitions(outcome: PipelineOutcome) -> str:
    from harmonizer_assets.cli.show import printable

    named = [
        f"{failure.asset} {'|'.join(failure.partition)} ({printable(failure.error)})"
        for failure in outcome.failed_partitions[:_LISTED]
    ]
    more = " ..." if len(outcome.failed_partitions) > _LISTED else ""
    return (
        f"{len(outcome.failed_partitions):,} partitions failed, all others are done: "
        f"{'; '.join(named)}{more}; run again to try these again (tracebacks are in the "
        "table partition_failures)"
    )
