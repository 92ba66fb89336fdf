"""Correct labels, and take it back: `harmonizer apply`, `undo`, `redo` and `history`."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from harmonizer_assets.cli.opening import open_home, open_warehouse, require_tables, write_json
from harmonizer_assets.cli.options import FILE, home_option
from harmonizer_assets.core.base.home import Home

if TYPE_CHECKING:
    from harmonizer_assets.core.records.correction import CorrectionReport, Refusal

F = TypeVar("F", bound=Callable[..., None])
_LISTED: Final = 40
"""Rows of a list that are shown; the JSON file holds them all."""
_IDS: Final = ("image_id", "receipt_id", "line_id", "word_id")


def who() -> str:
    """Return the name of the user, for the record."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _change_options(command: F) -> F:
    """Add the options of the commands that change labels."""
    for option in (
        click.option("--json", "json_file", type=FILE, help="Also write all of it as JSON."),
        click.option("--note", help="Why, for the record."),
        click.option("--as", "actor", default=who, help="Who does it, for the record [user]."),
        click.option("--commit", is_flag=True, help="Do it; without it, only say what would be."),
    ):
        command = option(command)
    return command


@click.command()
@_change_options
@home_option
def apply(
    *, home: Home, actor: str, note: str | None, commit: bool, json_file: Path | None
) -> None:
    """Correct the labels that reviewers, or open rules of the review policy, want corrected.

    A wrong label becomes INVALID and stays; the right one is added. Labels that have changed since
    they were decided on are refused and listed.
    """
    require_tables(home)
    report = open_home(home, "offline").apply(actor, commit=commit, note=note)
    _show(report, ("corrected", "would be corrected"), json_file)


@click.command()
@click.option("--correction", type=int, help="One correction, by its number.")
@click.option("--operation", help="All of one apply or redo, by its id.")
@click.option("--answer", help="What one answer has led to, by its id.")
@click.option("--by", help="What one person or rule of the policy has decided.")
@click.option("--rule", help="What one accepted rule has decided, by its id.")
@click.option("--merchant", help="All of one merchant, by name or key.")
@click.option("--run", help="What one run has proposed, by its id.")
@click.option("--with-later", is_flag=True, help="Undo later corrections of the same labels too.")
@_change_options
@home_option
def undo(
    *,
    home: Home,
    by: str | None,
    merchant: str | None,
    with_later: bool,
    actor: str,
    note: str | None,
    commit: bool,
    json_file: Path | None,
    **chosen: Any,
) -> None:
    """Take corrections back: their labels are again exactly what they were.

    Later corrections of other labels stay. `harmonizer history` lists numbers and ids.
    """
    from harmonizer_assets.core.apply.undo import Selection
    from harmonizer_assets.core.apply.undo import undo as undo_corrections

    require_tables(home)
    pipeline = open_home(home, "offline")
    keys = None if merchant is None else pipeline.partitions.merchant_keys([merchant])
    report = undo_corrections(
        pipeline.warehouse,
        Selection(actor=by, merchant=keys[0] if keys else None, **chosen),
        actor=actor,
        with_later=with_later,
        note=note,
        commit=commit,
    )
    _show(report, ("undone", "would be undone"), json_file)


@click.command()
@click.argument("operation")
@_change_options
@home_option
def redo(
    *,
    home: Home,
    operation: str,
    actor: str,
    note: str | None,
    commit: bool,
    json_file: Path | None,
) -> None:
    """Make the corrections again that the undo OPERATION has taken back."""
    from harmonizer_assets.core.apply.undo import redo as redo_corrections

    require_tables(home)
    report = redo_corrections(
        open_warehouse(home), operation, actor=actor, note=note, commit=commit
    )
    _show(report, ("made again", "would be made again"), json_file)


@click.command()
@click.argument("image_id", required=False)
@click.argument("receipt_id", type=int, required=False)
@click.argument("line_id", type=int, required=False)
@click.argument("word_id", type=int, required=False)
@click.argument("label", required=False)
@click.option("--json", "json_file", type=FILE, help="Also write all of it as JSON.")
@home_option
def history(*, home: Home, label: str | None, json_file: Path | None, **ids: Any) -> None:
    """Tell what was done to the labels of a word, or to one LABEL of it.

    A word is named by IMAGE_ID RECEIPT_ID LINE_ID WORD_ID. Without one, list the operations: each
    apply, undo and redo.
    """
    from harmonizer_assets.core.apply.history import label_history, operations
    from harmonizer_assets.core.base.errors import InputError
    from harmonizer_assets.core.records.label import LabelKey, WordKey

    require_tables(home)
    warehouse = open_warehouse(home)
    given = [ids[name] for name in _IDS]
    if given[0] is None:
        rows = operations(warehouse)
    elif None in given:
        raise InputError("a word has four ids: IMAGE_ID RECEIPT_ID LINE_ID WORD_ID")
    else:
        word = WordKey(*given)
        rows = label_history(warehouse, word if label is None else LabelKey(*word, label))
    if json_file is not None:
        write_json(json_file, {"history": rows})
    if given[0] is None:
        _show_operations(rows)
    else:
        _show_history(rows)


