"""Evaluation: what was flagged against what is known to be wrong."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.measure.metrics import (
    Curves,
    Decisions,
    MissingQuality,
    Quality,
    ReliabilityBin,
    curves,
    measure,
    measure_groups,
    measure_missing,
    reliability,
    rounded,
)
from harmonizer_assets.core.measure.truth import read_truth
from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    WORD_COLUMNS,
    WORD_KEY,
    qualified,
)
from harmonizer_assets.core.records.status import Status
from harmonizer_assets.core.store.warehouse import Warehouse

MERCHANT_SIZES: Final = (
    ("1 receipt", 1),
    ("2 receipts", 2),
    ("3 to 5", 5),
    ("6 to 20", 20),
    ("over 20", None),
)
"""Classes of merchants by receipts, with the most that each holds."""

_JOINED: Final = f"""
WITH sizes AS (
    SELECT merchant_key, count(DISTINCT (image_id, receipt_id)) AS receipts FROM labels GROUP BY ALL
)
SELECT d.label_type, t.is_error, t.true_label, coalesce(d.outlier_score, 0.5) AS outlier_score,
    d.is_outlier, d.suggested_label, d.validation_status, sizes.receipts,
    coalesce(s.triage, 'ambiguous') AS triage
FROM truth t
JOIN label_decisions d USING ({LABEL_COLUMNS})
JOIN sizes ON sizes.merchant_key = d.merchant_key
LEFT JOIN similarity_matches s USING ({LABEL_COLUMNS})
ORDER BY ALL
"""


_PROPOSED: Final = f"""
SELECT m.score, coalesce(m.is_missing, false) AS decided, count(t.label) > 0 AS lacks,
    count(t.label) FILTER (t.label = m.label_type) > 0 AS right_type
FROM missing_labels m LEFT JOIN truth t USING ({WORD_COLUMNS})
GROUP BY {qualified("m", WORD_KEY)}, m.score, m.is_missing
ORDER BY ALL
"""


@dataclass(frozen=True)
class Evaluation:
    """Quality over all labels, per label type and per size of merchant.

    Attributes:
        truth_file: name of the truth file; `truth_sha256`: hash of its content.
        overall: over all labels.
        per_label_type, per_merchant_size: over those of each.
        reliability: stated and true shares of wrong labels.
        curves: points of curves, for plots.
        missing: of the labels that the truth file says are missing; None if it names none.
        unmatched: labels of the truth file that are not in the home.
        without_truth: labels of the home that the truth file does not name; no figure counts them.
        doubled: rows of the truth file that say again what another row says; they count once.
        contradicting: rows of the truth file about labels of which it says different things; they
            do not count.
    """

    truth_file: str
    truth_sha256: str
    overall: Quality
    per_label_type: dict[str, Quality]
    per_merchant_size: dict[str, Quality]
    reliability: list[ReliabilityBin]
    curves: Curves
    missing: MissingQuality | None
    unmatched: int
    without_truth: int
    doubled: int
    contradicting: int

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain data, ready for JSON."""
        return asdict(self)


def evaluate(warehouse: Warehouse, truth: Path) -> Evaluation:
    """Compare `label_decisions` with a truth file.

    Args:
        warehouse: holds the decisions.
        truth: a file, see `read_truth`.

    Raises:
        InputError: the file cannot be read, lacks a column, holds a value of the wrong type, or
            names no label that has been decided.
    """
    known = read_truth(truth)
    rows, labels = warehouse.read(
        lambda con: (
            con.register("truth", known.rows).execute(_JOINED).to_arrow_table(),
            con.execute("SELECT count(*) FROM labels").fetchall()[0][0],
        )
    )
    if rows.num_rows == 0:
        raise InputError(
            f"{truth}: none of its {known.read} rows names a label in this home, without "
            "contradicting another; check --home and that the labels have been run"
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
        missing=_missing(warehouse, known.missing),
        unmatched=known.rows.num_rows - rows.num_rows,
        without_truth=labels - rows.num_rows,
        doubled=known.doubled,
        contradicting=known.contradicting,
    )


def _missing(warehouse: Warehouse, truth: pa.Table) -> MissingQuality | None:
    if truth.num_rows == 0:
        return None
    rows = warehouse.read(
        lambda con: con.register("truth", truth).execute(_PROPOSED).to_arrow_table()
    )
    words = truth.group_by(list(WORD_KEY)).aggregate([])

    def mask(name: str) -> npt.NDArray[np.bool_]:
        return np.asarray(rows[name].to_numpy(), dtype=bool)

    return measure_missing(
        rows["score"].to_numpy(), mask("lacks"), mask("right_type"), mask("decided"), words.num_rows
    )


def figures(quality: Quality) -> dict[str, float | int]:
    """Return the figures of a quality that are known, rounded."""
    return {name: value for name, value in rounded(asdict(quality)).items() if value is not None}


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
        asked=triage == "ambiguous",
        validated=objects("validation_status") == Status.VALID,
        true_label=objects("true_label"),
        suggested=objects("suggested_label"),
    )


def _sizes(receipts: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
    """Return the class of each label's merchant by its receipts."""
    most = [limit for _, limit in MERCHANT_SIZES if limit is not None]
    names = np.array([name for name, _ in MERCHANT_SIZES], dtype=object)
    return np.asarray(names[np.searchsorted(most, receipts)])
