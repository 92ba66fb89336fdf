"""NDJSON: one object for each label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harmonizer_assets.core.review.exchange.json_files import write_lines
from harmonizer_assets.core.review.exchange.records import ExchangeRecord
from harmonizer_assets.core.review.exchange.tabular import Tabular, rows_of


class Ndjson(Tabular):
    """A table as NDJSON."""

    name = "ndjson"
    suffix = ".ndjson"

    def write(
        self, path: Path, records: Sequence[ExchangeRecord], label_types: Sequence[str]
    ) -> None:
        """Write an object for each record."""
        del label_types
        write_lines(path, rows_of(records))
