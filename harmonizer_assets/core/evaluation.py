"""Evaluation: what was flagged against what is known to be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.errors import InputError
from harmonizer_assets.core.quality import (
    Curves,
    Decisions,
    Quality,
    ReliabilityBin,
    curves,
    measure,
    measure_groups,
    reliability,
    rounded,
)
from harmonizer_assets.core.readers import read_table
from harmonizer_assets.core.warehouse import Warehouse

_KEY: Final = ("image_id", "receipt_id", "line_id", "word_id", "label")

MERCHANT_SIZES: Final = (
    ("1 receipt", 1),
    ("2 receipts", 2),
    ("3 to 5", 5),
    ("6 to 20", 20),
    ("over 20", None),
)
"""Classes of merchants by receipts, with the most that each holds."""

_JOINED: Final = """
WITH sizes AS (
    SELECT merchant_key, count(DISTINCT (image_id, receipt_id)) AS receipts FROM labels GROUP BY ALL
)
SELECT d.label_type, t.is_error, t.true_label, coalesce(d.outlier_score, 0.5) AS outlier_score,
    d.is_outlier, d.suggested_label, d.validation_status, sizes.receipts,
    coalesce(s.triage, 'ambiguous') AS triage
FROM truth t
JOIN label_decisions d USING (image_id, receipt_id, line_id, word_id, label)
JOIN sizes ON sizes.merchant_key = d.merchant_key
LEFT JOIN similarity_matches s USING (image_id, receipt_id, line_id, word_id, label)
ORDER BY ALL
"""

_SHOWN: Final = (
    "labels",
    "errors",
    "flagged",
    "found",
    "unresolved",
    "precision",
    "recall",
    "f1",
    "auprc",
    "suggestion_accuracy",
)


@dataclass(frozen=True)
class Evaluation:
    """Quality over all labels, per label type and per size of merchant.

    Attributes:
        truth_file: name of the truth file; `truth_sha256`: hash of its content.
        overall: over all labels.
        per_label_type, per_merchant_size: over those of each.
        reliability: stated against true shares of wrong labels.
        curves: to be drawn.
        unmatched: rows of the truth file that name no known label.
    """

    truth_file: str
    truth_sha256: str
    overall: Quality
    per_label_type: dict[str, Quality]
    per_merchant_size: dict[str, Quality]
    reliability: list[ReliabilityBin]
    curves: Curves
    unmatched: int

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """The same as text: tables of fixed-width columns."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        heads = [name.removesuffix("_accuracy") for name in _SHOWN]
        rows = [
            *sorted(self.per_label_type.items()),
            *self.per_merchant_size.items(),
            ("all", self.overall),
        ]
        yield f"{'label type':<16}" + "".join(f"{head:>11}" for head in heads)
        for number, (name, quality) in enumerate(rows):
            if number == len(self.per_label_type):
                yield "merchants with"
            cells = [_cell(getattr(quality, column)) for column in _SHOWN]
            yield f"{name:<16}" + "".join(f"{cell:>11}" for cell in cells)
        yield ""
        yield from self._findings()
        if self.unmatched:
            yield f"{self.unmatched} rows of the truth file name no known label"

    def _findings(self) -> Iterator[str]:
        all_ = self.overall
        yield (
            f"ranking: AUROC {_cell(all_.auroc)}, precision at {all_.errors:,} "
            f"{_cell(all_.precision_at_errors)}, at 100 {_cell(all_.precision_at_100)}, best F1 "
            f"{_cell(all_.best_f1)}"
        )
        yield (
            f"probabilities: calibration error {_cell(all_.ece, 4)}, Brier score "
            f"{_cell(all_.brier, 4)} (labels that nobody has validated)"
        )
        yield (
            f"triage: {all_.asked:,} labels asked about ({_percent(all_.asked_share)}); of the "
            f"accepted {_percent(all_.accepted_wrong_share)} are wrong (95 % sure: at most "
            f"{_percent(all_.accepted_wrong_bound)}), of the rejected "
            f"{_percent(all_.rejected_right_share)} are right (at most "
            f"{_percent(all_.rejected_right_bound)})"
        )
        yield "stated probability of being wrong, and how many are:"
        for each in self.reliability:
            if each.labels:
                yield (
                    f"  {each.low:.1f} to {each.high:.1f}: {each.labels:>8,} labels, stated "
                    f"{_cell(each.stated)}, wrong {_cell(each.wrong)}"
                )


def _cell(value: int | float | None, decimals: int = 3) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{decimals}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


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
    decisions = _decisions(rows)
    label_types = np.array(rows["label_type"].to_pylist(), dtype=object)
    return Evaluation(
        truth_file=truth.name,
        truth_sha256=hashlib.sha256(truth.read_bytes()).hexdigest(),
        overall=measure(decisions),
        per_label_type=measure_groups(decisions, label_types),
        per_merchant_size=measure_groups(
            decisions, _sizes(rows["receipts"].to_numpy()), [name for name, _ in MERCHANT_SIZES]
        ),
        reliability=reliability(decisions),
        curves=curves(decisions),
        unmatched=table.num_rows - rows.num_rows,
    )


def figures(quality: Quality) -> dict[str, float | int]:
    """The figures of a quality that are known, rounded."""
    return {name: value for name, value in rounded(asdict(quality)).items() if value is not None}


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


def _decisions(rows: pa.Table) -> Decisions:
    def mask(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        return np.asarray(column.fill_null(False).to_numpy(), dtype=bool)

    def objects(name: str) -> npt.NDArray[np.object_]:
        return np.array(rows[name].to_pylist(), dtype=object)

    triage = objects("triage")
    return Decisions(
        wrong=mask(rows["is_error"]),
        score=rows["outlier_score"].to_numpy(),
        flagged=mask(rows["is_outlier"]),
        unresolved=mask(rows["is_outlier"].is_null()),
        accepted=triage == "valid",
        rejected=triage == "outlier",
        validated=objects("validation_status") == "VALID",
        true_label=objects("true_label"),
        suggested=objects("suggested_label"),
    )


def _sizes(receipts: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
    """The class of each label's merchant by its receipts."""
    most = [limit for _, limit in MERCHANT_SIZES if limit is not None]
    names = np.array([name for name, _ in MERCHANT_SIZES], dtype=object)
    return np.asarray(names[np.searchsorted(most, receipts)])
