"""Units that wait or have failed: `harmonizer units list|retry`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from harmonizer_assets.cli.opening import require_tables, write_json
from harmonizer_assets.cli.options import FILE, home_option, verbose_option
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.home import Home

if TYPE_CHECKING:
    from harmonizer_assets.core.base.settings import UnitSettings
    from harmonizer_assets.core.units.store import DeadLetter, UnitStore

_SHOWN: Final = 12
"""Characters of a unit's name that are shown, and that name it."""


@click.group()
def units() -> None:
    """Show units of work that wait or have failed, and try failed ones again."""


@units.command("list")
@click.option("--json", "json_file", type=FILE, help="Also write all of it as JSON.")
@home_option
def list_units(*, home: Home, json_file: Path | None) -> None:
    """List the units that have failed as often as they may, and count those that wait."""
    _, store = _open(home)
    letters, waiting = store.dead_letters(), store.waiting()
    rows = [_row(store, letter) for letter in letters]
    if json_file is not None:
        write_json(json_file, {"dead": rows, "waiting": waiting})
    click.echo(f"{len(rows):,} units have failed, {len(waiting):,} wait or are worked on")
    if rows:
        _show(rows)
        click.echo("harmonizer units retry tries them again")


@units.command()
@click.argument("names", nargs=-1)
@verbose_option
@home_option
def retry(*, home: Home, names: tuple[str, ...], verbose: bool) -> None:
    """Try failed units again: all, or those whose names begin with NAMES. Then run."""
    from harmonizer_assets.cli.run import execute, refuse_half_done
    from harmonizer_assets.cli.show_outcome import show_outcome
    from harmonizer_assets.core.pipeline import Pipeline
    from harmonizer_assets.core.records.options import RunOptions

    require_tables(home)
    settings, store = _open(home)
    wanted = _chosen(store.dead_letters(split=True), names)
    if not wanted:
        click.echo("No unit has failed.")
        return
    _forget(settings, store, wanted)
    outcome = execute(home, RunOptions(), verbose=verbose)
    show_outcome(Pipeline(home), outcome)
    click.echo(f"{len(wanted):,} failed units before, {len(store.dead_letters()):,} now.")
    refuse_half_done(outcome)


def _open(home: Home) -> tuple[UnitSettings, UnitStore]:
    from harmonizer_assets.core.base.settings import Settings
    from harmonizer_assets.core.units.spread import unit_store

    settings = Settings.load(home.settings_file).units
    return settings, unit_store(settings, home)


def _chosen(letters: list[DeadLetter], names: tuple[str, ...]) -> list[DeadLetter]:
    """Choose dead letters by the beginnings of their units' names.

    Raises:
        InputError: no unit that has failed is named so.
    """
    for name in names:
        if not any(letter.unit.startswith(name) for letter in letters):
            raise InputError(f"no failed unit is named {name!r}: see `harmonizer units list`")
    return [letter for letter in letters if not names or letter.unit.startswith(names)]


def _forget(settings: UnitSettings, store: UnitStore, letters: list[DeadLetter]) -> None:
    """Delete what is stored of failed units, and their messages among the broker's dead letters."""
    if settings.executor == "celery":
        from harmonizer_assets.core.units.executors.celery import make_app
        from harmonizer_assets.core.units.spread import make_broker

        broker = make_broker(settings)
        app = make_app(broker)
        broker.declare(app)
        broker.clear_dead(app, {letter.unit for letter in letters})
    store.remove([letter.unit for letter in letters])


def _row(store: UnitStore, letter: DeadLetter) -> dict[str, Any]:
    from harmonizer_assets.core.units.unit import Bundle

    bundle = Bundle.from_bytes(store.bundle(letter.unit))
    labels = bundle.tables["labels"]
    return {
        "unit": letter.unit,
        "stage": bundle.meta["stage"],
        "merchants": labels["merchant_key"].unique().to_pylist(),
        "labels": labels.num_rows,
        "attempts": letter.attempts,
        "failed_at": letter.failed_at,
        "error": letter.error,
        "traceback": letter.traceback,
    }


def _show(rows: list[dict[str, Any]]) -> None:
    from harmonizer_assets.cli.show import Column, listing, show

    columns = (
        Column("unit", wraps=False),
        Column("merchants"),
        Column("labels", is_number=True),
        Column("attempts", is_number=True),
        Column("failed", wraps=False),
        Column("error"),
    )
    show(
        listing(
            columns,
            [
                (
                    row["unit"][:_SHOWN],
                    ", ".join(row["merchants"]),
                    f"{row['labels']:,}",
                    str(row["attempts"]),
                    f"{row['failed_at']:%Y-%m-%d %H:%M}",
                    row["error"],
                )
                for row in rows
            ],
        )
    )
