"""`harmonizer propose-labels`: labels for receipts that carry none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harmonizer_assets.cli.opening import open_home, require_tables
from harmonizer_assets.cli.options import FILE, JudgeCommand, home_option
from harmonizer_assets.core.base.errors import BudgetReached
from harmonizer_assets.core.base.home import Home

if TYPE_CHECKING:
    from harmonizer_assets.core.base.settings import JudgeName, JudgeOverrides
    from harmonizer_assets.core.decide.proposed_by_judge import JudgedProposals

_LEAST = 0.8


@click.command("propose-labels", cls=JudgeCommand)
@click.option("--from-model", is_flag=True, help="What the fitted model takes words for.")
@click.option(
    "--judge",
    type=click.Choice(["offline", "openai"]),
    help="What a judge takes words for: the offline judge, or a language model within the budget.",
)
@click.option("--out", type=FILE, required=True, help="Labels file: Parquet.")
@click.option(
    "--least",
    type=click.FloatRange(0, 1),
    help=f"Probability from which the fitted model's label is proposed [default: {_LEAST}].",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@home_option
def propose_labels(
    *,
    home: Home,
    from_model: bool,
    judge: JudgeName | None,
    out: Path,
    least: float | None,
    overwrite: bool,
    overrides: JudgeOverrides,
) -> None:
    """Write PENDING labels for receipts that carry none, as the fitted model or a judge sees them.

    They are not put into the home, so that nothing learns from them before a person has looked.
    """
    if from_model == (judge is not None):
        raise click.UsageError("say who proposes: --from-model, or --judge offline or openai")
    if judge is not None and least is not None:
        raise click.UsageError("--least is about the fitted model: it goes with --from-model")
    require_tables(home)
    pipeline = open_home(home, judge or "offline", overrides=overrides)
    found: JudgedProposals | None = None
    if judge is None:
        least = _LEAST if least is None else least
        receipts, labels = pipeline.proposals.from_model(out, least, overwrite=overwrite)
    else:
        from harmonizer_assets.cli.terminal import terminal_progress
        from harmonizer_assets.core.records.options import RunOptions

        with terminal_progress() as on_progress:
            options = RunOptions(judge=judge, on_progress=on_progress)
            found = pipeline.proposals.from_judge(out, options, overwrite=overwrite)
        receipts, labels = found.receipts, found.labels
    click.echo(
        f"labels proposed: {labels:,}, for receipts without any: {receipts:,}; written to {out}"
    )
    if found is not None:
        _show_asked(found)
    if labels:
        click.echo(f"Look through them, and take them up: harmonizer run --labels {out}")
    if found is not None and found.usage.stopped_at_budget:
        raise BudgetReached(
            "stopped at the budget: what was answered is in the file and kept; run again with "
            "--overwrite to go on, as far as a daily budget allows it"
        )


def _show_asked(found: JudgedProposals) -> None:
    usage = found.usage
    if usage.calls:
        cost = "at an unknown price" if usage.cost_usd is None else f"{usage.cost_usd:.4f} USD"
        click.echo(
            f"asked: {usage.words_asked:,} words in {usage.calls:,} calls, "
            f"{usage.prompt_tokens:,} tokens in, {usage.completion_tokens:,} out, {cost}"
        )
    if found.unanswered:
        click.echo(f"{found.unanswered:,} of {found.words:,} words have no answer", err=True)
