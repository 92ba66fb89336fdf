"""Runs of the whole pipeline through Dagster, in this process."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dagster import DagsterInstance, ExecuteInProcessResult
from dagster._core.storage.tags import MAX_RETRIES_TAG
from dagster._core.utils import make_new_run_id

from harmonizer_assets.abandoned_runs import fail_abandoned_runs, process_tags
from harmonizer_assets.core.errors import HarmonizerError, PartitionsFailedError, StoreError
from harmonizer_assets.core.harmonizer import ASSETS, AssetName, Harmonizer
from harmonizer_assets.core.llm.plan import Plan
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.results import Counts
from harmonizer_assets.definitions import defs
from harmonizer_assets.instance import open_instance
from harmonizer_assets.jobs import check_job, harmonize_job, ingest_job, plan_job, submit_job
from harmonizer_assets.selection import check_label_types, merchant_keys

_FULL_DISK_BYTES: Final = 4 * 1024 * 1024
"""With less room than this, whatever failed did so for want of it."""


@dataclass(frozen=True)
class PipelineOutcome:
    """What a run of the pipeline did.

    Attributes:
        words_changed: words inserted or updated.
        labels_changed: labels inserted or updated.
        quarantined: rows set aside by this run.
        set_aside: source and error of each batch that could not be read.
        unread_sources: why buckets or tables could not be read.
        embedded: documents embedded.
        partitions_computed: partitions whose rows were written, per asset.
        rows_computed: labels in those partitions, per asset.
        failed_partitions: asset, partition and error of each that could not be computed.
        failed_checks: name and severity of the asset checks that did not pass.
        stopped_at_budget: whether the budget ended before the questions did.
        llm: what was asked of a model by this run, per label type.
        counts: the home's totals afterwards.
    """

    words_changed: int
    labels_changed: int
    quarantined: int
    set_aside: Sequence[tuple[str, str]]
    unread_sources: Sequence[str]
    embedded: int
    partitions_computed: Mapping[str, int]
    rows_computed: Mapping[str, int]
    failed_partitions: Sequence[tuple[str, PartitionKey, str]]
    failed_checks: Sequence[tuple[str, str]]
    stopped_at_budget: bool
    llm: Sequence[Mapping[str, Any]]
    counts: Counts

    @property
    def unchanged(self) -> bool:
        """Whether nothing had to be done."""
        return not (
            self.words_changed
            or self.labels_changed
            or self.embedded
            or any(self.partitions_computed.values())
        )


def run_pipeline(
    harmonizer: Harmonizer,
    *,
    judge: str,
    label_types: Sequence[str] | None = None,
    merchants: Sequence[str] | None = None,
    refresh: bool = False,
    dead_letters: bool = False,
    options: Mapping[str, Any] | None = None,
    log_level: str = "ERROR",
) -> PipelineOutcome:
    """Ingest the inbox, harmonize what is not up to date, check the result.

    Three Dagster runs in this process, on the home's own instance, so that all of it shows in the
    web UI. A run that was killed continues where it stopped.

    Args:
        harmonizer: of the home.
        judge: who decides ambiguous labels.
        label_types: only these; None means all.
        merchants: only these, as keys or display names; None means all.
        refresh: compute partitions again although their labels have not changed.
        dead_letters: ask the words again that could not be judged.
        options: settings of the openai judge for this run, see `JudgeOptions`.
        log_level: of Dagster's console log.

    Raises:
        HarmonizerError: a step failed; the message says why.
        KeyboardInterrupt: the Dagster run that was interrupted is marked as canceled.
        InputError: a label type or merchant does not exist.
    """
    check_label_types(harmonizer, label_types or ())
    with open_instance(harmonizer.home) as instance:
        fail_abandoned_runs(instance)
        ingested = _execute(instance, ingest_job.name, {}, log_level)
        selection = {
            **_selection(harmonizer, judge, label_types, merchants, options),
            "refresh": refresh,
            "dead_letters": dead_letters,
        }
        resources = {"selection": {"config": selection}}
        run_id = make_new_run_id()
        try:
            harmonized = _execute(instance, harmonize_job.name, resources, log_level, run_id)
        except PartitionsFailedError:
            totals = _totals_of_tables(harmonizer, run_id)
        else:
            totals = _totals_of_run(harmonized)
        checked = _execute(instance, check_job.name, {}, log_level)
    metadata = _metadata_by_asset(ingested)
    return PipelineOutcome(
        words_changed=metadata["words"]["inserted"] + metadata["words"]["updated"],
        labels_changed=metadata["labels"]["inserted"] + metadata["labels"]["updated"],
        quarantined=metadata["quarantine"]["quarantined"],
        set_aside=[
            (batch["source"], batch["error"]) for batch in metadata["quarantine"]["set_aside"]
        ],
        unread_sources=list(metadata["quarantine"]["unread_sources"]),
        embedded=metadata["word_embeddings"]["embedded"],
        partitions_computed={asset: total["computed"] for asset, total in totals.items()},
        rows_computed={asset: total["rows"] for asset, total in totals.items()},
        failed_partitions=[
            (row["asset"], PartitionKey(row["label_type"], row["merchant_key"]), row["error"])
            for row in harmonizer.failed_partitions(run_id)
        ],
        failed_checks=[
            (evaluation.check_name, evaluation.severity.value)
            for evaluation in checked.get_asset_check_evaluations()
            if not evaluation.passed
        ],
        stopped_at_budget=bool(totals["llm_verdicts"].get("stopped_at_budget")),
        llm=harmonizer.usage(run_id),
        counts=harmonizer.counts(),
    )


def run_submit(
    harmonizer: Harmonizer,
    *,
    label_types: Sequence[str] | None = None,
    merchants: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    log_level: str = "ERROR",
) -> list[str]:
    """Ingest the inbox, score, and submit open questions to the Batch API; the batches' ids.

    Arguments and errors are those of `run_pipeline`.
    """
    check_label_types(harmonizer, label_types or ())
    with open_instance(harmonizer.home) as instance:
        fail_abandoned_runs(instance)
        _execute(instance, ingest_job.name, {}, log_level)
        selection = _selection(harmonizer, "openai", label_types, merchants, options)
        resources = {"selection": {"config": selection}}
        submitted = _execute(instance, submit_job.name, resources, log_level)
    ids: list[str] = submitted.output_for_node("submit")
    return ids


def _totals_of_run(result: ExecuteInProcessResult) -> dict[AssetName, dict[str, int]]:
    nodes = zip(ASSETS, ("score", "judge", "publish"), strict=True)
    return {asset: result.output_for_node(node) for asset, node in nodes}


def _totals_of_tables(harmonizer: Harmonizer, run_id: str) -> dict[AssetName, dict[str, int]]:
    """What a run has computed although it failed in the end."""
    rows = harmonizer.warehouse.query(
        "SELECT asset, count(*) AS computed, sum(labels)::BIGINT AS rows "
        "FROM partition_state WHERE run_id = $run_id GROUP BY asset",
        {"run_id": run_id},
    ).to_pylist()
    found = {row["asset"]: row for row in rows}
    return {asset: found.get(asset, {"computed": 0, "rows": 0}) for asset in ASSETS}


def _selection(
    harmonizer: Harmonizer,
    judge: str,
    label_types: Sequence[str] | None,
    merchants: Sequence[str] | None,
    options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "label_types": None if label_types is None else list(label_types),
        "merchants": None if merchants is None else merchant_keys(harmonizer, merchants),
        "judge": judge,
        "options": dict(options or {}),
    }


def run_plan(
    harmonizer: Harmonizer,
    *,
    label_types: Sequence[str] | None = None,
    merchants: Sequence[str] | None = None,
    refresh: bool = False,
    options: Mapping[str, Any] | None = None,
    log_level: str = "ERROR",
) -> Plan:
    """Ingest the inbox, score what is not up to date, and say what judging it would take.

    Arguments and errors are those of `run_pipeline`.
    """
    check_label_types(harmonizer, label_types or ())
    with open_instance(harmonizer.home) as instance:
        fail_abandoned_runs(instance)
        _execute(instance, ingest_job.name, {}, log_level)
        selection = _selection(harmonizer, "openai", label_types, merchants, options)
        selection["refresh"] = refresh
        planned = _execute(instance, plan_job.name, {"selection": {"config": selection}}, log_level)
    return Plan(**planned.output_for_node("plan"))


def _execute(
    instance: DagsterInstance,
    name: str,
    resources: Mapping[str, Any],
    log_level: str,
    run_id: str | None = None,
) -> ExecuteInProcessResult:
    run_id = run_id or make_new_run_id()
    try:
        return defs.resolve_job_def(name).execute_in_process(
            instance=instance,
            run_id=run_id,
            run_config={
                "resources": dict(resources),
                "loggers": {"console": {"config": {"log_level": log_level}}},
            },
            # Whoever killed a command says when it is to go on; the daemon does not.
            tags={**process_tags(), MAX_RETRIES_TAG: "0"},
        )
    except HarmonizerError:
        raise
    except KeyboardInterrupt:
        # Dagster takes an interrupt that it was not asked for as a failure.
        run = instance.get_run_by_id(run_id)
        if run is not None:
            instance.report_run_canceled(run, "Interrupted from the command line.")
        raise
    except Exception as error:
        if shutil.disk_usage(instance.root_directory).free < _FULL_DISK_BYTES:
            raise StoreError(
                f"the disk that holds {instance.root_directory} is full: make room and run again, "
                "what is finished is kept"
            ) from error
        first = next(iter(str(error).splitlines()), "")
        raise HarmonizerError(
            f"the run {name} failed: {type(error).__name__}: {first}; its log is in the web UI "
            "(harmonizer ui), what is finished is kept"
        ) from error


def _metadata_by_asset(result: ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    return {
        event.asset_key.to_user_string(): {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }
