"""`harmonizer propose-labels`: labels for receipts that carry none."""

from __future__ import annotations

from pathlib import Path

import click

from harmonizer_assets.cli.opening import open_home, require_tables
from harmonizer_assets.cli.options import FILE, home_option
from harmonizer_assets.core.base.home import Home


@click.command("propose-labels")
@click.option(
    "--from-model", is_flag=True, required=True, help="What the fitted model takes words for."
)
@click.option("--out", type=FILE, required=True, help="Labels file: Parquet.")
@click.option(
    "--least",
    type=click.FloatRange(0, 1),
    default=0.8,
    help="Probability from which a label is proposed [default: 0.8].",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@home_option
def propose_labels(
    *, home: Home, from_model: bool, out: Path, least: float, overwrite: bool
) -> None:
    """Write PENDING labels for receipts that carry none, as the fitted model sees them.

    They are not put into the home, so that nothing learns from them before a person has looked.
    """
    del from_model
    require_tables(home)
    receipts, labels = open_home(home, "offline").propose_labels(out, least, overwrite=overwrite)
    click.echo(
        f"labels proposed: {labels:,}, for receipts without any: {receipts:,}; written to {out}"
    )
    if labels:
        click.echo(f"Look through them, and take them up: harmonizer run --labels {out}")
