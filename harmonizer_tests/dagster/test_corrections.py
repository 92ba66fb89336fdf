"""Corrections as an asset: people's answers are applied from the web UI and by a sensor."""

from __future__ import annotations

import pytest
from dagster import AssetKey, RunRequest, SkipReason, build_sensor_context

from harmonizer_assets.core.apply.undo import Selection, undo
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import label_key
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.review.answers import Answer
from harmonizer_assets.defs.jobs import step_config
from harmonizer_assets.defs.partitions import add_merchants, to_dagster
from harmonizer_assets.defs.resources import HomeResource
from harmonizer_assets.defs.sensors import reviews_sensor
from harmonizer_tests.support.corrections import label, labels
from harmonizer_tests.support.dagster_runs import execute, materialize
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import harmonize, shop_receipts, table


@pytest.fixture
def found(home: Home) -> Pipeline:
    """Two shops, of whose labels nobody has said anything."""
    copy_home(home, "two shops, harmonized without Dagster", make)
    return Pipeline(home)


def make(home: Home) -> None:
    pipeline = Pipeline(home)
    shop_receipts(each=6).submit(pipeline, home.scratch / "files")
    harmonize(pipeline)


@pytest.fixture
def answered(found, instance) -> Pipeline:
    """Two shops; ann has said of each shop's total that it is no DATE."""
    add_merchants(instance, {key.merchant_key for key in found.partitions.held()})
    for row in wrong(found):
        found.review.answer(label_key(row), "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    return found


def wrong(pipeline):
    return [row for row in labels(pipeline) if row["validation_status"] == "PENDING"]


def tick(instance):
    context = build_sensor_context(instance=instance, resources={"home": HomeResource()})
    [answer] = list(reviews_sensor(context))
    return answer


def reported(instance):
    return instance.get_materialized_partitions(AssetKey("corrections"))


def test_without_commit_a_materialization_says_what_it_would_do(answered, home, instance):
    before = labels(answered)
    first = wrong(answered)[0]
    key = str(to_dagster(PartitionKey(first["label"], first["merchant_key"])))
    assert materialize(instance, home, ["corrections"], partition_key=key).success
    event = instance.get_latest_materialization_event(AssetKey("corrections"))
    metadata = event.asset_materialization.metadata
    assert (metadata["corrections"].value, metadata["operation"].value) == (1, "dry run")
    assert labels(answered) == before


def test_a_partition_is_corrected_and_no_other_one(answered, home, instance):
    first, second = wrong(answered)
    key = str(to_dagster(PartitionKey(first["label"], first["merchant_key"])))
    config = step_config("correct", commit=True, actor="bob")
    assert materialize(instance, home, ["corrections"], config, partition_key=key).success
    assert label(answered, label_key(first))["validation_status"] == "INVALID"
    assert label(answered, label_key(second))["validation_status"] == "PENDING"
    assert reported(instance) == {key}


def test_the_job_corrects_all_partitions_in_one_run_and_reports_each(answered, home, instance):
    touched = {
        str(to_dagster(PartitionKey(row["label"], row["merchant_key"]))) for row in wrong(answered)
    }
    assert execute(instance, home, "apply_corrections", step_config("correct", commit=True)).success
    assert wrong(answered) == []
    assert reported(instance) == touched


def test_the_sensor_has_answers_applied_then_computes_what_they_touch_then_rests(
    answered, home, instance
):
    request = tick(instance)
    assert isinstance(request, RunRequest)
    assert request.job_name == "apply_corrections"
    assert tick(instance).run_key == request.run_key
    execute(instance, home, request.job_name, step_config("correct", commit=True))
    after = tick(instance)
    assert after.job_name == "harmonize_arrivals"
    assert execute(instance, home, after.job_name).success
    counts = answered.tables.counts()
    assert (counts.rejected, counts.outliers) == (2, 0)
    assert tick(instance).run_key == after.run_key
    undo(answered.warehouse, Selection(actor="ann"), actor="bob", commit=True)
    assert tick(instance).run_key != after.run_key


def test_what_answers_do_not_touch_is_not_computed_again(home, tmp_path, instance):
    # A model that is fitted anew would score everything anew.
    home.settings_file.write_text('[similarity]\nscorer = "evidence"\n')
    pipeline = Pipeline(home, Settings.load(home.settings_file))
    shop_receipts(each=6).submit(pipeline, tmp_path / "files")
    harmonize(pipeline)
    before = table(pipeline, "partition_state")
    merchants = {key.merchant_key for key in pipeline.partitions.held()}
    add_merchants(instance, merchants)
    row = wrong(pipeline)[0]
    pipeline.review.answer(label_key(row), "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    execute(instance, home, tick(instance).job_name, step_config("correct", commit=True))
    assert execute(instance, home, tick(instance).job_name).success
    computed = {
        state["merchant_key"]
        for state in table(pipeline, "partition_state")
        if state["asset"] == "similarity_matches" and state not in before
    }
    assert len(merchants) == 2
    assert computed == {row["merchant_key"]}


def test_the_sensor_rests_where_nobody_has_answered(found, instance):
    assert isinstance(tick(instance), SkipReason)
