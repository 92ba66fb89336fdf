"""`harmonizer next`: which labels a person should validate next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harmonizer_assets.cli.opening import open_warehouse, require_tables, write_json
from harmonizer_assets.cli.options import FILE, home_option
from harmonizer_assets.core.base.home import Home


@click.command("next")
@click.argument("count", type=click.IntRange(1, 1_000), default=20)
@click.option("--json", "json_file", type=FILE, help="Also write them as JSON.")
@home_option
def next_labels(*, home: Home, count: int, json_file: Path | None) -> None:
    """List the COUNT labels whose validation would teach most, as of the last run [20]."""
    from harmonizer_assets.core.store.tables import Tables

    require_tables(home)
    rows = Tables(open_warehouse(home)).validation_queue(count)
    if json_file is not None:
        write_json(json_file, {"validation_queue": rows})
    _show(rows)


def _show(rows: list[dict[str, Any]]) -> None:
    from harmonizer_assets.cli.show import Column, listing, show

    if not rows:
        click.echo("No label waits for a validation.")
        return
    columns = (
        Column("rank", is_number=True),
        Column("label"),
        Column("text"),
        Column("word", wraps=False),
        Column("why"),
    )
    cells = [
        (
            f"{row['rank']:,}",
            row["label"],
            row["word_text"],
            "/".join(str(row[name]) for name in ("image_id", "receipt_id", "line_id", "word_id")),
            row["reasoning"],
        )
        for row in rows
    ]
    show(listing(columns, cells))
    click.echo("Send them again with the status VALID or INVALID: harmonizer run --labels FILE")
