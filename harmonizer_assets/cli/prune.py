"""Remove what a home need not keep: `harmonizer prune`."""

from __future__ import annotations

import click

from harmonizer_assets.cli.opening import require_tables
from harmonizer_assets.cli.options import home_option
from harmonizer_assets.core.base.home import Home


@click.command()
@click.option("--yes", is_flag=True, help="Remove it; without this nothing is removed.")
@home_option
def prune(*, home: Home, yes: bool) -> None:
    """Show what the retention settings let go, and how much that frees.

    A served home does this every night; a run of the command line, once a day.
    """
    from harmonizer_assets.cli.show import Column, listing, megabytes, show
    from harmonizer_assets.core.base.settings import Settings
    from harmonizer_assets.dagster_compat.instance import open_instance
    from harmonizer_assets.defs.pruning import prune as prune_home

    require_tables(home)
    settings = Settings.load(home.settings_file)
    with open_instance(home) as instance:
        freed = prune_home(home, instance, settings, dry_run=not yes)
    columns = [Column("what"), Column("count", is_number=True), Column("MB", is_number=True)]
    show(listing(columns, [(one.what, f"{one.count:,}", megabytes(one.bytes)) for one in freed]))
    total = megabytes(sum(one.bytes for one in freed))
    said = "removed" if yes else "would be removed; `harmonizer prune --yes` does it"
    click.echo(f"\n{total} MB {said}.")
