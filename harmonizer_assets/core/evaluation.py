"""Detection quality: what was flagged against what is known to be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.metrics import average_precision_score

from harmonizer_assets.core.errors import InputError
from harmonizer_assets.core.readers import read_table
from harmonizer_assets.core.warehouse import Warehouse

_KEY = ("image_id", "receipt_id", "line_id", "word_id", "label")

_JOINED = """
SELECT d.label_type, t.is_error, t.true_label, d.outlier_score, d.is_outlier, d.suggested_label
FROM truth t JOIN label_decisions d USING (image_id, receipt_id, line_id, word_id, label)
ORDER BY ALL
"""


@dataclass(frozen=True)
class Quality:
    """How well errors were found among some labels.

    Attributes:
        labels: labels with known truth.
        errors: how many of them are wrong.
        flagged: how many were decided to be outliers.
        found: how many wrong ones were.
        unresolved: labels left undecided; they count as not flagged.
        precision: found / flagged; None when nothing was flagged.
        recall: found / errors; None when there are no errors.
        f1: harmonic mean of the two; None when either is missing.
        auprc: area under the precision-recall curve of `outlier_score`, as average precision;
            None when there are no errors or nothing but errors.
        suggestion_accuracy: share of the found errors with a known true type whose suggested
            label is that type; None when there are none.
    """

    labels: int
    errors: int
    flagged: int
    found: int
    unresolved: int
    precision: float | None
    recall: float | None
    f1: float | None
    auprc: float | None
    suggestion_accuracy: float | None


@dataclass(frozen=True)
class Evaluation:
    """Quality over all labels and per label type."""

    overall: Quality
    per_label_type: dict[str, Quality]
    unmatched: int
    """Rows of the truth file that name no known label."""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """The same as a table of fixed-width columns."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        columns = "labels errors flagged found unresolved precision recall f1 auprc suggestion"
        heads = columns.split()
        yield f"{'label type':<16}" + "".join(f"{head:>11}" for head in heads)
        rows = [*sorted(self.per_label_type.items()), ("all", self.overall)]
        for name, quality in rows:
            cells = [_cell(value) for value in asdict(quality).values()]
            yield f"{name:<16}" + "".join(f"{cell:>11}" for cell in cells)
        if self.unmatched:
            yield f"{self.unmatched} rows of the truth file name no known label"


def _cell(value: int | float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def evaluate(warehouse: Warehouse, truth: Path) -> Evaluation:
    """Compare `label_decisions` with a truth file.

    Args:
        warehouse: holds the decisions.
        truth: Parquet, CSV or NDJSON with the label's key, `is_error` (bool) and optionally
            `true_label`.

    Raises:
        InputError: the file cannot be read, lacks a column, holds a value of the wrong type, or
            names no label that has been decided.
    """
    table = _read_truth(truth)
    rows = warehouse.read(
        lambda con: con.register("truth", table).execute(_JOINED).to_arrow_table()
    )
    if rows.num_rows == 0:
        raise InputError(
            f"{truth}: none of its {table.num_rows} rows names a label in this home; "
            "check --home and that the labels have been run"
        )
    label_types = np.array(rows["label_type"].to_pylist(), dtype=object)
    return Evaluation(
        overall=_quality(rows),
        per_label_type={
            name: _quality(rows.filter(pa.array(label_types == name)))
            for name in np.unique(label_types)
        },
        unmatched=table.num_rows - rows.num_rows,
    )


def _read_truth(path: Path) -> pa.Table:
    table = read_table(path, required=(*_KEY, "is_error"))
    if "true_label" not in table.column_names:
        table = table.append_column("true_label", pa.nulls(table.num_rows, pa.string()))
    kinds = {
        **dict.fromkeys(("receipt_id", "line_id", "word_id"), pa.int64()),
        **dict.fromkeys(("image_id", "label", "true_label"), pa.string()),
        "is_error": pa.bool_(),
    }
    columns = {}
    for name, kind in kinds.items():
        try:
            columns[name] = table[name].cast(kind)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: column {name}: {error}") from None
        if name != "true_label" and columns[name].null_count:
            raise InputError(
                f"{path}: column {name}: {columns[name].null_count} rows have no value"
            )
    return pa.table(columns)


def _quality(rows: pa.Table) -> Quality:
    wrong = _mask(rows["is_error"])
    flagged = _mask(rows["is_outlier"])
    scores = rows["outlier_score"].fill_null(0.5).to_numpy()
    labels, errors = len(wrong), int(wrong.sum())
    found = wrong & flagged
    precision = float(found.sum() / flagged.sum()) if flagged.any() else None
    recall = float(found.sum() / errors) if errors else None
    f1 = None
    if precision is not None and recall is not None:
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    true_label = np.array(rows["true_label"].to_pylist(), dtype=object)
    suggested = np.array(rows["suggested_label"].to_pylist(), dtype=object)
    typed = found & np.array([label is not None for label in true_label])
    return Quality(
        labels=labels,
        errors=errors,
        flagged=int(flagged.sum()),
        found=int(found.sum()),
        unresolved=rows["is_outlier"].null_count,
        precision=precision,
        recall=recall,
        f1=f1,
        auprc=float(average_precision_score(wrong, scores)) if 0 < errors < labels else None,
        suggestion_accuracy=(
            float((suggested[typed] == true_label[typed]).mean()) if typed.any() else None
        ),
    )


def _mask(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(column.fill_null(False).to_numpy(), dtype=bool)
