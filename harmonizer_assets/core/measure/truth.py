"""Truth files: which labels are known to be wrong, one row for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.ingest.readers import read_table
from harmonizer_assets.core.records.label import LABEL_KEY, WORD_KEY

_WORDS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "t", "yes", "y"), True),
    **dict.fromkeys(("false", "f", "no", "n"), False),
}
_NUMBERS: Final = {0.0: False, 1.0: True}
_FLAGS: Final = ("is_error", "missing")


@dataclass(frozen=True)
class Truth:
    """A truth file.

    Attributes:
        rows: the label's key, `is_error` and `true_label`, one row per label.
        missing: keys of labels that words lack and should carry.
        read: rows of the file about labels that are there.
        doubled: rows that say again what another row says.
        contradicting: rows about labels of which the file says different things; such labels are
            not in `rows`.
    """

    rows: pa.Table
    missing: pa.Table
    read: int
    doubled: int
    contradicting: int


def read_truth(path: Path) -> Truth:
    """Read a truth file.

    Args:
        path: Parquet, CSV or NDJSON with the label's key, `is_error` (true or false, yes or no, 1
            or 0) and optionally `true_label` and `missing`; a row for which `missing` is true says
            that a word lacks this label.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds a value of the wrong type.
    """
    table = _typed(path, read_table(path, required=(*LABEL_KEY, "is_error")))
    missing = table.filter(table["missing"]).select(LABEL_KEY).group_by(list(LABEL_KEY))
    table = table.filter(pc.invert(table["missing"]))
    both = [(name, kind) for name in ("is_error", "true_label") for kind in ("min", "max")]
    grouped = table.group_by(list(LABEL_KEY)).aggregate([*both, ("is_error", "count")])
    same = pc.and_(
        pc.equal(grouped["is_error_min"], grouped["is_error_max"]),
        pc.fill_null(pc.equal(grouped["true_label_min"], grouped["true_label_max"]), True),
    )
    told = grouped.filter(same).rename_columns(
        {"is_error_max": "is_error", "true_label_max": "true_label"}
    )
    agreeing = pc.sum(told["is_error_count"]).as_py() or 0
    return Truth(
        told.select([*LABEL_KEY, "is_error", "true_label"]),
        missing.aggregate([]),
        table.num_rows,
        agreeing - told.num_rows,
        table.num_rows - agreeing,
    )


def _typed(path: Path, table: pa.Table) -> pa.Table:
    if "true_label" not in table.column_names:
        table = table.append_column("true_label", pa.nulls(table.num_rows, pa.string()))
    if "missing" not in table.column_names:
        table = table.append_column("missing", pa.array([False] * table.num_rows, pa.bool_()))
    kinds = {
        **dict.fromkeys(WORD_KEY[1:], pa.int64()),
        **dict.fromkeys(("image_id", "label", "true_label"), pa.string()),
    }
    columns = {}
    for name, kind in kinds.items():
        try:
            columns[name] = table[name].cast(kind)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: column {name}: {error}") from None
    for name in _FLAGS:
        columns[name] = pa.chunked_array([_flags(path, name, table[name].to_pylist())])
    columns["missing"] = pc.fill_null(columns["missing"], False)
    for name, column in columns.items():
        if name != "true_label" and column.null_count:
            raise InputError(f"{path}: column {name}: {column.null_count} rows have no value")
    return pa.table(columns)


def _flags(path: Path, name: str, values: list[Any]) -> pa.Array:
    found = []
    for number, value in enumerate(values, start=1):
        text = "" if value is None else str(value).strip().lower()
        flag = _WORDS.get(text, _NUMBERS.get(_number(text)))
        if text and flag is None:
            raise InputError(
                f"{path}: column {name}, row {number}: {str(value)[:40]!r} is neither true nor "
                "false: write true or false, yes or no, 1 or 0"
            )
        found.append(flag)
    return pa.array(found, pa.bool_())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
