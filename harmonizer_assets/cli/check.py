"""Look at files before they are taken up: `harmonizer check`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from harmonizer_assets.cli.importing import show_problems, source_options
from harmonizer_assets.cli.opening import write_json
from harmonizer_assets.cli.options import FILE, home_option
from harmonizer_assets.core.base.home import Home

if TYPE_CHECKING:
    from harmonizer_assets.core.importers.base import ImportOptions
    from harmonizer_assets.core.importers.preflight import Preflight
    from harmonizer_assets.core.records.input_summary import InputSummary
    from harmonizer_assets.core.records.taxonomy import Taxonomy

_LISTED: Final = 20
"""Reasons that are shown; the JSON file holds more."""


@click.command()
@click.argument("path", nargs=-1, required=True, type=FILE)
@click.option("--format", "format_name", help="Of the files, as for `harmonizer import`.")
@click.option("--taxonomy", type=FILE, help="Label types to check against [default: the home's].")
@source_options
@click.option("--json", "json_file", type=FILE, help="Also write all of it as JSON.")
@home_option
def check(
    *,
    home: Home,
    path: tuple[Path, ...],
    format_name: str | None,
    taxonomy: Path | None,
    label_map: Path | None,
    options: ImportOptions,
    json_file: Path | None,
) -> None:
    """Read everything at each PATH, say what is in it and what could not be used.

    A PATH is a words file, a labels file, a folder with both, or, with --format, whatever
    `harmonizer import` takes. Nothing is changed, and no home is needed.
    """
    from harmonizer_assets.cli.show import facts, show
    from harmonizer_assets.cli.terminal import terminal_progress
    from harmonizer_assets.core.base.settings import Settings
    from harmonizer_assets.core.importers.preflight import check_foreign
    from harmonizer_assets.core.ingest.preflight import check_tables
    from harmonizer_assets.core.records.taxonomy import Taxonomy

    types = Taxonomy.load(taxonomy) if taxonomy is not None else _types_of(home, format_name)
    limits = Settings.load(home.settings_file).limits
    found: Preflight | None = None
    with terminal_progress() as on_progress:
        if format_name is None:
            names = (types or Taxonomy.default()).names
            summary = check_tables(path, names, limits, on_progress)
        else:
            found = check_foreign(
                format_name,
                path,
                types,
                limits,
                options,
                label_map=label_map,
                on_progress=on_progress,
            )
            summary = found.summary
    if found is not None:
        written = found.written
        show_problems(written.problems, written.left_out + written.changed)
    show(facts(summary.facts()))
    _show_reasons(summary)
    if json_file is not None:
        write_json(json_file, {**asdict(summary), "source": asdict(found) if found else None})


def _types_of(home: Home, format_name: str | None) -> Taxonomy | None:
    """Return the label types to check against; None for those of the source itself.

    A home that nobody has given a taxonomy takes over those of an import.
    """
    from harmonizer_assets.core.records.taxonomy import Taxonomy

    if format_name is not None and not home.taxonomy.exists():
        return None
    return Taxonomy.of_home(home)


def _show_reasons(summary: InputSummary) -> None:
    from harmonizer_assets.cli.show import Column, listing, show

    if not summary.reasons:
        return
    columns = (
        Column("rows", is_number=True),
        Column("table"),
        Column("first"),
        Column("reason"),
        Column("remedy"),
    )
    rows = [
        (
            f"{one.rows:,}",
            one.table_name,
            one.place,
            one.reason,
            one.remedy,
        )
        for one in summary.reasons[:_LISTED]
    ]
    show("", listing(columns, rows))
