"""Jobs: selections of assets, each with its configuration."""

from __future__ import annotations

from typing import Any, Final

from dagster import AssetSelection, define_asset_job, in_process_executor

from harmonizer_assets.core.records.reports import ASSETS

HARMONIZE_STEP: Final = "harmonize"
"""The step that computes the partitioned assets; it is configured by `HarmonizeConfig`."""

EMBEDDINGS_STEP: Final = "word_embeddings"
"""The step that embeds words; it is configured by `EmbeddingConfig`."""

CORRECTIONS_STEP: Final = "correct"
"""The step that corrects labels; it is configured by `CorrectionsConfig`."""

_INGESTED: Final = ("words", "labels", "quarantine", EMBEDDINGS_STEP)


def harmonize_config(**options: Any) -> dict[str, Any]:
    """Make the run configuration of the harmonize step with these options."""
    return step_config(HARMONIZE_STEP, **options)


def step_config(step: str, **options: Any) -> dict[str, Any]:
    """Make the run configuration of one step with these options."""
    return {"ops": {step: {"config": options}}}


ingest_job = define_asset_job(
    "ingest_and_index",
    AssetSelection.assets(*_INGESTED),
    description="Ingest the inbox and bring the vector index up to date.",
    executor_def=in_process_executor,
)

# Launched without a partition key, the harmonize step finds the stale partitions itself: those that
# new labels touch are scattered, which no range of partitions can express.
harmonize_job = define_asset_job(
    "harmonize_partitions",
    AssetSelection.assets(*ASSETS),
    description="Bring all stale partitions, or those of the configured label types and merchants, "
    "up to date in one run. Launch it without a partition.",
    executor_def=in_process_executor,
)

arrivals_job = define_asset_job(
    "harmonize_arrivals",
    AssetSelection.assets(*_INGESTED, *ASSETS),
    description="Ingest what has arrived and bring the partitions that it touches up to date, all "
    "in one run; requested by new_labels_sensor.",
    executor_def=in_process_executor,
)

retry_job = define_asset_job(
    "retry_dead_letters",
    AssetSelection.assets(*ASSETS),
    description="Ask the words again that could not be judged, and bring up to date what waits.",
    executor_def=in_process_executor,
    config=harmonize_config(dead_letters=True),
)

collect_job = define_asset_job(
    "collect_batches",
    AssetSelection.assets(*ASSETS),
    description="Collect the batch jobs that have ended and bring up to date the partitions that "
    "waited for them.",
    executor_def=in_process_executor,
    # What no batch job has answered is left to be asked when somebody says so.
    config=harmonize_config(collect=True, options={"budget_tokens": 0}),
)

plan_job = define_asset_job(
    "plan_verdicts",
    AssetSelection.assets("llm_plan"),
    description="Say what judging the stale partitions with a model would cost, with one real "
    "prompt; it sends no call and needs no key.",
    executor_def=in_process_executor,
)

submit_job = define_asset_job(
    "submit_batches",
    AssetSelection.assets("llm_batch_jobs"),
    description="Submit open questions to the Batch API at half the price; the sensor "
    "batch_api_sensor has the answers collected.",
    executor_def=in_process_executor,
)

check_job = define_asset_job(
    "check_labels",
    AssetSelection.all_asset_checks(),
    description="Run all asset checks.",
    executor_def=in_process_executor,
)

evaluate_job = define_asset_job(
    "evaluate_labels",
    AssetSelection.assets("detection_quality"),
    description="Compare what was found with the truth file that the settings name.",
    executor_def=in_process_executor,
)

corrections_job = define_asset_job(
    "apply_corrections",
    AssetSelection.assets("corrections"),
    description="Correct the labels that people, or open rules of the review policy, want "
    "corrected. Launch it without a partition; requested by reviews_sensor.",
    executor_def=in_process_executor,
    config=step_config(CORRECTIONS_STEP, commit=True),
)

prune_job = define_asset_job(
    "prune_home",
    AssetSelection.assets("home_retention"),
    description="Remove old runs, reports and batches, as the retention settings say.",
    executor_def=in_process_executor,
)

JOBS: Final = [
    ingest_job,
    harmonize_job,
    arrivals_job,
    retry_job,
    plan_job,
    submit_job,
    collect_job,
    check_job,
    evaluate_job,
    corrections_job,
    prune_job,
]
