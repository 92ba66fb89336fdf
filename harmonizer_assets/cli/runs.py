"""Runs of the pipeline through Dagster, in the process of the command line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, NoReturn

from dagster import (
    AssetKey,
    DagsterExecutionInterruptedError,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
)

from harmonizer_assets.cli.opening import open_warehouse
from harmonizer_assets.cli.signals import interrupted, interrupts_ignored
from harmonizer_assets.core.base.errors import (
    HarmonizerError,
    PartitionsFailedError,
    StoreError,
)
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.base.settings import BUDGETS, JudgeOverrides, Settings
from harmonizer_assets.core.judge.llm.plan import Plan
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.reports import ASSETS, Counts, PartitionFailure
from harmonizer_assets.core.store.tables import Tables
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_assets.dagster_compat.run_health import fail_abandoned_runs, process_tags
from harmonizer_assets.dagster_compat.run_ids import new_run_id
from harmonizer_assets.dagster_compat.tags import MAX_RETRIES_TAG
from harmonizer_assets.definitions import build_definitions
from harmonizer_assets.defs.jobs import (
    EMBEDDINGS_STEP,
    HARMONIZE_STEP,
    arrivals_job,
    check_job,
    collect_job,
    ingest_job,
    plan_job,
    step_config,
    submit_job,
)
from harmonizer_assets.defs.progress import silent
from harmonizer_assets.defs.pruning import prune_if_due
from harmonizer_assets.defs.reporting import BUDGET_TAG
from harmonizer_assets.defs.resources import LAUNCH_TAG

_INGESTED: Final[Mapping[str, Mapping[str, Any]]] = {
    "words": {"inserted": 0, "updated": 0},
    "labels": {"inserted": 0, "updated": 0, "merchant_moves": 0, "merchant_remarks": ()},
    "quarantine": {
        "quarantined": 0,
        "remarks": (),
        "arrived": (),
        "set_aside": (),
        "unread_sources": (),
    },
    "word_embeddings": {"embedded": 0},
}
"""What a run reports about each asset of arriving data; of these values where it ingests none."""
_LOOKED_THROUGH: Final = 20
"""Latest materializations that are searched for that of a run; other runs may be active."""
_FULL_DISK_BYTES: Final = 4 * 1024 * 1024
"""With less free space than this, the full disk is the cause of a failure."""


@dataclass(frozen=True)
class PipelineOutcome:
    """What a run of the pipeline did.

    Attributes:
        words_changed: words inserted or updated.
        labels_changed: labels inserted or updated.
        quarantined: rows quarantined by this run.
        arrived: what was in each batch, as its source and pairs of names and values.
        remarks: what is unexpected about a batch, as a time in the future.
        merchant_moves: names that have got another merchant.
        merchant_remarks: which, and why.
        unread_batches: source and error of each batch that could not be read.
        unread_sources: errors of buckets or tables that could not be read.
        embedded: documents embedded.
        partitions_computed: partitions whose rows were written, per asset.
        rows_computed: labels in those partitions, per asset.
        failed_partitions: those that could not be computed.
        failed_checks: name and severity of the asset checks that did not pass.
        stopped_at_budget: whether the budget ended before the questions did.
        llm: what was asked of a model by this run, per label type.
        counts: the home's totals afterwards.
    """

    words_changed: int
    labels_changed: int
    quarantined: int
    arrived: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    remarks: Sequence[str]
    merchant_moves: int
    merchant_remarks: Sequence[str]
    unread_batches: Sequence[tuple[str, str]]
    unread_sources: Sequence[str]
    embedded: int
    partitions_computed: Mapping[str, int]
    rows_computed: Mapping[str, int]
    failed_partitions: Sequence[PartitionFailure]
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


class LocalRuns:
    """Executes the jobs of one home in this process, on the home's own instance.

    All of it shows in the web UI. A run that was killed continues where it stopped.
    """

    def __init__(
        self,
        home: Home,
        instance: DagsterInstance,
        on_progress: ProgressFn = silent,
        log_level: str = "ERROR",
    ) -> None:
        """Load the home's definitions.

        Args:
            home: whose jobs.
            instance: of the home.
            on_progress: called with the progress of the work.
            log_level: of Dagster's console log.
        """
        self._instance = instance
        self._definitions: Definitions = build_definitions(home)
        self._on_progress = on_progress
        self._log_level = log_level

    def execute(
        self,
        job: str,
        config: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        launch_id: str | None = None,
    ) -> ExecuteInProcessResult:
        """Execute a job.

        Args:
            job: its name.
            config: of its steps.
            run_id: of the run; made where none is given.
            launch_id: the run whose budget it shares, where that is not its own.

        Raises:
            HarmonizerError: a step failed; the message says why.
            KeyboardInterrupt: the run that was interrupted is marked as canceled.
        """
        run_id = run_id or new_run_id()
        try:
            result = self._definitions.resolve_job_def(job).execute_in_process(
                instance=self._instance,
                run_id=run_id,
                run_config={
                    **(config or {}),
                    "loggers": {"console": {"config": {"log_level": self._log_level}}},
                },
                # The daemon must not retry a command that was killed; people start it again.
                tags={
                    **process_tags(),
                    MAX_RETRIES_TAG: "0",
                    **({LAUNCH_TAG: launch_id} if launch_id else {}),
                },
                resources={"on_progress": self._on_progress},
            )
            if interrupted():
                raise KeyboardInterrupt
            return result
        except (KeyboardInterrupt, DagsterExecutionInterruptedError):
            self._cancel(run_id)
        except HarmonizerError:
            if interrupted():
                self._cancel(run_id)
            raise
        except Exception as error:
            if interrupted():
                self._cancel(run_id)
            if shutil.disk_usage(self._instance.root_directory).free < _FULL_DISK_BYTES:
                raise StoreError(
                    f"the disk that holds {self._instance.root_directory} is full: make room and "
                    "run again, what is finished is kept"
                ) from error
            first = next(iter(str(error).splitlines()), "")
            raise HarmonizerError(
                f"the run {job} failed: {type(error).__name__}: {first}; its log is in the web UI "
                "(harmonizer ui), what is finished is kept"
            ) from error

    def _cancel(self, run_id: str) -> NoReturn:
        """Mark an interrupted run as canceled.

        While a step runs, Dagster raises its own error for SIGINT and SIGTERM. It treats an
        interrupt that it has not requested as a failure.

        Raises:
            KeyboardInterrupt: always.
        """
        with interrupts_ignored():
            run = self._instance.get_run_by_id(run_id)
            if run is not None and not run.is_success:
                self._instance.report_run_canceled(run, "Interrupted from the command line.")
        raise KeyboardInterrupt from None

    def reported(self, run_id: str, asset: str) -> Mapping[str, Any]:
        """Look up the metadata with which a run has reported an asset without partitions."""
        latest = self._instance.fetch_materializations(AssetKey(asset), limit=_LOOKED_THROUGH)
        for record in latest.records:
            if record.run_id == run_id and record.asset_materialization is not None:
                metadata = record.asset_materialization.metadata
                return {name: value.value for name, value in metadata.items()}
        return {}

    def tags(self, run_id: str) -> Mapping[str, str]:
        """Look up the tags of a run."""
        run = self._instance.get_run_by_id(run_id)
        return {} if run is None else run.tags


@contextmanager
def local_runs(
    home: Home, on_progress: ProgressFn = silent, log_level: str = "ERROR"
) -> Iterator[LocalRuns]:
    """Open the instance of a home for runs in this process.

    Raises:
        StoreError: the home cannot be written to.
        ConfigurationError: the home's dagster.yaml or taxonomy is not usable.
    """
    with open_instance(home) as instance:
        fail_abandoned_runs(instance)
        yield LocalRuns(home, instance, on_progress, log_level)
        prune_if_due(home, instance, Settings.load(home.settings_file))


def run_pipeline(
    home: Home,
    options: RunOptions,
    overrides: JudgeOverrides | None = None,
    *,
    log_level: str = "ERROR",
) -> PipelineOutcome:
    """Ingest the inbox, harmonize what is stale, check the result: two Dagster runs.

    With `collect` among the options, what batch jobs have answered takes the place of the inbox.

    Args:
        home: the home.
        options: what is to be done.
        overrides: settings of the judge for this run.
        log_level: of Dagster's console log.

    Raises:
        HarmonizerError: a step failed; the message says why.
        KeyboardInterrupt: the Dagster run that was interrupted is marked as canceled.
        InputError: a label type or merchant does not exist.
    """
    tables = Tables(open_warehouse(home))
    run_id = options.run_id or new_run_id()
    job = collect_job if options.collect else arrivals_job
    with local_runs(home, options.on_progress or silent, log_level) as runs:
        # All other partitions are done then, and the failures are in the tables.
        with suppress(PartitionsFailedError):
            config = _config(HARMONIZE_STEP, options, overrides)
            if job is arrivals_job:
                config["ops"] |= _embedding_config(overrides)["ops"]
            runs.execute(job.name, config, run_id)
        checked = runs.execute(check_job.name)
        shown = {
            asset: {**nothing, **runs.reported(run_id, asset)}
            for asset, nothing in _INGESTED.items()
        }
        tags = runs.tags(run_id)
    computed = tables.computed_by(run_id)
    return PipelineOutcome(
        words_changed=shown["words"]["inserted"] + shown["words"]["updated"],
        labels_changed=shown["labels"]["inserted"] + shown["labels"]["updated"],
        quarantined=shown["quarantine"]["quarantined"],
        arrived=[
            (batch["source"], [(name, value) for name, value in batch["facts"]])
            for batch in shown["quarantine"]["arrived"]
        ],
        remarks=list(shown["quarantine"]["remarks"]),
        merchant_moves=shown["labels"]["merchant_moves"],
        merchant_remarks=list(shown["labels"]["merchant_remarks"]),
        unread_batches=[
            (batch["source"], batch["error"]) for batch in shown["quarantine"]["set_aside"]
        ],
        unread_sources=list(shown["quarantine"]["unread_sources"]),
        embedded=shown["word_embeddings"]["embedded"],
        partitions_computed={asset: computed.get(asset, (0, 0))[0] for asset in ASSETS},
        rows_computed={asset: computed.get(asset, (0, 0))[1] for asset in ASSETS},
        failed_partitions=tables.failures(run_id),
        failed_checks=[
            (evaluation.check_name, evaluation.severity.value)
            for evaluation in checked.get_asset_check_evaluations()
            if not evaluation.passed
        ],
        stopped_at_budget=tags.get(BUDGET_TAG) == "true",
        llm=tables.usage(run_id),
        counts=tables.counts(),
    )


def run_plan(
    home: Home,
    options: RunOptions,
    overrides: JudgeOverrides | None = None,
    *,
    log_level: str = "ERROR",
) -> Plan:
    """Ingest the inbox, score what is stale, and estimate what judging it would take.

    Arguments and errors are those of `run_pipeline`.
    """
    with local_runs(home, options.on_progress or silent, log_level) as runs:
        runs.execute(ingest_job.name, _embedding_config(overrides))
        run_id = options.run_id or new_run_id()
        runs.execute(plan_job.name, _config("llm_plan", options, overrides), run_id)
        return Plan(**runs.reported(run_id, "llm_plan")["plan"])


def run_submit(
    home: Home,
    options: RunOptions,
    overrides: JudgeOverrides | None = None,
    *,
    log_level: str = "ERROR",
) -> list[str]:
    """Ingest, score, and submit open questions to the Batch API; return the batch jobs' ids.

    Arguments and errors are those of `run_pipeline`.
    """
    with local_runs(home, options.on_progress or silent, log_level) as runs:
        run_id = options.run_id or new_run_id()
        runs.execute(ingest_job.name, _embedding_config(overrides), launch_id=run_id)
        runs.execute(submit_job.name, _config("llm_batch_jobs", options, overrides), run_id)
        return list(runs.reported(run_id, "llm_batch_jobs")["batch_jobs"])


def _embedding_config(overrides: JudgeOverrides | None) -> dict[str, Any]:
    """Make the configuration of the step that embeds, for a run with these budgets."""
    chosen = (overrides or JudgeOverrides()).chosen()
    budgets = {name: chosen[name] for name in BUDGETS if name in chosen}
    return step_config(EMBEDDINGS_STEP, options=budgets)


def _config(step: str, options: RunOptions, overrides: JudgeOverrides | None) -> dict[str, Any]:
    """Make the configuration of a step for a run with these options."""
    return step_config(
        step,
        label_types=None if options.label_types is None else list(options.label_types),
        merchants=None if options.merchants is None else list(options.merchants),
        judge=options.judge or "settings",
        refresh=options.refresh,
        dead_letters=options.dead_letters,
        collect=options.collect,
        options=asdict(overrides or JudgeOverrides()),
    )
