from __future__ import annotations

from dagster import AssetKey

from benchmarks.automation import make_arrival, sensor
from benchmarks.scale import make_labels
from harmonizer_assets.core.ingest import submit_batch
from harmonizer_assets.instance import open_instance
from harmonizer_assets.partitions import from_dagster


def test_an_arrival_in_scattered_partitions_takes_one_run_and_leaves_other_merchants_alone(
    home, harmonizer, tmp_path
):
    files = make_labels(tmp_path, harmonizer.taxonomy.names, merchants=10, seed=1, share=1.0)
    submit_batch(home, *files)
    arrival, touched = make_arrival(tmp_path, files[1], touched=60, seed=1)
    taken = sensor(harmonizer, arrival, touched)
    assert (taken["partitions"], taken["touched"], taken["runs"]) == (180, 60, 1)
    assert taken["touched_left_out"] == taken["computed_at_untouched_merchants"] == 0
    reached = {key.merchant_key for key in touched}
    assert len(reached) == 9
    with open_instance(home) as instance:
        records = instance.fetch_materializations(AssetKey("outliers"), limit=1_000).records
    times: dict[str, int] = {}
    for record in records:
        merchant = from_dagster(record.partition_key).merchant_key
        times[merchant] = times.get(merchant, 0) + 1
    assert times == {merchant: 36 if merchant in reached else 18 for merchant in times}
