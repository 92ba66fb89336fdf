"""What units cost and how they scale over the processes of one machine.

    python -m benchmarks.units                          # 100,000 labels, everything
    python -m benchmarks.units --labels 20000 --parts padded

`where` says where the time of scoring goes, in seconds of the processor. `stage` scores all labels,
by the run itself and in 1 and 2 processes, with the similar words found by Chroma's index, as such
a home does by default, and exactly. `units` cuts all units first and measures their computation
alone, from the first that is handed out to the last result, with processes that have loaded their
libraries. `padded` has each unit sleep as well, so that it does not depend on the cores: the
efficiency of 1, 2, 4 and 8 processes. `overhead` is what a unit costs besides its computation.
`kills` scores through RabbitMQ and Redis while workers are killed, the broker is paused for half a
minute, and the run is killed, and compares the tables; a minute or two for each broker, with
`--labels 20000`. `tables` scores all labels with every executor and compares the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pipeline import Stopwatch, Times, make_receipts, now
from benchmarks.unit_kills import measure_kills, opened
from benchmarks.unit_tables import measure_tables
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.index.vectors import IndexSession
from harmonizer_assets.core.ingest import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.score import similar_words
from harmonizer_assets.core.score.rows import Scorer
from harmonizer_assets.core.score.stage import ChunkInput, SimilarityScorer
from harmonizer_assets.core.stages.run import LABELS_PER_CHUNK, StageRun
from harmonizer_assets.core.stages.state import label_counts
from harmonizer_assets.core.store.warehouse import Warehouse
from harmonizer_assets.core.units.cut import Cutter, batches, unit_chunks
from harmonizer_assets.core.units.executors.processes import ProcessExecutor
from harmonizer_assets.core.units.spread import unit_store
from harmonizer_assets.core.units.store import UnitStore
from harmonizer_assets.core.units.unit import Bundle
from harmonizer_tests.support.units import Poison, poisoned_by

PARTS = ("where", "stage", "units", "padded", "overhead", "kills", "tables")
ATTEMPTS, SECONDS = 3, 600.0
PADDED_UNITS = 64
READING, COMMITTING = "cut: read the tables", "commit: write the tables"
AGAIN = RunOptions(run_id="benchmark", refresh=True)


def make_home(options: argparse.Namespace, folder: Path) -> Home:
    """Make a home whose labels are indexed and a model is fitted."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples").mkdir()
    home = Home(folder / "home").ensure()
    submit_batch(home, *make_receipts(options.labels, options, folder / "samples"))
    pipeline = Pipeline(home)
    pipeline.ingest()
    pipeline.index()
    pipeline.score.fit(RunOptions())
    return home


def score_all(pipeline: Pipeline) -> float:
    """Score all labels; return the seconds."""
    partitions = pipeline.partitions.held()
    began = time.perf_counter()
    results = list(pipeline.score.run(partitions, AGAIN))
    assert all(result.changed for result in results)
    return time.perf_counter() - began


def measure_stage(home: Home, *, exact: bool) -> dict[str, float]:
    measured = {"inline": score_all(opened(home, exact=exact))}
    for processes in (1, 2):
        pipeline = opened(home, exact=exact, executor="processes", processes=processes)
        measured[f"{processes} processes"] = score_all(pipeline)
    return measured


def measure_where(home: Home, *, exact: bool) -> dict[str, float]:
    """Measure the parts of scoring in the run's own process, in seconds of the processor."""
    watch = Stopwatch()
    for name in ("nearest", "vectors"):
        watch.measure(IndexSession, name, "Chroma")
    watch.measure(similar_words, "gather_votes", "votes")
    watch.measure(Scorer, "rows", "features and scores")
    watch.measure(SimilarityScorer, "read", "reading")
    watch.measure(Warehouse, "write", "writing")
    began = now()
    score_all(opened(home, exact=exact))
    whole = now() - began
    watch.stop()
    parts = {part: float(took[1]) for part, took in watch.seconds.items()}
    return {"whole": float(whole[1]), **parts}


def cut_all(pipeline: Pipeline, labels_per_unit: int) -> tuple[UnitStore, list[str]]:
    """Cut all units of a home, without handing any out."""
    stage = pipeline.score
    partitions = pipeline.partitions.held()
    run = StageRun(pipeline.warehouse, stage.definition(), partitions, AGAIN)
    scorer = SimilarityScorer(
        pipeline.warehouse, stage.similar_words(), stage._scorer(*stage.fit(AGAIN))
    )
    store = unit_store(pipeline.settings.units, pipeline.home)
    cutter = Cutter(store, scorer)
    chunks = unit_chunks(run.stale, run.labels, labels_per_unit)
    largest_first = sorted(chunks, key=lambda chunk: -sum(chunk.labels.values()))
    cut = [unit for _, unit in cutter.cut(batches(largest_first, LABELS_PER_CHUNK))]
    return store, [unit.name for unit in cut if unit is not None]


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def compute_all(store: UnitStore, units: list[str], processes: int) -> Times:
    """Compute units that are cut, with processes that are warm.

    Returns:
        The seconds, and those of the processor in all processes, the loading of libraries included.
    """
    forget = [f"results/{unit}.parquet" for unit in units]
    forget += [name for folder in ("attempts/", "errors/") for name in store.objects.list(folder)]
    store.objects.delete(forget)
    before = children_seconds()
    with ProcessExecutor(store, processes, ATTEMPTS, SECONDS) as executor:
        for handler in executor._handlers:
            handler._started()
        began = time.perf_counter()
        for unit in units:
            executor.submit(unit)
        left = set(units)
        while left:
            left.difference_update(executor.finished(left, 60.0))
        took = time.perf_counter() - began
    assert set(store.finished(units)) == set(units)
    assert not store.dead_letters()
    return np.array([took, children_seconds() - before])