@click.command()
@click.option("--commit", is_flag=True, help="Do it; without it, only say what would be.")
@home_option
def push(*, home: Home, commit: bool) -> None:
    """Write corrections to the table that labels came from, and take back what was undone.

    The tables are those that `[arrivals.tables]` and `[arrivals.dynamodb]` name. Labels that have
    changed there since they were read are left alone and listed.
    """
    from harmonizer_assets.core.apply.push import push_corrections
    from harmonizer_assets.core.apply.targets import configured_targets
    from harmonizer_assets.core.base.errors import ConfigurationError

    require_tables(home)
    pipeline = open_home(home, "offline")
    targets = configured_targets(pipeline.settings.arrivals)
    if not targets:
        raise ConfigurationError(
            "there is no table to push to: name one of labels under [arrivals.tables] or "
            "[arrivals.dynamodb] in harmonizer.toml"
        )
    verb = "" if commit else "would be "
    for target in targets:
        report = push_corrections(pipeline.warehouse, target, commit=commit)
        click.echo(
            f"{report.pushed:,} corrections {verb}pushed to {target.name}, {report.undone:,} "
            f"{verb}taken back there."
        )
        _show_refused(report.refused)


def _show_refused(refused: Sequence[Refusal]) -> None:
    from harmonizer_assets.cli.show import Column, listing, show

    if not refused:
        return
    click.echo(f"{len(refused):,} refused:")
    cells = [(_word(vars(one)), one.label, one.reason) for one in refused[:_LISTED]]
    show(listing((Column("word", wraps=False), Column("label"), Column("because")), cells))
    _tell_more(len(refused))


def _show(report: CorrectionReport, verbs: tuple[str, str], json_file: Path | None) -> None:
    from harmonizer_assets.cli.show import Column, listing, show

    if json_file is not None:
        write_json(json_file, asdict(report))
    done = bool(report.operation_id)
    columns = (Column("word", wraps=False), Column("text"), Column("correction"), Column("why"))
    cells = [
        (_word(row), row["word_text"] or "", _effect(row), _why(row))
        for row in report.corrections[:_LISTED]
    ]
    if cells:
        show(listing(columns, cells))
    _tell_more(len(report.corrections))
    _show_refused(report.refused)
    number = len(report.corrections)
    click.echo(f"{number:,} label{'s' * (number != 1)} {verbs[0] if done else verbs[1]}.")
    if number:
        counts = (f"{action.replace('_', ' ')} {n:,}" for action, n in report.actions.items())
        click.echo(f"By action: {', '.join(counts)}.")
    if report.unchanged:
        click.echo(f"{report.unchanged:,} are as they should be already.")
    if done:
        click.echo(
            f"It is {report.operation_id} in the history. `harmonizer run` computes "
            f"{report.partitions:,} partitions again."
        )
    elif report.corrections:
        click.echo(
            f"Nothing was changed. With --commit, the next run computes {report.partitions:,} "
            "partitions again."
        )


def _show_operations(rows: Sequence[Mapping[str, Any]]) -> None:
    from harmonizer_assets.cli.show import Column, listing, show

    if not rows:
        click.echo("No label was corrected yet.")
        return
    columns = (
        Column("operation", wraps=False),
        Column("when", wraps=False),
        Column("by"),
        Column("labels", is_number=True),
        Column("in force", is_number=True),
        Column("note"),
    )
    cells = [
        (
            row["operation_id"],
            f"{row['done_at']:%Y-%m-%d %H:%M}",
            row["actor"],
            f"{row['corrections']:,}",
            f"{row['in_force']:,}",
            row["note"] or "",
        )
        for row in rows[:_LISTED]
    ]
    show(listing(columns, cells))
    _tell_more(len(rows))


def _show_history(rows: Sequence[Mapping[str, Any]]) -> None:
    from harmonizer_assets.cli.show import Column, listing, show

    if not rows:
        click.echo("Nothing was done to it.")
        return
    columns = (
        Column("number", is_number=True),
        Column("when", wraps=False),
        Column("label"),
        Column("change"),
        Column("by"),
        Column("why"),
    )
    cells = [
        (
            str(row["correction_id"]),
            f"{row['done_at']:%Y-%m-%d %H:%M}",
            row["label"],
            f"{row['status_before'] or 'none'} to {row['status_after'] or 'none'}",
            row["done_by"],
            f"{row['kind']}: {row['note'] or row['reasoning'] or row['action']}",
        )
        for row in rows
    ]
    show(listing(columns, cells))


def _word(row: Mapping[str, Any]) -> str:
    return "/".join(str(row[name]) for name in _IDS)


def _effect(row: Mapping[str, Any]) -> str:
    if row["action"] == "move":
        return f"{row['label']} to {row['to_label']}"
    return f"{row['label']}: {row['action'].replace('_', ' ')}"


def _why(row: Mapping[str, Any]) -> str:
    return f"{row['actor']}: {row['reasoning'] or row['decided_by'] or ''}"


def _tell_more(rows: int) -> None:
    if rows > _LISTED:
        click.echo(f"and {rows - _LISTED:,} more (--json writes them all)")
