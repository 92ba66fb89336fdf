"""Copies of a home elsewhere: `harmonizer backup` and `harmonizer restore`."""

from __future__ import annotations

import click

from harmonizer_assets.cli.opening import open_home, require_tables
from harmonizer_assets.cli.options import home_option
from harmonizer_assets.core.base.home import Home


@click.command()
@click.argument("url")
@click.option(
    "--keep", type=click.IntRange(min=1), help="Backups to keep, this one included [all]."
)
@home_option
def backup(*, home: Home, url: str, keep: int | None) -> None:
    """Copy the home to URL while things run: a folder, or s3://bucket/prefix.

    URL holds the backups of one home. What an earlier one has is not copied again, and a backup
    that was interrupted goes on where it was.
    """
    from harmonizer_assets.cli.show import megabytes
    from harmonizer_assets.cli.terminal import terminal_progress
    from harmonizer_assets.core.backup import back_up
    from harmonizer_assets.core.backup.archive import open_archive

    require_tables(home)
    archive = open_archive(url)
    pipeline = open_home(home, "offline")
    with terminal_progress() as progress:
        report = back_up(
            pipeline.warehouse,
            pipeline.indexing.vectors,
            archive,
            keep=keep,
            on_progress=progress,
        )
    click.echo(
        f"Backup {report.name}: {report.files:,} files, {megabytes(report.size)} MB, of which "
        f"{megabytes(report.stored)} MB were new at {archive.url}."
    )
    if report.left_out:
        click.echo(
            f"{len(report.left_out):,} files or folders of the inbox are not in it, since they may "
            "not be read; give yourself the right to read them, or remove them:"
        )
        for path in report.left_out:
            click.echo(f"  {path}")
    if report.removed:
        click.echo(f"{report.removed:,} older backups were removed.")
    if report.events_elsewhere:
        click.echo("Dagster keeps its runs in another database: back that up as well.")


@click.command()
@click.argument("url")
@click.option("--backup", "name", help="Name of the backup [the latest].")
@click.option("--list", "only_list", is_flag=True, help="List the backups, and restore none.")
@home_option
def restore(*, home: Home, url: str, name: str | None, only_list: bool) -> None:
    """Make a new home of a backup at URL."""
    from harmonizer_assets.cli.show import megabytes
    from harmonizer_assets.cli.terminal import terminal_progress
    from harmonizer_assets.core.backup import restore as restore_home
    from harmonizer_assets.core.backup.archive import open_archive

    archive = open_archive(url)
    if only_list:
        for found in archive.names():
            click.echo(found)
        return
    with terminal_progress() as progress:
        report = restore_home(archive, home, name, on_progress=progress)
    click.echo(
        f"Backup {report.name} restored into {home.root}: {report.files:,} files, "
        f"{megabytes(report.size)} MB."
    )
