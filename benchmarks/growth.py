"""Measure how a home grows with daily arrivals, as the retention settings keep it.

    python -m benchmarks.growth [--arrivals 100] [--labels 100] [--present 1000]

With `--present`, the home holds so many labels from the first arrival on, and each of the others
changes the status of some of them; without, each arrival brings new labels.

Every arrival is a batch, a run of the whole pipeline as `harmonizer run` makes it, and a pruning.
After each, whatever the home keeps with a date is made a day older, so that a hundred days pass in
minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import duckdb

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.base.written_reports import written_reports
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.measure.samples.receipts import SampleSpec, write_samples
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.defs.pruning import prune

OFFLINE: Final = RunOptions(judge="offline")
MERCHANTS: Final = 10
DAY: Final = 86_400.0
_TIMES: Final = ("create_timestamp", "update_timestamp")
_SECONDS: Final = ("start_time", "end_time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--arrivals", type=int, default=100)
    parser.add_argument("--labels", type=int, default=100, help="labels of each arrival")
    parser.add_argument("--present", type=int, help="labels of the first arrival, changed later")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harmonizer-growth-") as folder:
        home = Home(Path(folder) / "home").ensure()
        os.environ["HARMONIZER_HOME"] = str(home.root)
        first = 0.0
        counts = options.arrivals, options.labels
        if options.present:
            arrivals = _changes(Path(folder), *counts, options.present)
        else:
            arrivals = _arrivals(Path(folder), *counts)
        for number, (words, labels) in enumerate(arrivals, start=1):
            submit_batch(home, words, labels)
            run_pipeline(home, OFFLINE, log_level="CRITICAL")
            with open_instance(home) as instance:
                prune(home, instance, Settings.load(home.settings_file))
            _age(home)
            parts = _megabytes(home.root)
            first = first or sum(parts.values())
            shown = {name: round(size, 1) for name, size in parts.items() if size >= 0.05}
            total = sum(parts.values())
            print(
                json.dumps(
                    {"arrivals": number, "MB": round(total, 1), "times": round(total / first, 2)}
                    | shown
                ),
                flush=True,
            )


def _changes(
    folder: Path, count: int, labels: int, present: int
) -> Iterator[tuple[Path | None, Path]]:
    """Write one batch of all labels, and others that change the status of so many of them."""
    made = write_samples(
        SampleSpec(labels=present, merchants=MERCHANTS, seed=7), _made(folder / "samples")
    )
    yield made.words, made.labels
    con = duckdb.connect()
    for day in range(1, count):
        file = folder / f"labels-{day}.parquet"
        con.execute(
            "COPY (SELECT * REPLACE (CASE validation_status WHEN 'VALID' THEN 'PENDING' ELSE "
            f"'VALID' END AS validation_status) FROM '{made.labels}' "
            f"ORDER BY hash(image_id, line_id, word_id, {day}) LIMIT {labels}) TO '{file}'"
        )
        yield None, file


def _arrivals(folder: Path, count: int, labels: int) -> Iterator[tuple[Path | None, Path]]:
    """Write batches of about so many labels each, of whole receipts of the same merchants."""
    made = write_samples(
        SampleSpec(labels=count * labels, merchants=MERCHANTS, seed=7), _made(folder / "samples")
    )
    con = duckdb.connect()
    con.execute(
        "CREATE TABLE days AS SELECT image_id, (sum(count(*)) OVER (ORDER BY hash(image_id)) "
        f"* {count} // (1 + sum(count(*)) OVER ())) AS day FROM '{made.labels}' GROUP BY image_id"
    )
    for day in range(count):
        files = []
        for source in (made.words, made.labels):
            files.append(_made(folder / f"day-{day}") / source.name)
            con.execute(
                f"COPY (FROM '{source}' SEMI JOIN (FROM days WHERE day = {day}) USING (image_id)) "
                f"TO '{files[-1]}'"
            )
        yield files[0], files[1]


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _age(home: Home) -> None:
    """Make runs, reports, batches and models a day older."""
    with closing(sqlite3.connect(home.dagster / "history" / "runs.db")) as con, con:
        for column in _SECONDS:
            con.execute(f"UPDATE runs SET {column} = {column} - ?", [DAY])
        for column in _TIMES:
            con.execute(f"UPDATE runs SET {column} = datetime({column}, '-1 day')")
    paths = [
        *written_reports(home.reports),
        *(home.inbox / ".done").glob("*"),
        *home.models.glob("*.npz"),
    ]
    for path in paths:
        then = path.stat().st_mtime - DAY
        os.utime(path, (then, then))


def _megabytes(root: Path) -> dict[str, float]:
    """Return the sizes of the home's parts."""
    sizes: dict[str, float] = {}
    for path in root.rglob("*"):
        if path.is_file():
            part = path.relative_to(root).parts[0]
            sizes[part] = sizes.get(part, 0.0) + path.stat().st_size / 1e6
    return sizes


if __name__ == "__main__":
    main()
