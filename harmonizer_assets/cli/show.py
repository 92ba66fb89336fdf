"""Print tables: fitted to a terminal; plain and not wrapped where output is piped."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import click
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_NOT_WRAPPED: Final = 100_000
"""Characters per line where output is piped and COLUMNS does not name a width."""


@dataclass(frozen=True)
class Column:
    """A column of a listing; numbers are aligned to the right and never wrapped."""

    head: str
    is_number: bool = False
    wraps: bool = True


@dataclass(frozen=True)
class FirstThatFits:
    """Shows the first of some tables that fits into the width, or the last if none does."""

    tables: Sequence[Table]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(max_width=_NOT_WRAPPED)
        for table in self.tables[:-1]:
            if Measurement.get(console, wide, table).maximum <= options.max_width:
                yield table
                return
        yield self.tables[-1]


def show(*parts: RenderableType) -> None:
    """Print parts to standard output.

    On a terminal they are fitted to its width. Elsewhere they are text without colours or trailing
    spaces, and lines are as long as they need to be, unless the environment sets COLUMNS.
    """
    if sys.stdout.isatty():
        Console().print(*parts, sep="\n")
        return
    width = shutil.get_terminal_size((_NOT_WRAPPED, 0)).columns
    plain = Console(width=width, color_system=None, force_terminal=False)
    with plain.capture() as captured:
        plain.print(*parts, sep="\n")
    click.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Lay out names and their values, one pair per line; long values wrap beside the name."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(name, as_text(value))
    return table


def listing(
    columns: Sequence[Column], rows: Iterable[Sequence[str | None]], *, gap: int = 2
) -> Table:
    """Lay out rows of text under the heads of their columns.

    Args:
        columns: from left to right.
        rows: a text per column, None for an empty cell; cells that are left out are empty.
        gap: spaces between columns.
    """
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for column in columns:
        wraps = column.wraps and not column.is_number
        table.add_column(
            column.head,
            justify="right" if column.is_number else "left",
            no_wrap=not wraps,
            # A number without its last digit would be another number.
            overflow="fold" if wraps else "ellipsis",
        )
    for row in rows:
        table.add_row(*map(as_text, row))
    return table


def as_text(text: str | None, style: str = "") -> Text:
    """Make literal text: words of receipts may hold square brackets, which are rich's markup."""
    return Text(printable(text), style=style)


def printable(text: str | None) -> str:
    """Replace control characters, which a terminal would interpret, by question marks."""
    return "".join(character if character.isprintable() else "?" for character in text or "")


def megabytes(size: int) -> str:
    """Render a number of bytes as millions of them."""
    return f"{size / 1e6:,.1f}"
