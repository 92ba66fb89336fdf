"""Say what judging would cost: `harmonizer plan`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harmonizer_assets.cli.opening import open_home, submit_files, write_json
from harmonizer_assets.cli.options import (
    FILE,
    JudgeCommand,
    home_option,
    label_types_option,
    labels_option,
    merchants_option,
    verbose_option,
    words_option,
)
from harmonizer_assets.cli.run import log_level
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.records.options import RunOptions

if TYPE_CHECKING:
    from harmonizer_assets.core.base.settings import JudgeOverrides


@click.command(cls=JudgeCommand)
@words_option
@labels_option
@label_types_option
@merchants_option
@click.option("--refresh", is_flag=True, help="Plan for all partitions, changed or not.")
@click.option("--json", "json_file", type=FILE, help="Also write the plan as JSON.")
@verbose_option
@home_option
def plan(
    *,
    home: Home,
    words: Path | None,
    labels: Path | None,
    label_types: tuple[str, ...],
    merchants: tuple[str, ...],
    refresh: bool,
    json_file: Path | None,
    verbose: bool,
    overrides: JudgeOverrides,
) -> None:
    """Say what `run --judge openai` would ask, take and cost, with one real prompt.

    Ingests and scores like `run`, but sends no call; it needs no key.
    """
    from harmonizer_assets.cli.show_plan import show_plan
    from harmonizer_assets.cli.terminal import terminal_progress

    pipeline = open_home(home, "offline", overrides=overrides)
    pipeline.partitions.check_label_types(label_types)
    submit_files(home, words, labels)
    warnings.simplefilter("ignore")
    from harmonizer_assets.cli.runs import run_plan

    with terminal_progress() as on_progress:
        options = RunOptions(
            label_types=label_types or None,
            merchants=merchants or None,
            refresh=refresh,
            on_progress=on_progress,
        )
        made = run_plan(home, options, overrides, log_level=log_level(verbose))
    if json_file is not None:
        write_json(json_file, made.to_dict())
    show_plan(made)
