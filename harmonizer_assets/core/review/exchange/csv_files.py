"""CSV for spreadsheets: what a spreadsheet would run as a formula is escaped, and read back."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.files import write_atomically
from harmonizer_assets.core.base.formulas import MARKER, escaped, restored
from harmonizer_assets.core.ingest.readers import TableLayout, check_file, readable
from harmonizer_assets.core.review.exchange.records import ExchangeRecord
from harmonizer_assets.core.review.exchange.tabular import COLUMNS, NEEDED, Tabular, rows_of


class Csv(Tabular):
    """A table as CSV, UTF-8 with a byte order mark, by which spreadsheets know it."""

    name = "csv"
    suffix = ".csv"

    def write(
        self, path: Path, records: Sequence[ExchangeRecord], label_types: Sequence[str]
    ) -> None:
        """Write a row for each record."""
        del label_types
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, (*COLUMNS, MARKER), lineterminator="\r\n")
        writer.writeheader()
        for row in rows_of(records):
            writer.writerow({**_cells(row), MARKER: "true"})
        write_atomically(path, text.getvalue().encode("utf-8-sig"))

    def rows(self, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Read the rows, numbered as a spreadsheet does, in which the header is the first."""
        check_file(path, TableLayout("review", NEEDED))
        with readable(path):
            yield from _rows(path)


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read rows exactly as they were written, whatever line ends are in their texts."""
    number, header = 1, None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, cells in enumerate(csv.reader(file, strict=True), start=1):
                if header is None:
                    header = cells
                elif cells:
                    row = restored(dict(zip(header, cells, strict=True)))
                    yield f"row {number}", {name: text or None for name, text in row.items()}
    except (csv.Error, ValueError) as error:
        raise InputError(
            f"{path}: row {number}: not valid CSV ({error}): save the file as CSV UTF-8, with "
            "commas, and with all columns"
        ) from error


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: escaped(value) if isinstance(value, str) else value for name, value in row.items()
    }
