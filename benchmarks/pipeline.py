"""How fast the pipeline is without a language model, and where the time goes.

Each size runs in a process and a home of its own, through Dagster like `harmonizer run`:

    python -m benchmarks.pipeline --sizes 10000,100000,300000
    python -m benchmarks.pipeline --sizes 100000 --text real --merchants 1
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isgenerator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.real_text import write_real_text
from harmonizer_assets.core.measure.samples.receipts import SampleSpec, write_samples

Times = npt.NDArray[np.float64]

_END: Final = object()

LABELS_PER_MERCHANT = 100
COLUMNS = (
    "labels",
    "merchants",
    "partitions",
    "documents",
    "seconds",
    "cpu_seconds",
    "ms_per_label",
    "peak_mb",
    "second_run_seconds",
)
PARTS = (
    "ingest",
    "documents",
    "embedding",
    "index",
    "fitting",
    "similarity",
    "scoring",
    "explaining",
    "duckdb",
    "dagster",
    "other",
)


class Stopwatch:
    """Adds up the time in named parts; a part inside another counts for itself only.

    Times are pairs: seconds, and seconds of the processor in all threads.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, Times] = defaultdict(lambda: np.zeros(2))
        self._inner: list[Times] = []
        self._measured: list[tuple[Any, str, Callable[..., Any]]] = []

    def measure(self, owner: Any, name: str, part: str) -> None:
        """Measure a function or method from now on; of a generator, what it does for each item."""
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self._counted(part):
                found = function(*args, **kwargs)
            return self._items(found, part) if isgenerator(found) else found

        self._measured.append((owner, name, function))
        setattr(owner, name, measured)

    def _items(self, items: Iterator[Any], part: str) -> Iterator[Any]:
        while True:
            with self._counted(part):
                item = next(items, _END)
            if item is _END:
                return
            yield item

    @contextmanager
    def _counted(self, part: str) -> Iterator[None]:
        began = now()
        self._inner.append(np.zeros(2))
        try:
            yield
        finally:
            took = now() - began
            self.seconds[part] += took - self._inner.pop()
            if self._inner:
                self._inner[-1] += took

    def stop(self) -> None:
        """Measure nothing any more."""
        while self._measured:
            setattr(*self._measured.pop())


def now() -> Times:
    """Return the time, and the processor's time of this process so far: user and system."""
    return np.array([time.perf_counter(), time.process_time()])


def make_receipts(labels: int, options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Make words and labels: samples, or texts that repeat as seldom as real ones."""
    merchants = options.merchants
    if merchants is None:
        merchants = max(1, labels // LABELS_PER_MERCHANT)
    if options.text == "real":
        return write_real_text(folder, labels, merchants, options.seed)
    spec = SampleSpec(labels=labels, merchants=merchants, seed=options.seed)
    samples = write_samples(spec, folder)
    return samples.words, samples.labels


def measure_size(labels: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run one size in this process."""
    home = options.home
    os.environ["HARMONIZER_HOME"] = str(home)
    from dagster import DagsterInstance

    from harmonizer_assets.cli import runs
    from harmonizer_assets.core.base.home import Home
    from harmonizer_assets.core.decide import stage as outliers
    from harmonizer_assets.core.index import stage as indexing
    from harmonizer_assets.core.index import vectors as vector_index
    from harmonizer_assets.core.index.embedders import LocalEmbedder
    from harmonizer_assets.core.ingest import Ingest, submit_batch
    from harmonizer_assets.core.records.options import RunOptions
    from harmonizer_assets.core.score import registry as models
    from harmonizer_assets.core.score import similar_words
    from harmonizer_assets.core.score import stage as similarity
    from harmonizer_assets.core.store.warehouse import Warehouse
    from harmonizer_assets.dagster_compat.event_log import BatchingEventLogStorage

    folder = home.parent / "samples"
    folder.mkdir()
    files = make_receipts(labels, options, folder)

    watch = Stopwatch()
    watch.measure(Ingest, "ingest", "ingest")
    watch.measure(indexing, "build_documents", "documents")
    watch.measure(LocalEmbedder, "embed", "embedding")
    for name in ("add", "update_metadata", "vectors", "nearest", "ids"):
        watch.measure(vector_index.IndexSession, name, "index")
    watch.measure(models, "fit_model", "fitting")
    watch.measure(similar_words, "gather_votes", "similarity")
    watch.measure(similarity.SimilarityScorer, "score", "scoring")
    watch.measure(outliers.OutlierPublishing, "_explained", "explaining")
    for name in ("_transaction", "copy_to"):
        watch.measure(Warehouse, name, "duckdb")
    for name in ("report_dagster_event", "handle_new_event", "add_dynamic_partitions"):
        watch.measure(DagsterInstance, name, "dagster")
    watch.measure(BatchingEventLogStorage, "store_event_batch", "dagster")

    opened = Home(home).ensure()
    offline = RunOptions(judge="offline")
    began = now()
    submit_batch(opened, *files)
    outcome = runs.run_pipeline(opened, offline, log_level="CRITICAL")
    whole = now() - began
    seconds, cpu_seconds = float(whole[0]), float(whole[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parts = {part: watch.seconds[part].copy() for part in PARTS[:-1]}
    parts["other"] = whole - np.sum(list(parts.values()), axis=0)
    second_began = time.perf_counter()
    submit_batch(opened, *files)
    again = runs.run_pipeline(opened, offline, log_level="CRITICAL")
    second_run = time.perf_counter() - second_began
    assert again.unchanged, "the second run changed something"
    counts = outcome.counts
    assert counts.labels == counts.valid + counts.outliers + counts.unresolved
    return {
        "labels": counts.labels,
        "merchants": counts.merchants,
        "partitions": counts.partitions,
        "documents": outcome.embedded,
        "seconds": round(seconds, 1),
        "ms_per_label": round(1000 * seconds / counts.labels, 3),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_mb": peak // 1024,
        "second_run_seconds": round(second_run, 1),
        "parts": {part: np.round(times, 1).tolist() for part, times in parts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="10000,100000,300000")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--text",
        choices=("samples", "real"),
        default="samples",
        help="receipts that repeat themselves, or texts of which 72 %% are unique, as on real ones",
    )
    parser.add_argument(
        "--merchants", type=int, help="how many, 0 for labels without any [one per 100 labels]"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_size(options.one, options)))
        return
    results = []
    for size in (int(text) for text in options.sizes.split(",")):
        folder = Path(tempfile.mkdtemp(prefix="harmonizer-bench-"))
        try:
            command = [sys.executable, "-m", "benchmarks.pipeline", *sys.argv[1:]]
            done = subprocess.run(
                [*command, "--one", str(size), "--home", str(folder / "home")],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(results[-1]), flush=True)
    print("\n" + "".join(f"{name:>19}" for name in COLUMNS))
    for result in results:
        print("".join(f"{result[name]:>19,}" for name in COLUMNS))
    print("\nseconds in each part, and below them those of the processor")
    print(" " * 10 + "".join(f"{part:>12}" for part in PARTS))
    for result in results:
        for at, name in enumerate((f"{result['labels']:,}", "")):
            times = (f"{result['parts'][part][at]:>12,.1f}" for part in PARTS)
            print(f"{name:>10}" + "".join(times))
    if len(results) > 1:
        growth = results[-1]["ms_per_label"] / results[0]["ms_per_label"]
        print(f"\ncost per label, largest against smallest: {growth:.2f}x")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
