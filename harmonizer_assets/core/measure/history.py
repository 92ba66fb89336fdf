"""Quality history: the figures of each evaluation, kept so that runs can be compared."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from harmonizer_assets.core.base.clock import utc_now
from harmonizer_assets.core.measure.evaluation import Evaluation, evaluate
from harmonizer_assets.core.measure.metrics import rounded
from harmonizer_assets.core.store.numbers import next_number, oldest_first
from harmonizer_assets.core.store.warehouse import Warehouse

_log = logging.getLogger(__name__)


def record(warehouse: Warehouse, evaluation: Evaluation, run_id: str) -> None:
    """Add an evaluation to the table `quality_history`."""
    common = {
        "evaluated_at": utc_now(),
        "run_id": run_id,
        "truth_file": evaluation.truth_file,
        "truth_sha256": evaluation.truth_sha256,
    }
    groups = [(None, evaluation.overall), *evaluation.per_label_type.items()]
    rows = pa.Table.from_pylist(
        [
            {**common, "label_type": label_type, **rounded(asdict(quality))}
            for label_type, quality in groups
        ]
    )

    def write(con: duckdb.DuckDBPyConnection) -> None:
        con.register("evaluated", rows)
        con.execute(
            "INSERT INTO quality_history BY NAME "
            f"SELECT *, {next_number('quality_history')} AS number FROM evaluated"
        )

    warehouse.write(write)
    _log.info(
        "recorded an evaluation against %s: %d labels, %d of %d wrong ones found",
        evaluation.truth_file,
        evaluation.overall.labels,
        evaluation.overall.found,
        evaluation.overall.errors,
    )


def record_evaluation(warehouse: Warehouse, truth: Path, *, run_id: str = "") -> Evaluation:
    """Compare what was decided with a truth file, and keep the figures in `quality_history`.

    Raises:
        InputError: the truth file is not usable.
    """
    evaluation = evaluate(warehouse, truth)
    record(warehouse, evaluation, run_id)
    return evaluation


def read(warehouse: Warehouse, truth_sha256: str) -> list[dict[str, Any]]:
    """Read the figures over all labels of each evaluation against one truth, oldest first."""
    return warehouse.query(
        "SELECT * FROM quality_history WHERE truth_sha256 = $truth AND label_type IS NULL "
        f"ORDER BY {oldest_first('evaluated_at')}",
        {"truth": truth_sha256},
    ).to_pylist()
