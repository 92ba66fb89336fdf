"""How time, room and cost grow with labels and merchants, and what breaks first.

    python -m benchmarks.pipeline --sizes 10000,20000,50000,100000 --json pipeline.json
    python -m benchmarks.scaling --measured pipeline.json --home HOME
    python -m benchmarks.scaling                        # with the constants measured so

Each step of a run takes a fixed time and one for each of what it works on: labels, documents,
partitions. Up to `exact_search_limit` documents, similar words take time for each pair of them;
beyond, Chroma's index takes time for each document. These times are fitted to all sizes of
`--measured` but the largest, which is predicted and compared. So are units on workers, by a
simulation of their queue, with what `benchmarks.units` has measured. Then runs of up to a billion
labels are predicted, on one home and on several, in seconds of the processor. `--home` measures
bytes. The samples repeat themselves: 0.23 documents to a label; `--unlike` says how many.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.optimize import nnls

from harmonizer_assets.core.base.home import Home

DRIVERS: Final[dict[str, str]] = {
    "ingest": "labels",
    "documents": "documents",
    "embedding": "documents",
    "index": "documents",
    "fitting": "fitted",
    "similarity": "pairs",
    "scoring": "labels",
    "explaining": "labels",
    "duckdb": "labels",
    "dagster": "partitions",
    "other": "labels",
}
"""What the time of each step grows with."""
MOST_FITTED: Final = 30_000
WALL, PROCESSOR = 0, 1

EXACT_LIMIT: Final = 20_000
SEARCH: Final = (3.6 - 0.5) / 23_356
"""Seconds in which Chroma's index searches for one document: `benchmarks.units --parts where`."""
VOTES: Final = 3.5 / 100_011
"""Seconds in which the votes on a label are gathered from what that search has found: as above."""

Steps = dict[str, list[float]]
"""Seconds of each step: fixed, and for a million of what it grows with, or a million squared."""
STEPS: Final[Steps] = {
    "ingest": [1.40, 16.17],
    "documents": [0.00, 24.31],
    "embedding": [0.02, 16.83],
    "index": [0.00, 598.27],
    "fitting": [2.89, 281.64],
    "similarity": [0.24, 127659.91],
    "scoring": [0.00, 85.65],
    "explaining": [0.00, 38.45],
    "duckdb": [1.08, 135.45],
    "dagster": [0.22, 852.58],
    "other": [1.92, 70.46],
}
"""Of the processor, of a machine of two cores, fitted to 10,000 to 100,000 labels."""
BYTES: Final = {"label": 2 * 375.0, "document": 2_283.0}
"""Of tables and their copy for a label, of Chroma's files for a document: `--home`."""
DAGSTER_BYTES: Final = 3 * 494e6 / 66_198
"""For a partition with its three assets, until they are pruned: see the benchmarks."""
MODEL: Final = {"share asked": 0.011, "words a minute": 25_000 / 313 * 60, "usd": 0.013e-3}
"""Of the labels; at 500 requests and 200,000 tokens a minute; for a word: see the benchmarks."""

PARTITIONS_ADVISED: Final = 100_000
LABEL_TYPES: Final = 18
MEMORY: Final = 24e9
BYTES_IN_GRAPH: Final = 220 * 4 + 16 * 2 * 8
"""Of memory that Chroma's index takes for a document: its vector and its links."""


@dataclass(frozen=True)
class Size:
    """What a run works on."""

    labels: float
    merchants: float
    documents: float
    partitions: float

    def of(self, driver: str) -> float:
        if driver == "fitted":
            return min(self.labels, MOST_FITTED)
        return float(getattr(self, driver))


def size_of(result: Mapping[str, Any]) -> Size:
    names = ("labels", "merchants", "documents", "partitions")
    return Size(*(float(result[name]) for name in names))


