"""List patterns and manage rules: `harmonizer patterns` and `harmonizer rules ...`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from harmonizer_assets.cli.opening import open_warehouse, require_tables, write_json
from harmonizer_assets.cli.options import FILE, home_option
from harmonizer_assets.core.base.home import Home

if TYPE_CHECKING:
    from harmonizer_assets.core.decide.rules import RuleChange

F = TypeVar("F", bound=Callable[..., None])
_LISTED: Final = 20
"""Rows of a list that are shown; the JSON file holds them all."""


@click.command()
@click.option("--json", "json_file", type=FILE, help="Also write all of it as JSON.")
@home_option
def patterns(*, home: Home, json_file: Path | None) -> None:
    """List wrong labels that recur, and validated labels that contradict each other."""
    from harmonizer_assets.core.store.tables import Tables

    require_tables(home)
    tables = Tables(open_warehouse(home))
    rows = {
        "patterns": tables.patterns(),
        "findings": tables.findings(),
        "contradictions": tables.contradictions(),
    }
    if json_file is not None:
        write_json(json_file, rows)
    _show_patterns(rows)


def _show_patterns(rows: dict[str, list[dict[str, Any]]]) -> None:
    from harmonizer_assets.cli.show import Column, listing, show

    click.echo(f"{len(rows['patterns']):,} patterns; `harmonizer rules accept ID` makes one a rule")
    columns = (
        Column("ID", wraps=False),
        Column("wrong", is_number=True),
        Column("right", is_number=True),
        Column("pattern"),
    )
    cells = [
        (row["pattern_id"], f"{row['support']:,}", f"{row['against']:,}", row["sentence"])
        for row in rows["patterns"][:_LISTED]
    ]
    if cells:
        show(listing(columns, cells))
    click.echo(f"{len(rows['findings']):,} findings")
    found = [(f"{row['n_labels']:,}", row["sentence"]) for row in rows["findings"][:_LISTED]]
    if found:
        show(listing((Column("labels", is_number=True), Column("finding")), found))
    click.echo(f"{len(rows['contradictions']):,} contradictions among validated labels")
    against = [(row["merchant_key"], row["sentence"]) for row in rows["contradictions"][:_LISTED]]
    if against:
        show(listing((Column("merchant"), Column("contradiction")), against))


@click.group()
def rules() -> None:
    """List, accept and retire rules: accepted patterns that decide before anything else."""


@rules.command("list")
@home_option
def rules_list(*, home: Home) -> None:
    """List all rules, those that were retired included."""
    from harmonizer_assets.cli.show import Column, listing, show
    from harmonizer_assets.core.decide.rules import list_rules

    require_tables(home)
    listed = list_rules(open_warehouse(home))
    if not listed:
        click.echo("There are no rules.")
        return
    columns = (Column("rule", wraps=False), Column("status"), Column("effect"), Column("pattern"))
    show(
        listing(
            columns,
            [(row["rule_id"], _status(row), _effect(row), row["sentence"]) for row in listed],
        )
    )


def _status(rule: dict[str, Any]) -> str:
    by = f", by {rule['decided_by']}" if rule["decided_by"] else ""
    return f"{rule['status']} (version {rule['version']}{by})"


def _effect(rule: dict[str, Any]) -> str:
    kept = f", {rule['overruled']:,} validated labels stay" if rule["overruled"] else ""
    return f"decides {rule['decides']:,} labels{kept}"


def _rule_options(command: F) -> F:
    """Add the options for who changes a rule, and why."""
    command = click.option("--note", help="Why, for the record.")(command)
    return click.option("--by", default="", help="Who decides, for the record.")(command)


@rules.command("accept")
@click.argument("pattern_id")
@_rule_options
@home_option
def rules_accept(*, home: Home, pattern_id: str, by: str, note: str | None) -> None:
    """Make the pattern PATTERN_ID a rule."""
    from harmonizer_assets.core.decide.rules import accept_rule

    require_tables(home)
    _show_change(accept_rule(open_warehouse(home), pattern_id, decided_by=by, note=note))


@rules.command("retire")
@click.argument("rule_id")
@_rule_options
@home_option
def rules_retire(*, home: Home, rule_id: str, by: str, note: str | None) -> None:
    """Stop the rule RULE_ID from deciding labels; its versions stay on record."""
    from harmonizer_assets.core.decide.rules import retire_rule

    require_tables(home)
    _show_change(retire_rule(open_warehouse(home), rule_id, decided_by=by, note=note))


def _show_change(change: RuleChange) -> None:
    from harmonizer_assets.cli.show import printable

    click.echo(f"{printable(change.sentence)} (rules version {change.version})")
    if change.overruled:
        click.echo(f"{change.overruled:,} labels that a person has validated stay as they are")
    click.echo(f"`harmonizer run` computes {change.partitions:,} partitions again")
