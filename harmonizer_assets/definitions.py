"""The Dagster code location: the definitions of one home."""

from __future__ import annotations

from typing import Any, Final

from dagster import (
    AssetSpec,
    Definitions,
    definitions,
    in_process_executor,
    map_asset_specs,
)

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.defs.assets.asking import llm_batch_jobs, llm_plan, llm_usage
from harmonizer_assets.defs.assets.corrections import corrections_asset
from harmonizer_assets.defs.assets.harmonize import partitioned_assets
from harmonizer_assets.defs.assets.index import suspicion_model, word_embeddings
from harmonizer_assets.defs.assets.ingest import ingest_batches
from harmonizer_assets.defs.assets.publish import publish
from harmonizer_assets.defs.assets.quality import detection_quality
from harmonizer_assets.defs.assets.retention import home_retention
from harmonizer_assets.defs.checks import label_checks
from harmonizer_assets.defs.jobs import JOBS
from harmonizer_assets.defs.policies import KEEPS_COMING, OWNERS, STALE_AFTER_DAYS
from harmonizer_assets.defs.progress import silent
from harmonizer_assets.defs.resources import HomeResource
from harmonizer_assets.defs.schedules import SCHEDULES
from harmonizer_assets.defs.sensors import SENSORS


def build_definitions(home: Home) -> Definitions:
    """Define assets, checks, jobs, sensors and schedules of one home.

    Raises:
        TaxonomyError: the home's taxonomy is not usable.
    """
    label_types = Taxonomy.of_home(home).names
    return Definitions(
        assets=map_asset_specs(
            _with_policies,
            [
                ingest_batches,
                word_embeddings,
                suspicion_model,
                partitioned_assets(label_types),
                corrections_asset(label_types),
                publish,
                llm_usage,
                llm_plan,
                llm_batch_jobs,
                detection_quality,
                home_retention,
            ],
        ),
        asset_checks=[label_checks],
        jobs=JOBS,
        sensors=SENSORS,
        schedules=SCHEDULES,
        resources={
            "home": HomeResource(home=str(home.root)),
            # The caller of a run in this process may replace it, to receive progress.
            "on_progress": silent,
        },
        # Steps share the vector index, which one process at a time may use.
        executor=in_process_executor,
    )


def _with_policies(spec: AssetSpec) -> AssetSpec:
    policies: dict[str, Any] = {"owners": OWNERS}
    if spec.key.to_user_string() in KEEPS_COMING:
        policies["freshness_policy"] = STALE_AFTER_DAYS
    return spec.replace_attributes(**policies)


@definitions
def defs() -> Definitions:
    """Define the home that the environment names, for the web UI and the daemon."""
    return build_definitions(Home.resolve())


__all__: Final = ["build_definitions", "defs"]
