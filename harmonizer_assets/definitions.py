"""The Dagster code location."""

from __future__ import annotations

import os

from dagster import Definitions, in_process_executor

from harmonizer_assets.assets.embeddings import word_embeddings
from harmonizer_assets.assets.harmonize import (
    harmonize,
    label_patterns,
    llm_plan,
    llm_usage,
    merchant_alarms,
    receipt_alarms,
)
from harmonizer_assets.assets.ingest import ingest_batches
from harmonizer_assets.assets.model import suspicion_model
from harmonizer_assets.assets.quality import detection_quality
from harmonizer_assets.assets.report import harmonization_report
from harmonizer_assets.checks import CHECKS
from harmonizer_assets.instance import EVENT_BATCH_SIZE
from harmonizer_assets.jobs import (
    arrivals_job,
    check_job,
    collect_job,
    evaluate_job,
    harmonize_job,
    ingest_job,
    plan_job,
    retry_job,
    submit_job,
)
from harmonizer_assets.resources import HarmonizerResource, PartitionSelection
from harmonizer_assets.schedules import nightly_catch_up, weekly_check
from harmonizer_assets.sensors import (
    abandoned_runs,
    batch_api_sensor,
    dead_letter_sensor,
    new_labels_sensor,
    run_failure_alert,
)

# Also for runs that the web UI launches: without it every partition's event is a transaction.
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", EVENT_BATCH_SIZE)

defs = Definitions(
    assets=[
        ingest_batches,
        word_embeddings,
        suspicion_model,
        harmonize,
        merchant_alarms,
        receipt_alarms,
        label_patterns,
        llm_usage,
        llm_plan,
        detection_quality,
        harmonization_report,
    ],
    asset_checks=CHECKS,
    jobs=[
        evaluate_job,
        arrivals_job,
        ingest_job,
        harmonize_job,
        check_job,
        plan_job,
        retry_job,
        submit_job,
        collect_job,
    ],
    sensors=[
        new_labels_sensor,
        abandoned_runs,
        dead_letter_sensor,
        batch_api_sensor,
        run_failure_alert,
    ],
    schedules=[nightly_catch_up, weekly_check],
    resources={
        "harmonizer": HarmonizerResource(),
        "selection": PartitionSelection(),
    },
    # Steps share the vector index, which one process at a time may use.
    executor=in_process_executor,
)
