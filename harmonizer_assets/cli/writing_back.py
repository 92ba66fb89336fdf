"""Corrected labels in the format that they came from: `harmonizer write-back`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from harmonizer_assets.cli.importing import source_options
from harmonizer_assets.cli.opening import open_warehouse, require_tables
from harmonizer_assets.cli.options import FILE, home_option
from harmonizer_assets.core.base.home import Home

if TYPE_CHECKING:
    from harmonizer_assets.core.importers.base import ImportOptions
    from harmonizer_assets.core.importers.writing_back import Change

_LISTED: Final = 20


@click.command("write-back")
@click.argument("format")
@click.argument("file", type=FILE)
@click.option("--out", type=FILE, required=True, help="The file to be written.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@click.option(
    "--root", type=FILE, help="Folder that was given to `harmonizer import`, if it was one."
)
@source_options
@home_option
def write_back_file(
    *,
    home: Home,
    format: str,
    file: Path,
    out: Path,
    overwrite: bool,
    root: Path | None,
    label_map: Path | None,
    options: ImportOptions,
) -> None:
    """Write a FILE of another FORMAT again, with the labels that the home has now.

    Only labels that were corrected since the import are changed; all else stays as it was, to
    the byte. FILE is as it was imported, and the options are those of `harmonizer import`.
    """
    from harmonizer_assets.core.importers.writing_back import write_back

    require_tables(home)
    report = write_back(
        open_warehouse(home),
        format,
        file,
        out,
        options,
        root=root,
        label_map=label_map,
        overwrite=overwrite,
    )
    for change in report.changes[:_LISTED]:
        click.echo(_told(change))
    if len(report.changes) > _LISTED:
        click.echo(f"and {len(report.changes) - _LISTED:,} more")
    for change, reason in report.refused[:_LISTED]:
        click.echo(f"not written: {_told(change)}: {reason}", err=True)
    click.echo(
        f"{out}: {len(report.changes):,} labels changed, {len(report.refused):,} that the format "
        f"cannot hold; {report.words:,} words, {report.unknown:,} of them not in the home."
    )


def _told(change: Change) -> str:
    from harmonizer_assets.cli.show import printable

    before, after = change.before or "no label", change.after or "no label"
    return printable(f"{change.row}: {change.text!r} {before} → {after}")
