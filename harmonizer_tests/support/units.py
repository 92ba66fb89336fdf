"""Homes whose labels are scored in units, and workers that fail at them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.reports import PartitionResult
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import OFFLINE, shop_receipts

SHOPS = ("Alpha Mart", "Beta Cafe", "Gamma Bar", "Delta's | Deli", "Épicerie 🥐", "Zeta Grill")
PER_UNIT = 60
"""Labels of a unit: each holds one shop, or two."""


def copy_shops(home: Home) -> None:
    """Fill an empty home with six shops, indexed, and a model that is fitted on them."""
    copy_home(home, "six shops, fitted", _fit)


def _fit(home: Home) -> None:
    pipeline = Pipeline(home)
    shop_receipts(SHOPS).submit(pipeline, home.scratch / "files")
    pipeline.ingest()
    pipeline.index()
    pipeline.score.fit(OFFLINE)


def opened(home: Home, *, exact: bool = True, scorer: str = "model", **units: Any) -> Pipeline:
    """Open a home with settings of units; without `exact` Chroma's index finds similar words."""
    similarity = {"scorer": scorer, "exact_search_limit": 20_000 if exact else 0}
    chosen = {"labels_per_unit": PER_UNIT, "processes": 2, **units}
    return Pipeline(home, Settings.model_validate({"similarity": similarity, "units": chosen}))


def scored(pipeline: Pipeline, options: RunOptions = OFFLINE) -> list[PartitionResult]:
    """Score what is stale."""
    return list(pipeline.score.run(pipeline.partitions.held(), options))


def scores(pipeline: Pipeline, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read all scores but those of some merchants, to the last decimal."""
    rows = pipeline.warehouse.query("FROM similarity_matches ORDER BY ALL").to_pylist()
    return [row for row in rows if row["merchant_key"] not in without]


@dataclass(frozen=True)
class Poison:
    """What `poison/sitecustomize.py` does to a worker; see there."""

    how: str
    merchant: str | None = None
    seconds: float = 0.0


def poisoned_by(*poisons: Poison) -> dict[str, str]:
    """Return what a worker's environment needs to be poisoned."""
    folder = str(Path(__file__).parent / "poison")
    path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "HARMONIZER_TEST_POISON": json.dumps([*map(vars, poisons)])}


@dataclass
class Errors:
    """Partitions that failed in a run: their merchants, and what was said."""

    merchants: set[str] = field(default_factory=set)
    said: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, results: Sequence[PartitionResult], merchant: str | None = None) -> Errors:
        failed = [
            result
            for result in results
            if result.error and merchant in (None, result.partition.merchant_key)
        ]
        return cls({r.partition.merchant_key for r in failed}, {str(r.error) for r in failed})
