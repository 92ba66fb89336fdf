"""Measure how Dagster bears 18 label types x thousands of merchants, a third of them with labels.

    python -m benchmarks.scale [--merchants 1000 5000]
    python -m benchmarks.scale --merchants 20000 --share 0.02 --without-backfills

Each size gets a home of its own, harmonized once; then a web server with the daemon is started on
it and asked what people ask: how long until the code is loaded, the partitions page and its counts,
backfills of one label type and of everything, and the same work as one run of the job
`harmonize_partitions`. Seconds throughout; what fails is told with its error.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.defs.jobs import harmonize_config
from harmonizer_tests.support.arrivals import SHARE, make_labels
from harmonizer_tests.support.served import Served, wait_for

PATIENCE: Final = 900.0
PARTITIONS: Final = """
query ($key: AssetKeyInput!) {
    assetNodeOrError(assetKey: $key) {
        ... on AssetNode {
            partitionStats { numMaterialized numPartitions numFailed numMaterializing }
            assetPartitionStatuses { __typename }
            partitionKeysByDimension { name partitionKeys }
        }
    }
}
"""
GRAPH: Final = """
{ assetNodes { assetKey { path } partitionStats { numMaterialized numPartitions } } }
"""
STATUS: Final = """
query ($id: String!) {
    partitionBackfillOrError(backfillId: $id) {
        ... on PartitionBackfill { status numPartitions runs(limit: 100) { id status } }
    }
}
"""
LAUNCH: Final = """
mutation ($params: ExecutionParams!) {
    launchRun(executionParams: $params) {
        __typename
        ... on LaunchRunSuccess { run { id } }
        ... on PythonError { message }
    }
}
"""
RUN: Final = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--merchants", type=int, nargs="+", default=[1_000])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--share", type=float, default=SHARE, help="of partitions with labels")
    parser.add_argument("--without-backfills", action="store_true")
    options = parser.parse_args()
    for merchants in options.merchants:
        folder = Path(tempfile.mkdtemp(prefix="harmonizer-scale-"))
        try:
            print(json.dumps(measure(folder, merchants, options), indent=2), flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def measure(folder: Path, merchants: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each thing that people wait for, with one number of merchants."""
    home = Home(folder / "home").ensure()
    os.environ["HARMONIZER_HOME"] = str(home.root)
    pipeline = Pipeline(home)
    names = pipeline.taxonomy.names
    submit_batch(home, *make_labels(folder, names, merchants, options.seed, options.share))
    found: dict[str, Any] = {"merchants": merchants}
    with timed(found, "first_run"):
        command = [sys.executable, "-m", "harmonizer_assets.cli", "--home", str(home.root), "run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found["partitions"] = merchants * len(pipeline.taxonomy.names)
    found["partitions_with_labels"] = len(pipeline.partitions.held())
    with timed(found, "definition_load"):
        load = "from harmonizer_assets.definitions import defs; defs().resolve_all_job_defs()"
        subprocess.run([sys.executable, "-W", "ignore", "-c", load], check=True)
    served = Served(home, folder / "ui.log")
    with timed(found, "ui_start"):
        served.start()
    try:
        key = {"path": ["outliers"]}
        with timed(found, "partitions_page_cold"):
            page = served.ask(PARTITIONS, key=key)["assetNodeOrError"]
        with timed(found, "partitions_page_warm"):
            served.ask(PARTITIONS, key=key)
        with timed(found, "graph"):
            served.ask(GRAPH)
        found["page"] = page["partitionStats"]
        keys = {
            dimension["name"]: dimension["partitionKeys"]
            for dimension in page["partitionKeysByDimension"]
        }
        one_type = [f"DATE|{merchant}" for merchant in keys["merchant"]]
        everything = [f"{name}|{one}" for name in keys["label_type"] for one in keys["merchant"]]
        if options.without_backfills:
            return found
        found["backfill_of_one_type"] = backfill(served, one_type)
        found["backfill_of_everything"] = backfill(served, everything)
        found["everything_in_one_run"] = one_run(served)
    finally:
        served.stop()
    return found


def backfill(served: Served, keys: Sequence[str]) -> dict[str, Any]:
    """Launch a backfill of all three assets; seconds until it is taken, has its runs, has ended."""
    found: dict[str, Any] = {"partitions": len(keys)}
    began = time.monotonic()
    try:
        backfill_id = served.launch_backfill(keys)
        found["taken"] = round(time.monotonic() - began, 1)

        def state() -> dict[str, Any]:
            found_state: dict[str, Any] = served.ask(STATUS, id=backfill_id)[
                "partitionBackfillOrError"
            ]
            return found_state

        wait_for(lambda: state()["runs"], PATIENCE)
        found["first_run_made"] = round(time.monotonic() - began, 1)
        wait_for(lambda: state()["status"].startswith(("COMPLETED", "FAILED")), PATIENCE)
        last = state()
        found |= {"ended": round(time.monotonic() - began, 1), "status": last["status"]}
        found["runs"] = len(last["runs"])
    except (AssertionError, OSError, KeyError) as error:
        found["broke"] = f"{type(error).__name__} after {time.monotonic() - began:.0f} s: {error}"
    return found


def one_run(served: Served) -> dict[str, Any]:
    """Compute everything again as one run of `harmonize_partitions`."""
    began = time.monotonic()
    answer = served.ask(
        LAUNCH,
        params={
            "selector": {
                "jobName": "harmonize_partitions",
                "repositoryName": "__repository__",
                "repositoryLocationName": "harmonizer_assets.definitions",
            },
            "runConfigData": json.dumps(harmonize_config(refresh=True)),
        },
    )["launchRun"]
    if answer["__typename"] != "LaunchRunSuccess":
        return {"broke": answer}
    run_id = answer["run"]["id"]

    def status() -> str:
        found: str = served.ask(RUN, id=run_id)["runOrError"]["status"]
        return found

    wait_for(lambda: status() in {"SUCCESS", "FAILURE", "CANCELED"}, PATIENCE)
    return {"ended": round(time.monotonic() - began, 1), "status": status()}


@contextmanager
def timed(found: dict[str, Any], name: str) -> Iterator[None]:
    """Note under a name how many seconds the block takes."""
    began = time.monotonic()
    yield
    found[name] = round(time.monotonic() - began, 2)


if __name__ == "__main__":
    main()
