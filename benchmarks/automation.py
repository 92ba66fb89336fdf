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
import json
import os
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
    evaluate_automation_conditions,
)
from dagster._core.definitions.automation_tick_evaluation_context import (
    build_run_requests,
    build_run_requests_with_backfill_policies,
)
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.partitions.context import partition_loading_context

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.defs.partitions import add_merchants, to_dagster
from harmonizer_tests.support.arrivals import make_arrival, make_labels, take_arrival


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
        pipeline = Pipeline(home)
        files = make_labels(folder, pipeline.taxonomy.names, options.merchants, options.seed, 1.0)
        submit_batch(home, *files)
        arrival, touched = make_arrival(folder, files[1], options.touched, options.seed)
        ours = take_arrival(pipeline, arrival, touched)
        everything = [to_dagster(key) for key in pipeline.partitions.held()]
        theirs = declarative(
            folder, pipeline.taxonomy.names, everything, [to_dagster(key) for key in touched]
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"sensor": ours, "declarative_automation": theirs}, indent=2))


def declarative(
    folder: Path, label_types: Sequence[str], held: Sequence[str], touched: Sequence[str]
) -> dict[str, Any]:
    """Have `eager` conditions take the same arrival, with and without `emit_backfills`."""
    from harmonizer_assets.defs.partitions import from_dagster, label_type_by_merchant

    partitions = label_type_by_merchant(label_types)
    upstream = AssetSpec("labels_of_partition", partitions_def=partitions)

    @asset(
        deps=[upstream],
        partitions_def=partitions,
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
