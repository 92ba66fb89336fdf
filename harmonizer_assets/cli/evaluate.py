"""Measure what is found: `harmonizer evaluate` and `harmonizer corrupt`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harmonizer_assets.cli.opening import open_home, require_tables, write_json
from harmonizer_assets.cli.options import FILE, home_option
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.home import Home

if TYPE_CHECKING:
    from harmonizer_assets.core.measure.evaluation import Evaluation
    from harmonizer_assets.core.pipeline import Pipeline


@click.command()
@click.option("--truth", type=FILE, help="Label key, is_error, true_label [as in the settings].")
@click.option("--json", "json_file", type=FILE, help="Also write the figures as JSON.")
@click.option("--plots", type=FILE, help="Also write plots into this folder.")
@home_option
def evaluate(*, home: Home, truth: Path | None, json_file: Path | None, plots: Path | None) -> None:
    """Compare what was found with what is known to be wrong."""
    from harmonizer_assets.cli.show_evaluation import show_evaluation
    from harmonizer_assets.core.measure.history import record_evaluation

    require_tables(home)
    pipeline = open_home(home, "offline")
    truth = truth or pipeline.settings.evaluation.truth_file(pipeline.home.root)
    if truth is None:
        raise InputError("no truth file: give --truth, or set [evaluation] truth in the settings")
    evaluation = record_evaluation(pipeline.warehouse, truth)
    if json_file is not None:
        write_json(json_file, evaluation.to_dict())
    show_evaluation(evaluation, guarantee=pipeline.score.guarantee())
    _show_history(pipeline, evaluation)
    if plots is not None:
        from harmonizer_assets.core.measure.plots import write_plots

        for file in write_plots(evaluation, plots):
            click.echo(f"{file} written")


def _show_history(pipeline: Pipeline, evaluation: Evaluation) -> None:
    from harmonizer_assets.core.measure import history as quality_history

    history = quality_history.read(pipeline.warehouse, evaluation.truth_sha256)
    if len(history) > 1:
        earlier = " -> ".join(f"{row['f1'] or 0:.3f}" for row in history[-5:])
        click.echo(f"F1 of the last {len(history[-5:])} evaluations against this file: {earlier}")


@click.command()
@click.option("--words", type=FILE, required=True, help="Words: Parquet, CSV or NDJSON.")
@click.option("--labels", type=FILE, required=True, help="Labels that are taken as right.")
@click.option("--out", type=FILE, required=True, help="Folder for words, labels and truth.")
@click.option(
    "--rate",
    type=click.FloatRange(0, 0.5),
    default=0.08,
    show_default=True,
    help="Share of the labels that become wrong, or are removed.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND[=WEIGHT]",
    help="Only this kind of error; may be repeated [default: confusable=0.4, random=0.2, "
    "caption=0.2, unlabelled_word=0.2].",
)
@click.option(
    "--validated",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of the right labels that become VALID.",
)
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of the generator.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def corrupt(
    *,
    words: Path,
    labels: Path,
    out: Path,
    rate: float,
    kinds: tuple[str, ...],
    validated: float,
    seed: int,
    force: bool,
) -> None:
    """Put known errors into clean labels, to measure on them what is found."""
    from harmonizer_assets.core.measure.corrupt import CorruptionSpec, corrupt_files

    spec = CorruptionSpec(rate=rate, validated=validated, seed=seed)
    if kinds:
        spec = replace(spec, kinds=dict(map(_weighted_kind, kinds)))
    made = corrupt_files(words, labels, out, spec, force=force)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in made.errors.items() if count)
    click.echo(
        f"{made.n_labels:,} labels, {sum(made.errors.values()):,} of them wrong"
        f"{f' ({counts})' if counts else ''}: {out}"
    )
    if made.forgotten:
        click.echo(f"{made.forgotten:,} more are forgotten: they are in the truth file alone")
    for note in made.notes:
        click.echo(note)
    click.echo(
        f"harmonizer run --words {made.words} --labels {made.labels}\n"
        f"harmonizer evaluate --truth {made.truth}"
    )


def _weighted_kind(text: str) -> tuple[str, float]:
    """Read a kind of error, with its weight if there is one."""
    kind, _, weight = text.partition("=")
    try:
        return kind, float(weight or 1.0)
    except ValueError:
        raise InputError(f"--kind {text}: the weight after = is not a number") from None
