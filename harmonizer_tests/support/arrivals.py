"""Arrivals of labels in scattered partitions, and the product taking them by its sensor."""

from __future__ import annotations

import csv
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dagster import build_sensor_context

from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.support.receipts import LABEL_COLUMNS, OFFLINE, WORD_COLUMNS, write_csv

SHARE: Final = 1 / 3
"""Of all partitions, those that hold labels."""


def make_labels(
    folder: Path, label_types: Sequence[str], merchants: int, seed: int, share: float = SHARE
) -> tuple[Path, Path]:
    """Words and labels in a share of the partitions, two labels in each."""
    chance = random.Random(seed)
    words: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for number in range(merchants):
        held = [name for name in label_types if chance.random() < share] or [label_types[0]]
        for copy in (1, 2):
            for line, name in enumerate(held, start=1):
                key = {
                    "image_id": f"image-{number:05d}-{copy}",
                    "receipt_id": 1,
                    "line_id": line,
                    "word_id": 1,
                }
                text = f"{name[:4]}{chance.randrange(100):02d}"
                box = {"x": 0.1, "y": line / 20, "width": 0.2, "height": 0.03}
                words.append({**key, "text": text, **box})
                labels.append(
                    {
                        **key,
                        "label": name,
                        "validation_status": chance.choice(("VALID", "PENDING")),
                        "merchant_name": f"Merchant {number:05d}",
                    }
                )
    return (
        write_csv(folder / "words.csv", WORD_COLUMNS, words),
        write_csv(folder / "labels.csv", LABEL_COLUMNS, labels),
    )


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


def take_arrival(
    pipeline: Pipeline, arrival: Path, touched: Sequence[PartitionKey]
) -> dict[str, Any]:
    """Have the product take the arrival: its sensor, and the runs that it requests."""
    from harmonizer_assets.cli.runs import run_pipeline
    from harmonizer_assets.defs.resources import HomeResource
    from harmonizer_assets.defs.sensors import new_labels_sensor
    from harmonizer_tests.support.dagster_runs import execute

    run_pipeline(pipeline.home, OFFLINE, log_level="CRITICAL")
    before = states(pipeline)
    submit_batch(pipeline.home, None, arrival)
    found: dict[str, Any] = {"partitions": len(before), "touched": len(touched), "runs": 0}
    with open_instance(pipeline.home) as instance:
        while True:
            began = time.perf_counter()
            context = build_sensor_context(instance=instance, resources={"home": HomeResource()})
            requests = new_labels_sensor.evaluate_tick(context).run_requests or []
            if not requests:
                break
            found["evaluation_seconds"] = round(time.perf_counter() - began, 2)
            began = time.perf_counter()
            [request] = requests
            execute(instance, pipeline.home, "harmonize_arrivals", tags=dict(request.tags))
            found["run_seconds"] = round(time.perf_counter() - began, 1)
            found["runs"] += 1
    after = states(pipeline)
    changed = {key for key in after if after[key] != before.get(key)}
    reached = {key.merchant_key for key in touched}
    found["computed"] = len(changed)
    found["computed_at_untouched_merchants"] = sum(
        key.merchant_key not in reached for key in changed
    )
    found["touched_left_out"] = len({*touched} - changed)
    return found


def states(pipeline: Pipeline) -> dict[PartitionKey, tuple[str, str]]:
    """Fingerprint and run of every partition of `outliers`."""
    rows = pipeline.warehouse.query(
        "SELECT label_type, merchant_key, fingerprint, run_id FROM partition_state "
        "WHERE asset = 'outliers'"
    ).to_pylist()
    return {
        PartitionKey(row["label_type"], row["merchant_key"]): (row["fingerprint"], row["run_id"])
        for row in rows
    }
