"""Measure the review page over HTTP, on a home with many open labels and many answers.

    python -m benchmarks.review_page [--labels 50000] [--answers 2000]

Sample receipts with a quarter of their labels wrong are run offline, and the page is served in a
process of its own behind the guard, as `harmonizer ui` does. Then the first page is loaded, and
labels are answered one by one: an answer is stored, and the next label is loaded. Figures are
milliseconds, waited by the browser and computed by the server.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.measure.samples.receipts import SampleSpec, write_samples
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import LABEL_COLUMNS, label_key
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.review.answers import Answer, give_answer
from harmonizer_tests.support.review_page import Reviewer, review_process

ERROR_RATE = 0.25
PAGES = 30
ANSWERS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--labels", type=int, default=50_000)
    parser.add_argument("--answers", type=int, default=2_000, help="given before it is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harmonizer-review-") as folder:
        pipeline = _made(Path(folder), options.labels, options.answers)
        print(
            json.dumps({"open": pipeline.review.progress("eve").open, **_measured(pipeline.home)})
        )


def _made(folder: Path, labels: int, answers: int) -> Pipeline:
    """Make a home; bob and eve have answered about so many labels of it, and agree on most."""
    home = Home(folder / "home").ensure()
    spec = SampleSpec(labels=labels, error_rate=ERROR_RATE)
    (folder / "samples").mkdir()
    samples = write_samples(spec, folder / "samples")
    submit_batch(home, samples.words, samples.labels)
    pipeline = Pipeline(home)
    pipeline.run(RunOptions(judge="offline"))
    rows = pipeline.warehouse.query(
        f"FROM review_queue ORDER BY value, {LABEL_COLUMNS} LIMIT $limit", {"limit": answers}
    ).to_pylist()
    keys = [label_key(row) for row in rows]
    if keys:
        given = {"bob": (keys, Answer.RIGHT), "eve": (keys[::10], Answer.WRONG)}
        for name, (labels_of, verdict) in given.items():
            give_answer(pipeline.warehouse, labels_of, name, verdict, proposal_shown=True)
    return pipeline


def _measured(home: Home) -> dict[str, Any]:
    with review_process(home) as (process, port):
        server, ann = psutil.Process(process.pid), Reviewer(port)
        fresh = _Clock(server)
        fresh.time(ann.get)
        first, stored, shown = _Clock(server), _Clock(server), _Clock(server)
        for _ in range(PAGES):
            first.time(ann.get)
        page = ann.get("item")
        for _ in range(ANSWERS):
            assert stored.time(partial(ann.post, "answer", _answer(page.text))).status == 200
            page = shown.time(partial(ann.get, "item"))
    return {
        "first page of a fresh server": fresh.figures(),
        "first page": first.figures(),
        "answer stored": stored.figures(),
        "next item shown": shown.figures(),
    }


class _Clock:
    """Times requests: what people wait, and what the server computes."""

    def __init__(self, server: psutil.Process) -> None:
        self._server = server
        self._waited: list[float] = []
        self._computed: list[float] = []

    def time(self, work: Callable[[], Any]) -> Any:
        used, began = self._cpu(), time.perf_counter()
        result = work()
        self._waited.append(1_000 * (time.perf_counter() - began))
        self._computed.append(1_000 * (self._cpu() - used))
        return result

    def figures(self) -> dict[str, float]:
        """Return milliseconds; the server's CPU time is read in steps of 10, so its mean is."""
        ordered = sorted(self._waited)
        return {
            "median": round(statistics.median(ordered), 1),
            "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 1),
            "most": round(ordered[-1], 1),
            "cpu": round(statistics.mean(self._computed), 1),
        }

    def _cpu(self) -> float:
        times = self._server.cpu_times()
        return float(times.user + times.system)


def _answer(page: str) -> dict[str, Any]:
    """Answer as the page's script does, that the label is right."""
    key = re.search(r'data-label="([^"]+)"', page)
    assert key is not None
    shown = 'data-proposal-shown="true"' in page
    return {"labels": [html.unescape(key[1])], "verdict": "right", "proposal_shown": shown}


if __name__ == "__main__":
    main()
