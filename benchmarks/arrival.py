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
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb

from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.ingest import submit_batch
from harmonizer_assets.core.sample_data import SampleSpec, write_samples

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
    command = [sys.executable, "-m", "harmonizer_assets.cli", "--home", str(home.root)]
    subprocess.run([*command, "run"], check=True, stdout=subprocess.DEVNULL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "ui.log").open("w")
    ui = subprocess.Popen(
        [*command, "ui", "--port", str(port)], stdout=log, stderr=log, start_new_session=True
    )
    try:
        _wait(lambda: _answers(port))
        seconds = []
        for number in range(times):
            before = Harmonizer(home).counts().labels
            _drop(home, folder / f"arrival-{number}", labels, seed=100 + number)
            began = time.monotonic()
            _wait(partial(_published_more_than, home, before))
            seconds.append(round(time.monotonic() - began, 1))
            _wait(lambda: not Harmonizer(home).stale_partitions("offline"))
    finally:
        os.killpg(ui.pid, signal.SIGTERM)
        ui.wait(timeout=60)
        log.close()
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


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=2).close()
    except OSError:
        return False
    return True


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("nothing happened for five minutes")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
