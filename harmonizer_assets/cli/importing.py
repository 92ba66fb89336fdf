"""Import of other formats: `harmonizer import`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from harmonizer_assets.cli.opening import write_json
from harmonizer_assets.cli.options import FILE, home_option
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.records.status import Status

if TYPE_CHECKING:
    from harmonizer_assets.core.importers.base import ImportOptions, Problem, Unit
    from harmonizer_assets.core.importers.importing import ImportReport
    from harmonizer_assets.core.importers.writing import Written

_LISTED: Final = 20
"""Problems and label types that are shown; `--json` writes more, and `--out` keeps all problems."""

_SOURCE_OPTIONS: Final = (
    click.option(
        "--map",
        "label_map",
        type=FILE,
        help="Which label type each name is, as YAML, confirmed by you.",
    ),
    click.option(
        "--images", type=FILE, help="Folder of the images, where the sizes of images are needed."
    ),
    click.option(
        "--boxes",
        "unit",
        type=click.Choice(["pixel", "thousand", "percent", "share"]),
        help="What coordinates count, in place of what is found.",
    ),
    click.option(
        "--columns",
        type=FILE,
        help="Spreadsheets: which column is what, as YAML. Without it, a guess is shown.",
    ),
    click.option("--keep-prefix", is_flag=True, help="Keep B- and I- in the names of labels."),
    click.option(
        "--predictions", is_flag=True, help="Take labels that a model has proposed there, too."
    ),
    click.option(
        "--status",
        type=click.Choice([status.value for status in Status]),
        default=Status.PENDING.value,
        help="Of labels for which the source gives none [default: PENDING].",
    ),
    click.option("--merchant", help="Merchant of all receipts, where the source names none."),
)


def source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what people may say about a source in another format.

    The command gets `label_map`, and the other options as `options`, which are `ImportOptions`.
    """

    @wraps(command)
    def with_options(
        *,
        images: Path | None,
        unit: Unit | None,
        columns: Path | None,
        keep_prefix: bool,
        predictions: bool,
        status: str,
        merchant: str | None,
        **given: Any,
    ) -> None:
        from harmonizer_assets.core.importers.base import ImportOptions

        command(
            options=ImportOptions(
                images, unit, keep_prefix, status, merchant, columns, predictions
            ),
            **given,
        )

    for option in reversed(_SOURCE_OPTIONS):
        option(with_options)
    return with_options


@click.command("import")
@click.argument("format")
@click.argument("path", nargs=-1, required=True, type=FILE)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, given: _list_formats(context) if given else None,
    help="List the formats, and do nothing else.",
)
@click.option("--out", type=FILE, help="Write into this folder instead of a home.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier import in that folder.")
@source_options
@click.option("--json", "json_file", type=FILE, help="Also write the report as JSON.")
@home_option
def import_formats(
    *,
    home: Home,
    format: str,
    path: tuple[Path, ...],
    out: Path | None,
    overwrite: bool,
    label_map: Path | None,
    options: ImportOptions,
    json_file: Path | None,
) -> None:
    """Read files of another FORMAT at each PATH, and put them into the home's inbox.

    A PATH is a file, or a folder that is searched. Imported again after a change, a file
    updates what it brought before. With --out, nothing is put into a home: the tables,
    and a taxonomy of their labels, are written into a folder.
    """
    from harmonizer_assets.cli.terminal import terminal_progress
    from harmonizer_assets.core.importers.importing import import_to_folder, import_to_home

    with terminal_progress() as on_progress:
        if out is None:
            home.keep_private()
            report = import_to_home(
                format, path, home, options, label_map=label_map, on_progress=on_progress
            )
        else:
            report = import_to_folder(
                format,
                path,
                out,
                options,
                label_map=label_map,
                overwrite=overwrite,
                on_progress=on_progress,
            )
    if json_file is not None:
        write_json(json_file, asdict(report))
    _show(report, is_folder=out is not None)


def _list_formats(context: click.Context) -> None:
    from harmonizer_assets.cli.show import facts, show
    from harmonizer_assets.core.importers.registry import importers

    show(facts((one.name, one.describes) for one in importers()))
    context.exit()


def _show(report: ImportReport, *, is_folder: bool) -> None:
    from harmonizer_assets.cli.show import facts, show

    written = report.written
    show_problems(written.problems, written.left_out + written.changed)
    show(facts(_totals(report)))
    if report.words_gone or report.labels_gone:
        click.echo(
            f"{report.words_gone:,} words and {report.labels_gone:,} labels of an earlier import "
            "are not in the source any more, and are taken out."
        )
    if report.map_file is not None:
        click.echo(
            f"{report.map_file} proposes which label types names may be: check it, and import "
            "again with --map to confirm it."
        )
    click.echo(_next(report, is_folder=is_folder))


def _totals(report: ImportReport) -> list[tuple[str, str]]:
    written = report.written
    return [
        ("files", f"{report.files:,}"),
        ("receipts", f"{written.receipts:,}"),
        ("words", f"{written.words:,}, {_positions(written)}"),
        ("labels", f"{written.labels:,} of {len(written.names):,} types{_types(report)}"),
        ("left out", f"{written.left_out:,} words, labels or parts"),
    ]


def _positions(written: Written) -> str:
    placed = written.words - written.without_position
    units = ", ".join(
        f"{count:,} receipts in {_UNITS[unit]}" for unit, count in sorted(written.units.items())
    )
    clipped = f", {written.clipped:,} clipped at the edge of the image" if written.clipped else ""
    return f"{placed:,} with a position{f' ({units})' if units else ''}{clipped}"


_UNITS: Final = {
    "pixel": "pixels or the unit of their page",
    "thousand": "thousandths of the image",
    "percent": "percent of the image",
    "share": "shares of the image",
}


def _types(report: ImportReport) -> str:
    counts = list(report.fit.counts.items())
    shown = ", ".join(f"{name} {count:,}" for name, count in counts[:_LISTED])
    return f": {shown}{' ...' if len(counts) > _LISTED else ''}" if counts else ""


def _next(report: ImportReport, *, is_folder: bool) -> str:
    if is_folder:
        folder = report.folder
        taxonomy = f" --taxonomy {folder}/taxonomy.yaml" if report.written.names else ""
        return (
            f"{folder} holds the tables: `harmonizer run --words {folder}/words.parquet "
            f"--labels {folder}/labels.parquet{taxonomy}` takes them up."
        )
    taken = " Its label types are those of the home now." if report.takes_taxonomy else ""
    left_out = (
        " What is left out will be in the table quarantine." if report.written.left_out else ""
    )
    return f"The import waits in the inbox: `harmonizer run` takes it up.{taken}{left_out}"


def show_problems(problems: Sequence[Problem], count: int) -> None:
    """Show the first problems: file, row, reason and remedy."""
    from harmonizer_assets.cli.show import printable

    for problem in problems[:_LISTED]:
        click.echo(printable(str(problem)), err=True)
    if count > _LISTED:
        click.echo(f"and {count - _LISTED:,} more", err=True)
