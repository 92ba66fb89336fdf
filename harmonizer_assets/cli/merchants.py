"""Which names are one merchant: `harmonizer merchants`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from harmonizer_assets.cli.opening import open_warehouse, require_tables, write_json
from harmonizer_assets.cli.options import FILE, home_option
from harmonizer_assets.core.base.home import Home

_LISTED: Final = 50
"""Rows of a list that are shown; the files hold them all."""


@click.command()
@click.option("--json", "json_file", type=FILE, help="Also write all of it as JSON.")
@click.option("--csv", "csv_file", type=FILE, help="Also write all names as CSV.")
@home_option
def merchants(*, home: Home, json_file: Path | None, csv_file: Path | None) -> None:
    """List names that are one merchant, and names that are alike and are not.

    `merchants.yaml` in the home puts names together and keeps them apart; the next run follows it.
    """
    from harmonizer_assets.core.merchants.near import near_names
    from harmonizer_assets.core.store.export import export_table
    from harmonizer_assets.core.store.tables import Tables

    require_tables(home)
    warehouse = open_warehouse(home)
    names = Tables(warehouse).merchant_names()
    near = [one._asdict() for one in near_names([(row["name"], row["merchant"]) for row in names])]
    if json_file is not None:
        write_json(json_file, {"names": names, "alike": near})
    if csv_file is not None:
        export_table(warehouse, "merchant_names", csv_file)
    _show_names(names)
    _show_near(near)


def _show_names(names: list[dict[str, Any]]) -> None:
    from harmonizer_assets.cli.show import Column, listing, show

    number = len({row["merchant_key"] for row in names})
    click.echo(f"{len(names):,} names of {number:,} merchants")
    columns = (
        Column("name"),
        Column("merchant"),
        Column("how"),
        Column("since", wraps=False),
        Column("labels", is_number=True),
    )
    cells = [
        (
            row["name"],
            row["merchant"],
            row["how"],
            f"{row['since']:%Y-%m-%d %H:%M}",
            f"{row['labels']:,}",
        )
        for row in names
        if row["name"] != row["merchant"]
    ]
    if cells:
        show(listing(columns, cells[:_LISTED]))
    _tell_more(cells)


def _show_near(near: list[dict[str, Any]]) -> None:
    from harmonizer_assets.cli.show import Column, listing, show

    click.echo(f"{len(near):,} pairs of merchants are alike and stay apart")
    cells = [(one["merchant"], one["other"]) for one in near]
    if cells:
        show(listing((Column("merchant"), Column("other")), cells[:_LISTED]))
    _tell_more(cells)


def _tell_more(cells: list[Any]) -> None:
    if len(cells) > _LISTED:
        click.echo(f"and {len(cells) - _LISTED:,} more (--json writes them all)")
