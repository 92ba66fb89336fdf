"""Find known errors on sample receipts: `harmonizer demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harmonizer_assets.cli.opening import open_home, submit_files
from harmonizer_assets.cli.options import home_option, verbose_option
from harmonizer_assets.cli.run import execute
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.records.options import RunOptions

if TYPE_CHECKING:
    from harmonizer_assets.core.pipeline import Pipeline


@click.command()
@click.option(
    "--labels",
    "n_labels",
    type=click.IntRange(200, 1_000_000),
    default=5_000,
    show_default=True,
    help="How many labels to make, about.",
)
@click.option("--merchants", type=click.IntRange(1), help="How many merchants [default: by size].")
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of the generator.")
@verbose_option
@home_option
def demo(*, home: Home, n_labels: int, merchants: int | None, seed: int, verbose: bool) -> None:
    """Make sample receipts with known errors, find them, correct three, and take that back.

    Needs no key and no network.
    """
    from harmonizer_assets.cli.demo_review import show_review
    from harmonizer_assets.cli.show_evaluation import show_evaluation
    from harmonizer_assets.cli.show_outcome import show_outcome, show_worst
    from harmonizer_assets.core.measure.history import record_evaluation
    from harmonizer_assets.core.measure.samples.receipts import SampleSpec, write_samples

    pipeline = open_home(home, "offline")
    folder = home.root / "demo" / f"{n_labels}-labels-{merchants or 'some'}-merchants-seed-{seed}"
    _refuse_mixing(pipeline, folder)
    folder.mkdir(parents=True, exist_ok=True)
    samples = write_samples(SampleSpec(labels=n_labels, merchants=merchants, seed=seed), folder)
    click.echo(
        f"{samples.n_labels:,} labels on {samples.n_words:,} words, {samples.n_errors:,} of them "
        f"wrong on purpose (seed {seed}): {folder}"
    )
    submit_files(home, samples.words, samples.labels)
    options = RunOptions(judge="offline")
    show_outcome(pipeline, execute(home, options, verbose=verbose))
    click.echo("\nAgainst the known errors (offline judge, no language model):\n")
    show_evaluation(record_evaluation(pipeline.warehouse, samples.truth))
    show_worst(pipeline)
    click.echo("\nReview, with the known errors as the reviewer:\n")
    show_review(pipeline, samples.truth, lambda: execute(home, options, verbose=verbose))
    shown = click.format_filename(home.root)
    click.echo(
        f"\nTables   {home.snapshot}\n"
        f"Export   harmonizer --home {shown} export outliers --out outliers.csv\n"
        f"Web UI   harmonizer --home {shown} ui\n"
        f"Correct  harmonizer --home {shown} apply"
    )


def _refuse_mixing(pipeline: Pipeline, folder: Path) -> None:
    """Refuse a home that holds real labels or other samples."""
    if any(str(folder) not in source for source in pipeline.tables.batch_sources()):
        raise InputError(
            f"{pipeline.home.root} holds other labels already: give the demo a home of its own "
            "(harmonizer demo --home DIR)"
        )
