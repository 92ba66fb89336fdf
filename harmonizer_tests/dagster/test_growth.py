"""How much a run adds to a home, and that runs without anything to do add nothing for long."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import RetentionSettings, Settings
from harmonizer_assets.core.records.reports import ASSETS
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.defs.pruning import prune
from harmonizer_tests.support.receipts import OFFLINE

MEAN_BYTES = 2_600
"""Of the event of one partition and asset, which Dagster stores for the run and for the asset."""
MOST_BYTES = 6_000
RUN_BYTES = 700_000
"""Of a run that does nothing and the check after it; most of it are two empty SQLite files."""
RUNS = 3
SHORT = Settings(retention=RetentionSettings(run_days=0))


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def event_sizes(home: Home) -> dict[str, list[int]]:
    """The bytes of each event about a partition, by asset, as the home's instance stores them."""
    found: dict[str, list[int]] = {asset: [] for asset in ASSETS}
    with sqlite3.connect(home.dagster / "history" / "runs" / "index.db") as con:
        rows = con.execute(
            "SELECT asset_key, length(event) FROM event_logs WHERE partition IS NOT NULL"
        )
        for key, size in rows:
            found[key.strip('[]"')].append(size)
    return found


def test_the_event_of_a_partition_and_asset_is_small(shop, home):
    held = len(shop.partitions.held())
    sizes = event_sizes(home)
    assert {asset: len(events) for asset, events in sizes.items()} == dict.fromkeys(ASSETS, held)
    every = [size for events in sizes.values() for size in events]
    assert sum(every) < MEAN_BYTES * len(every)
    assert max(every) < MOST_BYTES


def test_runs_that_find_nothing_to_do_leave_the_home_as_large_as_it_was(shop, home):
    before, tables = pruned(home), home.database.read_bytes()
    for _ in range(RUNS):
        assert run_pipeline(home, OFFLINE, log_level="CRITICAL").unchanged
    assert home.database.read_bytes() == tables
    assert bytes_of(home.root) - before < RUNS * RUN_BYTES
    # What the web UI shows of the last run is what it showed of the one before.
    assert pruned(home) < 1.02 * before


def pruned(home: Home) -> int:
    """The bytes of a home without the runs that its settings let go, once nobody has it open."""
    with open_instance(home) as instance:
        prune(home, instance, SHORT)
    return bytes_of(home.root)
