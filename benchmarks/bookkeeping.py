"""Measure what Dagster's own events cost, by the storage of its event log.

    python -m benchmarks.bookkeeping [--partitions 1000 20000] [--storages "ours SQLite" ...]

Each storage and number of partitions gets a process and an instance of its own. Measured are, in
milliseconds per partition of one asset:

- report: inside a real run, by the reporter that the runs of the command line have;
- range: a whole run of a range of partitions as the UI starts it, from making the run with its
  planned events to its end; our assets report each partition themselves there too;

and in milliseconds for all partitions what the UI asks to colour them, `status`: of partitions that
it has not yet looked at (cold), and again (warm). Storages that take one event at a time are
measured on no more than `--most-singly` partitions, which the table says.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetSelection,
    AssetSpec,
    BackfillPolicy,
    DagsterInstance,
    Definitions,
    MaterializeResult,
    MultiPartitionsDefinition,
    define_asset_job,
    in_process_executor,
    multi_asset,
)
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from benchmarks.bookkeeping_table import BASELINE, markdown
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import AssetName, PartitionResult
from harmonizer_assets.dagster_compat import events
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.defs.partitions import add_merchants, label_type_by_merchant
from harmonizer_assets.defs.reporting import DagsterReporter
from harmonizer_tests.support.postgres import SERVER, UnreachableError, temporary_database

DEPLOYED: Final = Path(__file__).parents[1] / "deploy" / "dagster.postgres.yaml"
CHILD: Final = (sys.executable, "-W", "ignore", "-m", "benchmarks.bookkeeping")
STOCK: Final = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"
STOCK_POSTGRES: Final = (
    f"{STOCK}storage:\n  postgres:\n    postgres_url:\n      env: DAGSTER_PG_URL\n"
)
QUIET: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
REPORTED: Final = "similarity_matches"
RANGED: Final = "outliers"


@dataclass(frozen=True)
class Storage:
    """A way to keep the event log.

    Attributes:
        dagster_yaml: the instance's file; None is the one that a home is made with.
        batch: events per batch; 0 stores each by itself, as Dagster does unless told otherwise.
        plans_singly: whether planned events are stored one by one in spite of `batch`.
    """

    dagster_yaml: str | None
    batch: int
    plans_singly: bool = False
    postgres: bool = False


STORAGES: Final = {
    BASELINE: Storage(STOCK, 0, plans_singly=True),
    "ours SQLite": Storage(None, 500),
    "stock PostgreSQL, single events": Storage(STOCK_POSTGRES, 0, True, True),
    "stock PostgreSQL, batches of 500": Storage(STOCK_POSTGRES, 500, True, True),
    "ours PostgreSQL": Storage(DEPLOYED.read_text(encoding="utf-8"), 500, postgres=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--partitions", type=int, nargs="+", default=[1_000, 20_000])
    parser.add_argument("--storages", nargs="+", choices=STORAGES, default=list(STORAGES))
    parser.add_argument("--most-singly", type=int, default=1_000)
    parser.add_argument("--server", default=SERVER, help="PostgreSQL, with the right to make bases")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, folder, report, ranged = options.one
        print(json.dumps(measure(STORAGES[name], Path(folder), int(report), int(ranged))))
        return
    results = []
    for partitions in options.partitions:
        for name in options.storages:
            results.append(_measured(name, partitions, options.most_singly, options.server))
            print(json.dumps(results[-1]), flush=True)
    print("\n" + markdown(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def _measured(name: str, partitions: int, most_singly: int, server: str) -> dict[str, Any]:
    """Measure one storage in a process of its own; what cannot be reached is said, not left out."""
    storage = STORAGES[name]
    few = min(partitions, most_singly)
    report = partitions if storage.batch else few
    ranged = few if storage.plans_singly else partitions
    found: dict[str, Any] = {
        "storage": name,
        "partitions": partitions,
        "report_partitions": report,
        "range_partitions": ranged,
    }
    folder = tempfile.mkdtemp(prefix="harmonizer-bookkeeping-")
    environment = {
        **os.environ,
        "HARMONIZER_HOME": folder,
        "DAGSTER_EVENT_BATCH_SIZE": str(storage.batch),
    }
    try:
        with _database(storage, server) as url:
            done = subprocess.run(
                [*CHILD, "--one", name, folder, str(report), str(ranged)],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
                env={**environment, "DAGSTER_PG_URL": url},
            )
    except UnreachableError as error:
        return {**found, "not_measured": str(error)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {**found, **json.loads(done.stdout.splitlines()[-1])}


@contextmanager
def _database(storage: Storage, server: str) -> Iterator[str]:
    if not storage.postgres:
        yield ""
        return
    with temporary_database(server) as url:
        yield url


def measure(storage: Storage, folder: Path, report: int, ranged: int) -> dict[str, float]:
    """Measure a storage in this process, which has its environment.

    Returns:
        Milliseconds per partition (`report_ms`, `range_ms`) and for all `report` partitions
        (`status_cold_ms`, `status_warm_ms`).
    """
    home = Home(folder).ensure()
    if storage.dagster_yaml is not None:
        (home.dagster / "dagster.yaml").write_text(storage.dagster_yaml, encoding="utf-8")
    pipeline = Pipeline(home)
    partitions = label_type_by_merchant(pipeline.taxonomy.names)
    merchants = [f"merchant-{number:06d}" for number in range(max(report, ranged))]
    with (
        patch.object(events, "EVENT_BATCH_SIZE", max(1, storage.batch)),
        open_instance(home) as instance,
    ):
        add_merchants(instance, merchants)
        reported = _report(instance, pipeline, partitions, merchants[:report])
        status = []
        for _ in range(2):
            seconds = _timed(
                lambda: get_and_update_asset_status_cache_value(
                    instance, AssetKey(REPORTED), partitions
                )
            )
            status.append(seconds)
        run = _range(instance, pipeline, partitions, merchants[:ranged])
    return {
        "report_ms": round(1000 * reported / report, 3),
        "range_ms": round(1000 * run / ranged, 3),
        "status_cold_ms": round(1000 * status[0], 1),
        "status_warm_ms": round(1000 * status[1], 1),
    }


def _report(
    instance: DagsterInstance,
    pipeline: Pipeline,
    partitions: MultiPartitionsDefinition,
    merchants: Sequence[str],
) -> float:
    """Seconds that a step takes to report these partitions, with what a partition really has."""
    seconds: list[float] = []
    definitions = _reporting(REPORTED, pipeline, partitions, merchants, seconds)
    definitions.resolve_job_def("report").execute_in_process(instance=instance, run_config=QUIET)
    _check(instance, REPORTED, merchants)
    return sum(seconds)


def _range(
    instance: DagsterInstance,
    pipeline: Pipeline,
    partitions: MultiPartitionsDefinition,
    merchants: Sequence[str],
) -> float:
    """Seconds that a run of a range of partitions takes, all in all."""
    definitions = _reporting(RANGED, pipeline, partitions, merchants, [])
    tags = {
        ASSET_PARTITION_RANGE_START_TAG: f"DATE|{merchants[0]}",
        ASSET_PARTITION_RANGE_END_TAG: f"DATE|{merchants[-1]}",
    }
    everything = definitions.resolve_job_def("report")
    seconds = _timed(
        lambda: everything.execute_in_process(instance=instance, run_config=QUIET, tags=tags)
    )
    _check(instance, RANGED, merchants)
    return seconds


def _reporting(
    name: AssetName,
    pipeline: Pipeline,
    partitions: MultiPartitionsDefinition,
    merchants: Sequence[str],
    seconds: list[float],
) -> Definitions:
    """A job of one asset that computes nothing and reports these partitions."""
    found = _results(merchants)
    keys = [result.partition for result in found]

    @multi_asset(
        specs=[AssetSpec(name, partitions_def=partitions, skippable=True)],
        backfill_policy=BackfillPolicy.single_run(),
    )
    def reporting(context: AssetExecutionContext) -> Iterator[MaterializeResult]:
        reporter = DagsterReporter(context, pipeline)
        seconds.append(_timed(lambda: reporter.consume(name, keys, iter(found))))
        yield from ()

    return Definitions(
        assets=[reporting],
        jobs=[define_asset_job("report", AssetSelection.assets(name))],
        executor=in_process_executor,
    )


def _check(instance: DagsterInstance, name: str, merchants: Sequence[str]) -> None:
    materialized = len(instance.get_materialized_partitions(AssetKey(name)))
    assert materialized == len(merchants), f"{materialized} partitions are materialized"


def _results(merchants: Sequence[str]) -> list[Any]:
    worst = {
        "image_id": "image-000001",
        "receipt_id": 1,
        "line_id": 7,
        "word_id": 3,
        "outlier_score": 0.98,
        "word_text": "12.50",
        "suggested_label": "GRAND_TOTAL",
    }
    return [
        PartitionResult(
            PartitionKey("DATE", merchant),
            labels=20,
            changed=True,
            fingerprint=f"{number:032x}",
            counts={"valid": 15, "outlier": 3, "unresolved": 2},
            worst=(worst,) * 3,
            metrics={"mean_score": 0.1},
            seconds=0.01,
        )
        for number, merchant in enumerate(merchants)
    ]


def _timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