def terms(part: str, size: Size) -> list[float]:
    """Return what the times of a step are multiplied with."""
    if part == "similarity":
        is_exact = size.documents <= EXACT_LIMIT
        return [1.0, (size.documents / 1e6) ** 2 * is_exact]
    return [1.0, size.of(DRIVERS[part]) / 1e6]


def searched(part: str, size: Size) -> float:
    """Return the seconds that Chroma's index takes for similar words; small sizes have none."""
    if size.documents <= EXACT_LIMIT:
        return 0.0
    return {"index": SEARCH * size.documents, "similarity": VOTES * size.labels}.get(part, 0.0)


def fitted(results: Sequence[Mapping[str, Any]], at: int) -> Steps:
    """Fit the times of each step, none below zero."""
    sizes = [size_of(result) for result in results]
    # Each size counts alike, however long it takes.
    weight = 1 / np.array([size.labels for size in sizes])
    steps = {}
    for part in DRIVERS:
        taken = np.array([result["parts"][part][at] for result in results])
        taken -= np.array([searched(part, size) for size in sizes])
        matrix = np.array([terms(part, size) for size in sizes]) * weight[:, None]
        steps[part] = [float(found) for found in nnls(matrix, taken * weight)[0]]
    return steps


def predicted(steps: Steps, size: Size) -> dict[str, float]:
    return {
        part: float(np.dot(times, terms(part, size))) + searched(part, size)
        for part, times in steps.items()
    }


def compare(results: Sequence[Mapping[str, Any]]) -> None:
    """Predict the largest size from the others, and each from all."""
    *smaller, largest = results
    for name, at in (("seconds", WALL), ("of the processor", PROCESSOR)):
        found = predicted(fitted(smaller, at), size_of(largest))
        measured = sum(times[at] for times in largest["parts"].values())
        tell(f"{largest['labels']:,} labels, {name}", sum(found.values()), measured)


def tell(what: str, found: float, measured: float) -> None:
    ratio = found / measured
    verdict = "" if abs(ratio - 1) <= 0.2 else "  NOT within 20 %"
    print(f"{what:<52}{found:>10.1f}{measured:>10.1f}{ratio:>8.2f}{verdict}")


def queue_of_units(seconds: Sequence[float], workers: int, cut: float, commit: float) -> float:
    """Simulate units on workers; return the seconds from the first cut to the last commit.

    One process cuts and commits, one unit after the other, and commits as soon as there is one.

    Args:
        seconds: that each unit takes, in the order in which they are cut.
        workers: that take them, the first that is free first.
        cut: seconds to cut a unit, nothing where they were cut before.
        commit: seconds to commit a result.
    """
    free = [0.0] * workers
    ended: list[float] = []
    home = 0.0
    for took in seconds:
        home += cut
        while ended and ended[0] <= home:
            heapq.heappop(ended)
            home += commit
        begins = max(heapq.heappop(free), home)
        heapq.heappush(free, begins + took)
        heapq.heappush(ended, begins + took)
    while ended:
        home = max(home, heapq.heappop(ended)) + commit
    return home


PADDED: Final = {1: 145.8, 2: 72.7, 4: 37.2, 8: 19.2}
"""Seconds of 24 units that sleep for 6 s, by workers: see the benchmarks."""
UNITS: Final = {"Chroma's index": (69, 6.9, 3.8), "exact search": (69, 16.8, 8.9)}
"""How many, and seconds with 1 and 2 processes on two cores: see the benchmarks."""


def compare_units() -> None:
    for workers, measured in PADDED.items():
        each = PADDED[1] / 24
        found = queue_of_units([each] * 24, workers, 0.0, 0.0)
        tell(f"24 padded units, {workers} workers", found, measured)
    for name, (count, one, two) in UNITS.items():
        tell(
            f"{count} units, {name}, 2 workers", queue_of_units([one / count] * count, 2, 0, 0), two
        )


