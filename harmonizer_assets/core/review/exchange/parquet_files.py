"""Parquet: a table with types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.files import staged
from harmonizer_assets.core.review.exchange.records import (
    FIELDS,
    FLAG,
    NUMBER,
    WHOLE,
    ExchangeRecord,
)
from harmonizer_assets.core.review.exchange.tabular import COLUMNS, Tabular, rows_of

_TYPES: Final = {WHOLE: pa.int64(), NUMBER: pa.float64(), FLAG: pa.bool_()}
_SCHEMA: Final = pa.schema(
    [(name, _TYPES.get(FIELDS.get(name, ""), pa.string())) for name in COLUMNS]
)


class Parquet(Tabular):
    """A table as Parquet; times are texts, as in the other formats."""

    name = "parquet"
    suffix = ".parquet"

    def write(
        self, path: Path, records: Sequence[ExchangeRecord], label_types: Sequence[str]
    ) -> None:
        """Write a row for each record."""
        del label_types
        with staged(path) as partial:
            pq.write_table(pa.Table.from_pylist([*rows_of(records)], _SCHEMA), partial)
