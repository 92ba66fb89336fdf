from __future__ import annotations

from dagster import AssetKey

from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.defs.partitions import from_dagster
from harmonizer_tests.support.arrivals import make_arrival, make_labels, take_arrival


def test_an_arrival_in_scattered_partitions_takes_one_run_and_leaves_other_merchants_alone(
    home, pipeline, tmp_path
):
    files = make_labels(tmp_path, pipeline.taxonomy.names, merchants=10, seed=1, share=1.0)
    submit_batch(home, *files)
    arrival, touched = make_arrival(tmp_path, files[1], touched=60, seed=1)
    taken = take_arrival(pipeline, arrival, touched)
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
