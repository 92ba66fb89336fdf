"""What it takes to publish the tables of a home, by target.

    python -m benchmarks.publishing HOME                # a home whose labels are decided

Each target is a folder, published to four times: first everything, then nothing new, then with one
row in a hundred of the decisions changed, then `prune`. Seconds are of the wall clock;
the home is copied and its tables are as they were.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import PublishSettings
from harmonizer_assets.core.publish.publishing import Publishing
from harmonizer_assets.core.store.warehouse import Connection, Warehouse

TARGETS = ("copy", "parquet", "ducklake")
CHANGE = (
    "UPDATE outliers SET outlier_score = outlier_score / 2 "
    "WHERE hash(image_id, receipt_id, line_id, word_id) % 100 = $1"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("home", type=Path)
    options = parser.parse_args()
    for target in TARGETS:
        with tempfile.TemporaryDirectory(prefix="harmonizer-bench-") as scratch:
            home = Home(Path(scratch) / "home").ensure()
            shutil.copyfile(Home(options.home).database, home.database)
            print(json.dumps({"target": target, **measure(home, target, Path(scratch) / "out")}))


def measure(home: Home, target: str, folder: Path) -> dict[str, float]:
    url = None if target == "copy" else folder.as_uri()
    settings = PublishSettings.model_validate({"target": target, "url": url})
    warehouse = Warehouse(home)
    publishing = Publishing(warehouse, settings)

    def publish() -> None:
        publishing.publish("benchmark", "", "")

    def change(number: int) -> None:
        def write(con: Connection) -> None:
            con.execute(CHANGE, [number])

        warehouse.write(write)

    labels = warehouse.query("SELECT count(*) AS n FROM labels")["n"][0].as_py()
    measured = {"labels": labels, "first": timed(publish)}
    measured["first MB"] = size(folder)
    measured["nothing new"] = timed(publish)
    change(1)
    measured["one in a hundred"] = timed(publish)
    measured["MB"] = size(folder)
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    measured["prune"] = timed(lambda: publishing.prune(0, later, dry_run=False))
    measured["MB left"] = size(folder)
    return {name: round(value, 2) for name, value in measured.items()}


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def size(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


if __name__ == "__main__":
    main()
