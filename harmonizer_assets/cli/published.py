"""Versions of the tables that readers find: `harmonizer published`."""

from __future__ import annotations

import click

from harmonizer_assets.cli.opening import require_tables
from harmonizer_assets.cli.options import home_option
from harmonizer_assets.core.base.home import Home


@click.command()
@click.option("--sql", is_flag=True, help="Print the SQL after which DuckDB has the tables.")
@click.option("--version", help="That of this version; by default of the latest.")
@home_option
def published(*, home: Home, sql: bool, version: str | None) -> None:
    """List the versions of the tables that were published, or say how one is read."""
    from harmonizer_assets.cli.show import Column, listing, show
    from harmonizer_assets.core.base.errors import InputError
    from harmonizer_assets.core.base.settings import Settings
    from harmonizer_assets.core.publish.copied import reading_copy
    from harmonizer_assets.core.publish.publishing import open_target

    require_tables(home)
    target = open_target(home, Settings.load(home.settings_file).publish)
    if version is not None and (target is None or not sql):
        raise InputError("--version needs --sql, and tables that are published outside the home")
    if sql:
        click.echo(reading_copy(home) if target is None else target.reading(version))
        return
    if target is None:
        click.echo(f"The tables are published as {home.snapshot} only, as of the last run.")
        return
    columns = [
        Column("version", wraps=False),
        Column("published (UTC)", wraps=False),
        Column("run"),
        Column("home"),
        Column("found"),
    ]
    rows = [
        (
            found.name,
            f"{found.published_at:%Y-%m-%d %H:%M:%S}",
            found.run_id,
            "" if found.home is None else found.home.name,
            found.message,
        )
        for found in target.versions()
    ]
    if rows:
        show(listing(columns, rows))
    click.echo(f"{len(rows):,} versions; `harmonizer published --sql` says how they are read")
