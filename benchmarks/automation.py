"""Compare the sensor's one run per arrival with Dagster's declarative automation.

    python -m benchmarks.automation [--merchants 100] [--touched 600]

All 18 label types of every merchant hold labels; an arrival changes labels in `touched` scattered
partitions of nine merchants in ten. The sensor and its run are the product's own, with real labels.
Declarative automation gets the same events on assets that compute nothing, so that only Dagster's
own work is compared: conditions are evaluated by Dagster's evaluator and turned into requests by
the daemon's own functions; the runs that would follow are counted, not executed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetSpec,
    AutomationCondition,
    BackfillPolicy,
    DagsterInstance,
    Definitions,
    asset,
    build_sensor_context,
    evaluate_automation_conditions,
)
from dagster._core.definitions.automation_tick_evaluation_context import (
    build_run_requests,
    build_run_requests_with_backfill_policies,
)
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.partitions.context import partition_loading_context

from benchmarks.scale import make_labels
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.ingest import submit_batch
from harmonizer_assets.core.merchants import merchant_key
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.instance import open_instance
from harmonizer_assets.partitions import add_merchants, to_dagster
from harmonizer_tests.receipts import LABEL_COLUMNS, write_csv

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--merchants", type=int, default=100)
    parser.add_argument("--touched", type=int, default=600)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="harmonizer-automation-"))
    try:
        home = Home(folder / "home").ensure()
        os.environ["HARMONIZER_HOME"] = str(home.root)
        harmonizer = Harmonizer(home)
        files = make_labels(folder, harmonizer.taxonomy.names, options.merchants, options.seed, 1.0)
        submit_batch(home, *files)
        arrival, touched = make_arrival(folder, files[1], options.touched, options.seed)
        ours = sensor(harmonizer, arrival, touched)
        everything = [to_dagster(key) for key in harmonizer.partitions()]
        theirs = declarative(folder, everything, [to_dagster(key) for key in touched])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"sensor": ours, "declarative_automation": theirs}, indent=2))


def make_arrival(
    folder: Path, labels: Path, touched: int, seed: int
) -> tuple[Path, list[PartitionKey]]:
    """A labels file that changes one status in so many partitions; which those are."""
    with labels.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    merchants = sorted({row["merchant_name"] for row in rows})
    reached = {*merchants[: max(1, len(merchants) * 9 // 10)]}
    one_each = {(row["label"], row["merchant_name"]): row for row in rows}
    candidates = sorted(key for key in one_each if key[1] in reached)
    chosen = random.Random(seed).sample(candidates, min(touched, len(candidates)))
    changed = [{**one_each[key], "validation_status": "NEEDS_REVIEW"} for key in chosen]
    path = write_csv(folder / "arrival" / "labels.csv", LABEL_COLUMNS, changed)
    return path, [PartitionKey(label, merchant_key(name)) for label, name in chosen]


def sensor(
    harmonizer: Harmonizer, arrival: Path, touched: Sequence[PartitionKey]
) -> dict[str, Any]:
    """Have the product take the arrival: its sensor, and the runs that it requests."""
    from harmonizer_assets.definitions import defs
    from harmonizer_assets.resources import HarmonizerResource
    from harmonizer_assets.runs import run_pipeline
    from harmonizer_assets.sensors import new_labels_sensor

    run_pipeline(harmonizer, judge="offline", log_level="CRITICAL")
    before = states(harmonizer)
    submit_batch(harmonizer.home, None, arrival)
    found: dict[str, Any] = {"partitions": len(before), "touched": len(touched), "runs": 0}
    with open_instance(harmonizer.home) as instance:
        while True:
            began = time.perf_counter()
            context = build_sensor_context(
                instance=instance, resources={"harmonizer": HarmonizerResource()}
            )
            requests = new_labels_sensor.evaluate_tick(context).run_requests or []
            if not requests:
                break
            found["evaluation_seconds"] = round(time.perf_counter() - began, 2)
            began = time.perf_counter()
            job = defs.resolve_job_def("harmonize_arrivals")
            [request] = requests
            job.execute_in_process(instance=instance, run_config=QUIET, tags=dict(request.tags))
            found["run_seconds"] = round(time.perf_counter() - began, 1)
            found["runs"] += 1
    after = states(harmonizer)
    changed = {key for key in after if after[key] != before.get(key)}
    reached = {key.merchant_key for key in touched}
    found["computed"] = len(changed)
    found["computed_at_untouched_merchants"] = sum(
        key.merchant_key not in reached for key in changed
    )
    found["touched_left_out"] = len({*touched} - changed)
    return found


def states(harmonizer: Harmonizer) -> dict[PartitionKey, tuple[str, str]]:
    """Fingerprint and run of every partition of `outliers`."""
    rows = harmonizer.warehouse.query(
        "SELECT label_type, merchant_key, fingerprint, run_id FROM partition_state "
        "WHERE asset = 'outliers'"
    ).to_pylist()
    return {
        PartitionKey(row["label_type"], row["merchant_key"]): (row["fingerprint"], row["run_id"])
        for row in rows
    }


def declarative(folder: Path, held: Sequence[str], touched: Sequence[str]) -> dict[str, Any]:
    """Have `eager` conditions take the same arrival, with and without `emit_backfills`."""
    from harmonizer_assets.partitions import from_dagster, label_type_by_merchant

    upstream = AssetSpec("labels_of_partition", partitions_def=label_type_by_merchant)

    @asset(
        deps=[upstream],
        partitions_def=label_type_by_merchant,
        backfill_policy=BackfillPolicy.single_run(),
        automation_condition=AutomationCondition.eager(),
    )
    def automated() -> None:
        """Computes nothing."""

    definitions = Definitions(assets=[upstream, automated])
    graph = definitions.resolve_asset_graph()
    found: dict[str, Any] = {"executed": "evaluation and requests; runs are counted"}
    home = Home(folder / "declarative").ensure()
    with (
        open_instance(home) as instance,
        partition_loading_context(dynamic_partitions_store=instance),
    ):
        add_merchants(instance, {from_dagster(key).merchant_key for key in held})
        report(instance, ["labels_of_partition", "automated"], held)
        began = time.perf_counter()
        first = evaluate_automation_conditions(definitions, instance)
        found["first_evaluation_seconds"] = round(time.perf_counter() - began, 2)
        report(instance, ["labels_of_partition"], touched)
        began = time.perf_counter()
        second = evaluate_automation_conditions(definitions, instance, cursor=first.cursor)
        found["evaluation_seconds"] = round(time.perf_counter() - began, 2)
        found["requested"] = second.total_requested
        subsets = [
            result.true_subset for result in second.results if not result.true_subset.is_empty
        ]
        for emits in (False, True):
            began = time.perf_counter()
            requests = build_run_requests(subsets, graph, {}, emit_backfills=emits)
            name = "with_backfills" if emits else "without_backfills"
            found[name] = {
                "requests": len(requests),
                "seconds": round(time.perf_counter() - began, 2),
            }
        began = time.perf_counter()
        runs = build_run_requests_with_backfill_policies(
            [AssetKeyPartitionKey(AssetKey("automated"), key) for key in touched], graph, instance
        )
        found["with_backfills"]["runs_of_the_backfill"] = len(runs)
        found["with_backfills"]["seconds"] += round(time.perf_counter() - began, 2)
    return found


def report(instance: DagsterInstance, assets: Sequence[str], keys: Sequence[str]) -> None:
    """Report partitions as materialized from outside."""
    for name in assets:
        for key in keys:
            instance.report_runless_asset_event(AssetMaterialization(name, partition=key))


if __name__ == "__main__":
    main()
