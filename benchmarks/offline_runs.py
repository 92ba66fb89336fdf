"""Runs of the offline pipeline on labels with known errors, for the benchmarks of quality."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import ScorerName, Settings
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.measure.evaluation import Evaluation, evaluate
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions

OFFLINE = RunOptions(judge="offline")


@dataclass(frozen=True)
class Data:
    """Files with known errors; without a taxonomy the label types are the default ones."""

    words: Path
    labels: Path
    truth: Path
    taxonomy: Path | None = None

    @classmethod
    def of(cls, folder: Path, taxonomy: Path | None = None) -> Data:
        words, labels, truth = (folder / f"{name}.parquet" for name in ("words", "labels", "truth"))
        own = folder / "taxonomy.yaml"
        return cls(words, labels, truth, own if own.exists() else taxonomy)

    def pending(self, folder: Path) -> Data:
        """The same with every status PENDING."""
        table = pq.read_table(self.labels)
        at = table.column_names.index("validation_status")
        statuses = pa.array(["PENDING"] * table.num_rows)
        folder.mkdir(parents=True)
        pq.write_table(
            table.set_column(at, "validation_status", statuses), folder / "labels.parquet"
        )
        return Data(self.words, folder / "labels.parquet", self.truth, self.taxonomy)

    def clean(self, folder: Path) -> tuple[Path, Path]:
        """Words, and the labels as the truth says they should be, or as they are without one."""
        if not self.truth.exists():
            return self.words, self.labels
        con = duckdb.connect()
        con.register("labels", pq.read_table(self.labels))
        con.register("truth", pq.read_table(self.truth))
        right = con.execute(
            """
            SELECT DISTINCT ON (image_id, receipt_id, line_id, word_id, true_label)
                l.* REPLACE (t.true_label AS label)
            FROM labels l JOIN truth t USING (image_id, receipt_id, line_id, word_id, label)
            WHERE t.true_label IS NOT NULL
            ORDER BY ALL
            """
        ).to_arrow_table()
        folder.mkdir(parents=True)
        pq.write_table(right, folder / "labels.parquet")
        return self.words, folder / "labels.parquet"


@dataclass(frozen=True)
class Run:
    """One run of the offline pipeline: its quality, and seconds to fit and to score."""

    evaluation: Evaluation
    seconds: float
    guarantee: str


def prepared(data: Data, home: Path, scorer: ScorerName = "model") -> Pipeline:
    """A home with the data ingested and indexed."""
    settings = Settings.model_validate({"similarity": {"scorer": scorer}})
    made = Home(home).ensure()
    if data.taxonomy is not None:
        shutil.copy(data.taxonomy, made.taxonomy)
    pipeline = Pipeline(made, settings)
    submit_batch(pipeline.home, data.words, data.labels)
    pipeline.ingest()
    pipeline.index()
    return pipeline


def run(data: Data, home: Path, scorer: ScorerName = "model") -> Run:
    pipeline = prepared(data, home, scorer)
    began = time.perf_counter()
    pipeline.score.fit(OFFLINE)
    partitions = pipeline.stale(OFFLINE)
    list(pipeline.score.run(partitions, OFFLINE))
    seconds = time.perf_counter() - began
    pipeline.harmonize(OFFLINE, partitions=partitions, assets=["llm_verdicts", "outliers"])
    return Run(evaluate(pipeline.warehouse, data.truth), seconds, pipeline.score.guarantee())


def show(name: str, done: Run) -> dict[str, Any]:
    """Print one line of figures; the same as data."""
    overall = done.evaluation.overall
    print(
        f"{name:<34} AUPRC {_shown(overall.auprc, 4)}  P {_shown(overall.precision)}  "
        f"R {_shown(overall.recall)}  F1 {_shown(overall.f1)} of {_shown(overall.best_f1)}  "
        f"suggestion {_shown(overall.suggestion_accuracy)}  ECE {_shown(overall.ece, 4)}  "
        f"asked {_shown(overall.asked_share)}  accepted wrong "
        f"{_shown(overall.accepted_wrong_share, 4)}  rejected right "
        f"{_shown(overall.rejected_right_share, 4)}  {done.seconds:.1f} s",
        flush=True,
    )
    missing = done.evaluation.missing
    if missing is not None:
        print(
            f"  missing labels: AP {_shown(missing.average_precision, 4)}  P "
            f"{_shown(missing.precision)}  R {_shown(missing.recall)}  right type "
            f"{_shown(missing.right_type)}  listed {missing.listed}  flagged {overall.flagged}",
            flush=True,
        )
    figures = {"name": name, "seconds": done.seconds, **asdict(overall)}
    return figures | {"missing_labels": None if missing is None else asdict(missing)}


def _shown(value: float | None, decimals: int = 3) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