def children_seconds() -> float:
    """Return the seconds of the processor of processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_units(home: Home, *, exact: bool) -> dict[str, Any]:
    pipeline = opened(home, exact=exact)
    began = time.perf_counter()
    store, units = cut_all(pipeline, pipeline.settings.units.labels_per_unit)
    cutting = time.perf_counter() - began
    size = sum(len(store.bundle(unit)) for unit in units)
    compute_all(store, units[:2], 2)
    one, two = (compute_all(store, units, processes) for processes in (1, 2))
    store.remove(units)
    return {
        "units": len(units),
        "megabytes": size / 1e6,
        "cutting": cutting,
        "1 process": float(one[0]),
        "2 processes": float(two[0]),
        "speed-up": float(one[0] / two[0]),
        "of the processor, 1 process": float(one[1]),
        "of the processor, 2 processes": float(two[1]),
    }


def measure_padded(home: Home, pad: float, labels_per_unit: int) -> list[dict[str, float]]:
    """Measure the first units with a sleep; efficiency is against one process."""
    store, units = cut_all(opened(home, exact=True), labels_per_unit)
    # Those that take next to nothing but the sleep.
    units = units[-PADDED_UNITS:]
    seconds = {}
    with environment(poisoned_by(Poison("sleep", seconds=pad))):
        for processes in (1, 2, 4, 8):
            seconds[processes] = float(compute_all(store, units, processes)[0])
    return [
        {
            "processes": processes,
            "seconds": took,
            "of ideal": seconds[1] / processes / took,
            "of the sleep alone": pad * len(units) / processes / took,
        }
        for processes, took in seconds.items()
    ]


def measure_overhead(home: Home, labels_per_unit: int) -> dict[str, Any]:
    """Measure the parts of handing a unit out and getting it back, in milliseconds per unit.

    All that the run's own process does for a unit is counted, the reading of tables and the
    transactions that write them as well; beside it stands what of that a run does that scores by
    itself.
    """
    watch = Stopwatch()
    watch.measure(Cutter, "_named", "cut: find what it needs")
    watch.measure(Cutter, "_similar_words", "cut: find what it needs")
    watch.measure(ChunkInput, "split", "cut: find what it needs")
    watch.measure(SimilarityScorer, "read", READING)
    watch.measure(Bundle, "to_bytes", "cut: make the bundle")
    watch.measure(Cutter, "_stored", "send: wait until it is written")
    watch.measure(ProcessExecutor, "submit", "send: hand out")
    watch.measure(UnitStore, "result", "fetch: read the result")
    watch.measure(StageRun, "_committed", COMMITTING)
    watch.measure(UnitStore, "remove", "commit: remove the unit")
    pipeline = opened(
        home, exact=True, executor="processes", processes=1, labels_per_unit=labels_per_unit
    )
    counts = pipeline.warehouse.read(label_counts)
    stale = sorted(counts, key=lambda partition: (partition.merchant_key, partition))
    units = len(list(unit_chunks(stale, counts, labels_per_unit)))
    score_all(pipeline)
    watch.stop()
    by_itself = Stopwatch()
    by_itself.measure(SimilarityScorer, "read", READING)
    by_itself.measure(StageRun, "_committed", COMMITTING)
    score_all(opened(home, exact=True))
    by_itself.stop()
    parts = {part: 1000 * took / units for part, took in watch.seconds.items()}
    alone = 1000 * np.sum([*by_itself.seconds.values()], axis=0) / units
    whole = np.sum([*parts.values()], axis=0)
    return {
        "units": units,
        **{part: float(took[0]) for part, took in parts.items()},
        "all of it": float(whole[0]),
        "of a run that scores by itself": float(alone[0]),
        "all of it, of the processor": float(whole[1]),
        "of a run that scores by itself, of the processor": float(alone[1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--merchants", type=int)
    parser.add_argument("--text", choices=("samples", "real"), default="samples")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--pad", type=float, default=1.0, help="seconds that a padded unit sleeps")
    parser.add_argument("--padded-labels", type=int, default=100, help="labels of a padded unit")
    parser.add_argument("--overhead-labels", type=int, nargs="+", default=[100, 5_000])
    parser.add_argument("--folder", type=Path, help="keep the home here, and use it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harmonizer-bench-") as scratch:
        folder = options.folder or Path(scratch)
        made = (folder / "home").exists()
        home = Home(folder / "home") if made else make_home(options, folder)
        for part in options.parts.split(","):
            for line in measure(part, home, options):
                print(json.dumps({"part": part, **rounded(line)}), flush=True)


def measure(part: str, home: Home, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if part in ("kills", "tables"):
        compared = {"kills": measure_kills, "tables": measure_tables}[part]
        with tempfile.TemporaryDirectory(prefix="harmonizer-bench-") as folder:
            yield from compared(home, Path(folder))
    elif part == "padded":
        yield from measure_padded(home, options.pad, options.padded_labels)
    elif part == "overhead":
        for labels_per_unit in options.overhead_labels:
            yield {"labels per unit": labels_per_unit, **measure_overhead(home, labels_per_unit)}
    else:
        measurement = {"where": measure_where, "stage": measure_stage, "units": measure_units}[part]
        for exact in (False, True):
            yield {"search": "exact" if exact else "index", **measurement(home, exact=exact)}


def rounded(line: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}


if __name__ == "__main__":
    main()