def breaking(size: Size, homes: int, seconds: float, room: float) -> list[str]:
    """List what does not hold with so many homes, the nearest limit first."""
    partitions = LABEL_TYPES * size.merchants / homes
    graph = size.documents / homes * BYTES_IN_GRAPH
    asked = size.labels * MODEL["share asked"] / MODEL["words a minute"] / 60 / homes
    found = [
        (partitions / PARTITIONS_ADVISED, f"{partitions:,.0f} partitions an asset"),
        (seconds / 86_400, f"a run of {seconds / 3600:,.0f} h"),
        (graph / MEMORY, f"{graph / 1e9:,.0f} GB of memory for the index"),
        (asked / 24, f"{asked:,.0f} h of questions at an endpoint's limit"),
        (room / 1e12, f"{room / 1e12:,.1f} TB on one disk"),
    ]
    return [said for times, said in sorted(found, reverse=True) if times > 1]


def predict(unlike: float) -> None:
    print(
        f"\n{'labels':>15}{'merchants':>11}{'homes':>7}{'hours':>9}{'core h':>9}{'GB':>9}"
        f"{'asked h':>9}{'USD':>9}  what does not hold"
    )
    for labels, merchants in ((1e5, 1e3), (1e6, 5e3), (1e7, 2e4), (1e8, 5e4), (1e9, 1e5)):
        size = Size(
            labels, merchants, labels * unlike, min(labels / 6, merchants * LABEL_TYPES / 3)
        )
        for homes in sorted({1, max(1, round(merchants / 5_000)), max(1, round(labels / 1e7))}):
            tell_run(size, homes)


def tell_run(size: Size, homes: int) -> None:
    shares = Size(
        *(n / homes for n in (size.labels, size.merchants, size.documents, size.partitions))
    )
    steps = predicted(STEPS, shares)
    seconds = sum(steps.values())
    room = (
        shares.labels * BYTES["label"]
        + shares.documents * BYTES["document"]
        + shares.partitions * DAGSTER_BYTES
    )
    asked = size.labels * MODEL["share asked"]
    broken = breaking(size, homes, seconds, room)
    figures = (
        seconds / 3600,
        seconds * homes / 3600,
        room * homes / 1e9,
        asked / MODEL["words a minute"] / 60 / homes,
        asked * MODEL["usd"],
    )
    print(
        f"{size.labels:>15,.0f}{size.merchants:>11,.0f}{homes:>7,}"
        + "".join(f"{n:>9,.0f}" if n >= 10 else f"{n:>9.2g}" for n in figures)
        + f"  {'; '.join(broken) or '-'}"
    )


def measure_bytes(home: Home) -> None:
    from harmonizer_assets.core.store.tables import Tables
    from harmonizer_assets.core.store.warehouse import Warehouse

    warehouse = Warehouse(home)
    labels = Tables(warehouse).labels()
    [documents] = warehouse.query("SELECT count(*) AS n FROM document_metadata")["n"].to_pylist()
    vectors = sum(file.stat().st_size for file in home.chroma.rglob("*") if file.is_file())
    tables = home.database.stat().st_size
    print(f"{tables / labels:.0f} bytes a label, and again in the copy")
    print(f"{vectors / documents:.0f} bytes a document in the index")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--measured", type=Path, help="what benchmarks.pipeline --json has written")
    parser.add_argument("--home", type=Path, help="whose bytes are measured")
    parser.add_argument("--unlike", type=float, default=0.23, help="documents to a label")
    options = parser.parse_args()
    if options.home:
        measure_bytes(Home(options.home))
    print(f"{'':<52}{'model':>10}{'measured':>10}{'ratio':>8}")
    if options.measured:
        results = json.loads(options.measured.read_text())
        compare(results)
        STEPS.update(fitted(results, PROCESSOR))
        for part, times in STEPS.items():
            print(f'    "{part}": [{", ".join(f"{found:.2f}" for found in times)}],')
    compare_units()
    predict(options.unlike)


if __name__ == "__main__":
    main()
