"""Review in other tools: `harmonizer exchange`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from harmonizer_assets.cli.corrections import who
from harmonizer_assets.cli.opening import open_home, require_tables, write_json
from harmonizer_assets.cli.options import FILE, home_option
from harmonizer_assets.core.base.home import Home

if TYPE_CHECKING:
    from harmonizer_assets.core.review.exchange.importing import ImportReport, NotImported

FORMAT_NAMES: Final = ("csv", "parquet", "ndjson", "label-studio", "argilla", "doccano", "prodigy")
_LISTED: Final = 40
"""Rows of a list that are shown; the JSON file holds them all."""

format_option = click.option(
    "--format",
    "exchange_format",
    type=click.Choice(FORMAT_NAMES),
    required=True,
    help="Of the file.",
)


@click.group()
def exchange() -> None:
    """Review labels in a spreadsheet or another tool, and take in what people say there."""


@exchange.command("export")
@click.argument("file", type=FILE)
@format_option
@click.option("--label-type", help="Only labels of this type.")
@click.option("--merchant", help="Only labels of this merchant, by name or key.")
@click.option("--limit", type=click.IntRange(1), help="Only so many, the most valuable ones.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@home_option
def export_file(
    *,
    home: Home,
    file: Path,
    exchange_format: str,
    label_type: str | None,
    merchant: str | None,
    limit: int | None,
    overwrite: bool,
) -> None:
    """Write the labels of the review queue to FILE.

    What the tool must be set up with is written beside it.
    """
    from harmonizer_assets.core.review.queue import ReviewFilter

    require_tables(home)
    pipeline = open_home(home, "offline")
    keys = None if merchant is None else pipeline.partitions.merchant_keys([merchant])
    chosen = ReviewFilter(label_type=label_type, merchant_key=keys[0] if keys else None)
    report = pipeline.review.export(file, exchange_format, chosen, limit=limit, overwrite=overwrite)
    click.echo(f"{_counted(report.records, 'label')} written to {report.path}")
    if report.config is not None:
        click.echo(f"{report.config} is what the tool is set up with.")
    if exchange_format == "label-studio" and report.without_box:
        click.echo(
            f"{_counted(report.without_box, 'label')} of words whose place is not known cannot be "
            "shown there: review those elsewhere."
        )


@exchange.command("import")
@click.argument("file", type=FILE)
@format_option
@click.option(
    "--as", "reviewer", default=who, help="Who has answered, where FILE names nobody [user]."
)
@click.option("--json", "json_file", type=FILE, help="Also write all of it as JSON.")
@home_option
def import_file(
    *, home: Home, file: Path, exchange_format: str, reviewer: str, json_file: Path | None
) -> None:
    """Take in what people have said in FILE, as their answers.

    No label is changed before `harmonizer apply`. What was imported before changes nothing, and
    what has changed since the export is listed and left alone.
    """
    require_tables(home)
    report = open_home(home, "offline").review.import_answers(file, exchange_format, reviewer)
    if json_file is not None:
        write_json(json_file, asdict(report))
    _show(report)


def _show(report: ImportReport) -> None:
    if report.refused:
        click.echo(f"{len(report.refused):,} not imported:")
        _show_refused(report.refused)
    stored = sum(report.answers.values())
    kinds = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(report.answers.items()))
    click.echo(f"{_counted(stored, 'answer')} imported{f': {kinds}' if kinds else ''}.")
    if report.known:
        click.echo(f"{report.known:,} were imported before.")
    if report.unanswered:
        click.echo(f"{_counted(report.unanswered, 'label')} without an answer.")
    if stored:
        click.echo("`harmonizer apply` shows what follows from them.")


def _show_refused(refused: Sequence[NotImported]) -> None:
    from harmonizer_assets.cli.show import Column, listing, show

    columns = (Column("where"), Column("label"), Column("by"), Column("because"))
    cells = [(one.place, one.label, one.reviewer, one.reason) for one in refused[:_LISTED]]
    show(listing(columns, cells))
    if len(refused) > _LISTED:
        click.echo(f"and {len(refused) - _LISTED:,} more (--json writes them all)")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
