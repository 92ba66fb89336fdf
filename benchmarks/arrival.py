"""Measure how long a dropped file takes to become fresh outliers, with the daemon running.

    python -m benchmarks.arrival [--labels 100] [--present 10000]

A home with `present` labels is served by `harmonizer ui`; then a batch of new ones is put into its
inbox, as any program may do. The clock runs from the rename that makes the batch visible until its
decisions are in the read-only copy of the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import duckdb

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.measure.samples.receipts import SampleSpec, write_samples
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_tests.support.served import Served, wait_for

OFFLINE = RunOptions(judge="offline")
PATIENCE_SECONDS = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--labels", type=int, default=100, help="labels that arrive")
    parser.add_argument("--present", type=int, default=10_000, help="labels that are there")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harmonizer-arrival-") as folder:
        print(json.dumps(measure(Path(folder), options.labels, options.present, options.times)))


def measure(folder: Path, labels: int, present: int, times: int) -> dict[str, object]:
    """Seconds from arrival to outliers, several times in one home."""
    home = Home(folder / "home").ensure()
    _drop(home, folder / "present", present, seed=1)
    os.environ["HARMONIZER_HOME"] = str(home.root)
    command = [sys.executable, "-m", "harmonizer_assets.cli", "--home", str(home.root), "run"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    served = Served(home, folder / "ui.log")
    try:
        served.start()
        seconds = []
        for number in range(times):
            before = Pipeline(home).tables.counts().labels
            _drop(home, folder / f"arrival-{number}", labels, seed=100 + number)
            began = time.monotonic()
            wait_for(partial(_published_more_than, home, before), PATIENCE_SECONDS)
            seconds.append(round(time.monotonic() - began, 1))
            wait_for(lambda: not Pipeline(home).stale(OFFLINE), PATIENCE_SECONDS)
    finally:
        served.stop()
    return {"labels": labels, "present": present, "seconds": seconds}


def _drop(home: Home, folder: Path, labels: int, seed: int) -> None:
    folder.mkdir()
    made = write_samples(SampleSpec(labels=max(labels, 200), seed=seed), folder)
    if labels >= 200:
        submit_batch(home, made.words, made.labels)
        return
    con = duckdb.connect()
    few = folder / "few.parquet"
    con.execute(
        f"COPY (SELECT * FROM '{made.labels}' ORDER BY image_id, line_id, word_id LIMIT {labels}) "
        f"TO '{few}'"
    )
    submit_batch(home, made.words, few)


def _published_more_than(home: Home, labels: int) -> bool:
    """Whether the copy that people read has decisions on more labels than these."""
    with duckdb.connect(home.snapshot, read_only=True) as con:
        rows = con.execute(
            "SELECT count(*) FROM label_decisions WHERE outlier_score IS NOT NULL"
        ).fetchall()
    return int(rows[0][0]) > labels


if __name__ == "__main__":
    main()
