"""Write results to files: `harmonizer export` and `harmonizer report`."""

from __future__ import annotations

from pathlib import Path

import click

from harmonizer_assets.cli.opening import open_home, open_warehouse, require_tables
from harmonizer_assets.cli.options import FILE, home_option
from harmonizer_assets.core.base.home import Home


@click.command()
@click.argument("table")
@click.option("--out", type=FILE, required=True, help="File: .parquet, .csv or .ndjson.")
@click.option(
    "--exact",
    is_flag=True,
    help="CSV: write texts as they are, also where a spreadsheet would run them as formulas.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@home_option
def export(*, home: Home, table: str, out: Path, exact: bool, overwrite: bool) -> None:
    """Write TABLE to a file; its suffix names the format."""
    from harmonizer_assets.core.store.export import export_table

    require_tables(home)
    rows = export_table(open_warehouse(home), table, out, exact=exact, overwrite=overwrite)
    click.echo(f"{rows:,} rows of {table} written to {out}")


@click.command()
@click.option("--out", type=FILE, help="Folder for the page [default: HOME/reports].")
@home_option
def report(*, home: Home, out: Path | None) -> None:
    """Write what was found as one HTML page."""
    require_tables(home)
    click.echo(open_home(home, "offline").publication.write_report(folder=out))
