"""Asking a person: what validated labels teach, by the validation queue against random choice.

The truth plays the person: a right label that is asked about becomes VALID, a wrong one INVALID.
Half of the receipts are asked about, and everything is measured on the others, which nobody looks
at; so nothing is gained by asking about the very labels that are measured. The queue is ranked and
the model fitted anew at every step.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.offline_runs import OFFLINE, Data, prepared
from harmonizer_assets.core.decide.validation_queue import rank_for_validation
from harmonizer_assets.core.measure.evaluation import evaluate
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LabelKey, label_keys

Choice = Literal["queue", "random"]

STEPS: Final = (0, 50, 100, 300, 1_000)

_VALIDATE: Final = f"""
UPDATE labels SET validation_status = CASE WHEN a.is_error THEN 'INVALID' ELSE 'VALID' END
FROM answers a
WHERE {" AND ".join(f"labels.{name} = a.{name}" for name in LABEL_COLUMNS.split(", "))}
"""


def asking_curve(
    data: Data, choice: Choice, seed: int, folder: Path, steps: Sequence[int] = STEPS
) -> Iterator[dict[str, Any]]:
    """Measure after each number of answers, on the receipts that nobody is asked about."""
    pipeline = prepared(data, folder)
    truth = pq.read_table(data.truth)
    asked_about = np.array([is_asked(key) for key in label_keys(truth)], dtype=bool)
    measured = folder / "measured.parquet"
    pq.write_table(truth.filter(pa.array(~asked_about)), measured)
    open_ = truth.filter(pa.array(asked_about))
    wrong = dict(zip(label_keys(open_), open_["is_error"].to_pylist(), strict=True))
    answered: set[LabelKey] = set()
    for step in steps:
        answer(
            pipeline, choose(pipeline, choice, seed, wrong, answered, step - len(answered)), wrong
        )
        pipeline.score.fit(OFFLINE, refit=True)
        pipeline.harmonize(OFFLINE)
        quality = evaluate(pipeline.warehouse, measured).overall
        yield {
            "choice": choice,
            "answers": step,
            "wrong_found": sum(wrong[key] for key in answered),
            "auprc": quality.auprc,
            "ece": quality.ece,
            "f1": quality.f1,
            "accepted_wrong": quality.accepted_wrong_share,
            "guarantee": pipeline.score.guarantee(),
        }


def is_asked(key: LabelKey) -> bool:
    """Return whether a label's receipt is one that the person is asked about."""
    return zlib.crc32(f"{key.image_id}/{key.receipt_id}".encode()) % 2 == 0


def choose(
    pipeline: Pipeline,
    choice: Choice,
    seed: int,
    open_: dict[LabelKey, bool],
    answered: set[LabelKey],
    count: int,
) -> list[LabelKey]:
    """Choose the labels that are asked about next, and count them as answered."""
    if choice == "queue":
        ranked = pipeline.warehouse.read(lambda con: rank_for_validation(con, None))
        order = list(label_keys(ranked))
    else:
        keys = sorted(open_)
        order = [keys[at] for at in np.random.RandomState(seed).permutation(len(keys)).tolist()]
    chosen = [key for key in order if key in open_ and key not in answered][:count]
    answered.update(chosen)
    return chosen


def answer(pipeline: Pipeline, chosen: Sequence[LabelKey], wrong: dict[LabelKey, bool]) -> None:
    """Give the labels the status that the truth says."""
    if chosen:
        rows = [{**key._asdict(), "is_error": wrong[key]} for key in chosen]
        answers = pa.Table.from_pylist(rows)
        pipeline.warehouse.write(lambda con: con.register("answers", answers).execute(_VALIDATE))


def show_step(row: dict[str, Any]) -> None:
    print(
        f"{row['choice']:<7} {row['answers']:>5} answers, {row['wrong_found']:>4} of them wrong: "
        f"AUPRC {row['auprc']:.4f}  F1 {row['f1'] or 0:.3f}  ECE {row['ece']:.4f}  accepted wrong "
        f"{row['accepted_wrong'] or 0:.4f}  {row['guarantee']}",
        flush=True,
    )
