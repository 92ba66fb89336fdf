"""The pipeline: the one place where the steps of a run are put together.

Whoever starts a run (the web UI, a sensor, a schedule, the command line, Python code) goes through
`Pipeline.harmonize`; Dagster's assets hand it a `Reporter` that shows in the web UI what it does.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial, wraps
from typing import Concatenate, Final, ParamSpec, TypeVar

from harmonizer_assets.core.apply.apply import Brake, apply_corrections
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.progress import ProgressFn
from harmonizer_assets.core.base.secrets import secrets_removed
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.decide.missing import MissingLabels
from harmonizer_assets.core.decide.proposals import LabelProposals
from harmonizer_assets.core.decide.stage import DecideStage, outlier_stage
from harmonizer_assets.core.erase import Deletion
from harmonizer_assets.core.index.embedders import make_embedder
from harmonizer_assets.core.index.served import open_index
from harmonizer_assets.core.index.stage import Indexing, load_libraries
from harmonizer_assets.core.ingest.arrivals import Arrivals
from harmonizer_assets.core.judge.llm import (
    BatchJob,
    Plan,
    make_plan,
    price_of,
)
from harmonizer_assets.core.judge.stage import JudgeStage
from harmonizer_assets.core.judge.verdicts import requeue_dead_letters, verdict_stage
from harmonizer_assets.core.merchants import MerchantNames, MerchantOverrides
from harmonizer_assets.core.publish.publishing import Publishing
from harmonizer_assets.core.records.account import Account
from harmonizer_assets.core.records.correction import CorrectionReport
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import (
    ASSETS,
    AssetName,
    HarmonizeReport,
    IndexReport,
    IngestReport,
    MerchantReport,
    PartitionResult,
    Published,
    RunReport,
    RunTotals,
    StageReport,
)
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.core.report.publication import Publication
from harmonizer_assets.core.review.policy import ReviewPolicy
from harmonizer_assets.core.review.review import Review
from harmonizer_assets.core.score.registry import Models
from harmonizer_assets.core.score.stage import ScoreStage
from harmonizer_assets.core.stages.run import StageRun
from harmonizer_assets.core.stages.select import PartitionSelector, why_stale
from harmonizer_assets.core.stages.stage import Stage
from harmonizer_assets.core.stages.state import LabelState, PartitionState
from harmonizer_assets.core.store.tables import Tables
from harmonizer_assets.core.store.warehouse import Warehouse
from harmonizer_assets.core.units.spread import clear_units, score_by

_log: Final = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Reporter:
    """Receives the events of a run and ignores them; Dagster's shows them in the web UI."""

    def fitted(self, pipeline: Pipeline, version: str) -> None:
        """Receive the version of the model that the run scores with."""

    def warned(self, warning: str) -> None:
        """Receive a sentence about something that was found damaged; the run goes on."""

    def started(self, asset: AssetName, why: str) -> None:
        """Receive the asset that a stage is about to compute, and why."""

    def unreported(self, asset: AssetName, stored: Mapping[PartitionKey, str]) -> set[PartitionKey]:
        """Return the partitions whose committed rows were never reported, as after a killed run."""
        return set()

    def consume(
        self,
        asset: AssetName,
        partitions: Sequence[PartitionKey],
        results: Iterator[PartitionResult],
    ) -> None:
        """Iterate over the results of a stage's partitions as they are committed, to the end."""
        for _ in results:
            pass

    def finished(self, pipeline: Pipeline, report: StageReport) -> None:
        """Receive the report of a finished stage."""

    def published(self, pipeline: Pipeline, published: Published) -> None:
        """Receive what was published at the end of the run."""


def _in_session(
    method: Callable[Concatenate[Pipeline, _P], _T],
) -> Callable[Concatenate[Pipeline, _P], _T]:
    """Let the reads of a method share one opening of the tables, see `Warehouse.session`."""

    @wraps(method)
    def within(self: Pipeline, /, *args: _P.args, **options: _P.kwargs) -> _T:
        with self.warehouse.session():
            return method(self, *args, **options)

    return within


class Pipeline:
    """The steps of one home: ingest, index, score, judge, decide, publish.

    Usable from a notebook, without Dagster.

    Examples:
        >>> pipeline = Pipeline(Home.resolve("harmonizer_home"))
        >>> report = pipeline.run(RunOptions(judge="offline"))
        >>> report.harmonized.counts.outliers
    """

    def __init__(self, home: Home, settings: Settings | None = None) -> None:
        """Open a home; settings default to its `harmonizer.toml`.

        Raises:
            ConfigurationError: the settings, the taxonomy or the merchants of the home are invalid.
        """
        self.home = home
        self.settings = settings or Settings.load(home.settings_file)
        self.taxonomy = Taxonomy.of_home(home)
        self.warehouse = Warehouse(home, busy_timeout=self.settings.waits.database_seconds)
        self.tables = Tables(self.warehouse)
        self.partitions = PartitionSelector(self.warehouse, self.taxonomy.names)
        self.merchants = MerchantNames(
            self.warehouse, MerchantOverrides.of_home(home), self.settings.merchants
        )

    @cached_property
    def arrivals(self) -> Arrivals:
        """The batches that wait in the inbox, in buckets and in tables."""
        settings = self.settings
        return Arrivals(
            self.home,
            self.warehouse,
            self.taxonomy,
            settings.arrivals,
            limits=settings.limits,
            on_new_batch=load_libraries,
        )

    @cached_property
    def indexing(self) -> Indexing:
        """The step that keeps the vector index complete."""
        embedder = make_embedder(self.settings.embedding)
        wait = self.settings.waits.vector_index_seconds
        index = open_index(self.home, embedder, self.settings.index, wait)
        return Indexing(self.warehouse, index, embedder)

    @cached_property
    def deletion(self) -> Deletion:
        """Takes words and labels out of the home, with every trace of them."""
        return Deletion(
            self.home,
            self.warehouse,
            self.indexing,
            self.update_merchants,
            partial(clear_units, self.settings.units, self.home),
            self.registry.forget,
            self.publishing.clear,
        )

    @cached_property
    def publishing(self) -> Publishing:
        """Publishes the tables for readers."""
        return Publishing(self.warehouse, self.settings.publish)

    @cached_property
    def publication(self) -> Publication:
        """Publishes what was found, and what is made of all labels together."""
        return Publication(
            self.warehouse,
            self.settings,
            self.taxonomy,
            self.score,
            self.missing,
            self.publishing,
        )

    @cached_property
    def registry(self) -> Models:
        """The fitted models of the home."""
        return Models(
            self.home,
            self.warehouse,
            self.taxonomy.names,
            self.indexing.embedder_version,
            self.settings.triage,
            self.settings.waits.model_seconds,
        )

    @cached_property
    def score(self) -> ScoreStage:
        """The stage that computes `similarity_matches`."""
        compute = score_by(self.settings.units, self.home)
        return ScoreStage(self.warehouse, self.registry, self.indexing, self.settings, compute)

    @cached_property
    def judge(self) -> JudgeStage:
        """The stage that computes `llm_verdicts`."""
        return JudgeStage(self.home, self.warehouse, self.taxonomy, self.settings.judge)

    @cached_property
    def decide(self) -> DecideStage:
        """The stage that computes `outliers`."""
        threshold = self.settings.similarity.match_threshold
        return DecideStage(self.warehouse, self.taxonomy.names, threshold)

    @cached_property
    def review(self) -> Review:
        """What people are asked about labels, and what they answer."""
        policy = ReviewPolicy.of_home(self.home)
        return Review(self.warehouse, policy, self.settings.review, self.taxonomy.names)

    @cached_property
    def missing(self) -> MissingLabels:
        """Finds words that carry no label and look as if they should."""
        return MissingLabels(self.warehouse, self.taxonomy.names, self.settings.missing_labels)

    @cached_property
    def proposals(self) -> LabelProposals:
        """Proposes labels for receipts that carry none."""
        return LabelProposals(
            self.warehouse, self.taxonomy.names, self.score, self.judge, self.settings.judge
        )

    @secrets_removed()
    @_in_session
    def ingest(self, on_progress: ProgressFn | None = None) -> IngestReport:
        """Copy what is new in buckets and tables into the inbox, and ingest all that waits there.

        Then the merchants of the names that have come are found; see `update_merchants`.

        Raises:
            StoreError: the inbox or the warehouse cannot be written.
        """
        pulled, errors = self.arrivals.pull()
        report = self.arrivals.ingest(on_progress)
        return replace(
            report,
            pulled=pulled,
            unread_sources=tuple(str(e) for e in errors),
            merchants=self.update_merchants(),
        )

    def update_merchants(self) -> MerchantReport:
        """Find the merchants of all names, by the home's file and by rules, and move their labels.

        Nothing moves while a model is asked, so that no answer misses its question.

        Raises:
            StoreError: the warehouse cannot be written; nothing has moved.
        """
        if self.merchants.is_current():
            return MerchantReport()
        with self.judge.idle() as is_idle:
            return self.merchants.update(may_move=is_idle)

    @secrets_removed()
    @_in_session
    def index(
        self, on_progress: ProgressFn | None = None, account: Account | None = None
    ) -> IndexReport:
        """Bring the vector index up to date with words and labels.

        Args:
            on_progress: called with the progress of the work.
            account: charged with what an endpoint takes for it; by default one of its own.

        Raises:
            ConfigurationError: there is a budget in USD for an embedder without a price.
            BudgetReached: the budget does not allow all of it; what is embedded is kept.
        """
        embedding = self.settings.embedding
        if embedding.embedder == "local":
            return self.indexing.run(on_progress)
        # The embedder's own errors, such as a missing key, come first.
        indexing, run_id = self.indexing, uuid.uuid4().hex
        account = account or Account(run_id, run_id)
        with self.judge.embedding_meter(embedding.openai_model, account, on_progress) as meter:
            return indexing.run(on_progress, meter)

    def run(self, options: RunOptions | None = None, reporter: Reporter | None = None) -> RunReport:
        """Ingest what waits, index it, and bring all partitions up to date.

        Raises:
            InputError: a label type or merchant does not exist.
            ConfigurationError: the judge cannot work with the settings and the environment.
            JudgeError: the endpoint can answer nothing; what it answered before is kept.
            RunStoppedError: the caller stopped the run.
        """
        options = options or RunOptions()
        options = replace(options, run_id=options.run_id or uuid.uuid4().hex)
        options.check_stop()
        self.judge.check(options.judge)
        # Options are checked before anything is ingested, except merchants, which may only arrive.
        self.partitions.check_label_types(options.label_types or ())
        ingested = self.ingest(options.on_progress)
        self.deletion.finish()
        indexed = self.index(options.on_progress, options.account)
        return RunReport(ingested, indexed, self.harmonize(options, reporter))

    @secrets_removed()
    @_in_session
    def harmonize(
        self,
        options: RunOptions,
        reporter: Reporter | None = None,
        *,
        partitions: Sequence[PartitionKey] | None = None,
        assets: Sequence[AssetName] = ASSETS,
    ) -> HarmonizeReport:
        """Bring partitions up to date, stage by stage, and publish what was found.

        A partition that fails does so alone: see `HarmonizeReport.failed`.

        Args:
            options: what is to be done, and how.
            reporter: receives the events of the run.
            partitions: exactly these; by default those of the batch jobs that the options have
                collected, else all of the options' selection that are stale.
            assets: which of the partitioned assets, in their order.

        Raises:
            InputError: a label type or merchant does not exist.
            ConfigurationError: the judge cannot work with the settings and the environment.
            JudgeError: the endpoint can answer nothing; what it answered before is kept.
            RunStoppedError: the caller stopped the run.
        """
        began = time.monotonic()
        options.check_stop()
        options, reporter = self._named(options), reporter or Reporter()
        for warning in self.judge.recover():
            reporter.warned(warning)
        collected = self.judge.collect() if options.collect else []
        if options.collect:
            partitions = self._with_rows(collected)
        if options.dead_letters:
            requeued = self.warehouse.write(requeue_dead_letters)
            _log.info("%d partitions hold dead letters and are judged again", len(requeued))
        if "similarity_matches" in assets:
            reporter.fitted(self, self.score.fit(options)[0])
        state = self.partitions.state()
        stale = set() if partitions is not None else {*self._stale(options, state)}
        stages = []
        for asset in ASSETS:
            if asset in assets:
                wanted = partitions
                if wanted is None:
                    wanted = self._wanted(asset, stale, state, options, reporter)
                stages.append(self._compute(asset, wanted, state.labels, options, reporter))
        options.check_stop()
        if collected:
            self.judge.finish_collection(collected)
        published = self.publication.publish_changes(options.run_id)
        if published is not None:
            reporter.published(self, published)
        return HarmonizeReport(
            options.run_id, stages, published, self.tables.counts(), time.monotonic() - began
        )

    @secrets_removed()
    @_in_session
    def publish(self, run_id: str) -> Published:
        """Publish what was found; see `Publication.publish`."""
        return self.publication.publish(run_id)

    def apply(
        self,
        actor: str,
        *,
        commit: bool = False,
        note: str | None = None,
        partitions: Sequence[PartitionKey] | None = None,
    ) -> CorrectionReport:
        """Correct the labels that answers or open rules of the review policy want corrected.

        Args:
            actor: who applies them, for the record.
            commit: whether labels are changed; otherwise the report says what would be.
            note: why, for the record.
            partitions: only labels of these; None means all.

        Raises:
            StoreError: the tables cannot be written; nothing was changed.
        """
        brake = Brake(self.settings.review.brake_share, self.settings.review.brake_from)
        wanted = self.review.wanted()
        return apply_corrections(
            self.warehouse,
            wanted,
            brake,
            actor=actor,
            note=note,
            partitions=partitions,
            commit=commit,
        )

    def stale(self, options: RunOptions) -> list[PartitionKey]:
        """List the partitions of the options' selection that are not up to date."""
        return self._stale(self._named(options))

    @secrets_removed()
    def plan(self, options: RunOptions, reporter: Reporter | None = None) -> Plan:
        """Score what is stale, and estimate what judging it with a model would take.

        It needs no key and sends no call.
        """
        options, run = self._unjudged(options, reporter or Reporter())
        model = self.judge.language_model()
        price = price_of(self.home, model.model)
        return make_plan(model, run.chunks(), self.settings.judge, price)

    @secrets_removed()
    def submit(self, options: RunOptions, reporter: Reporter | None = None) -> list[BatchJob]:
        """Score what is stale, and submit the open questions to the Batch API.

        Raises:
            ConfigurationError: there is no key, or a budget in USD for a model without a price.
            JudgeError: the endpoint does not take the batch job.
        """
        options, run = self._unjudged(options, reporter or Reporter())
        return self.judge.submit(run.chunks(), options)

    def _with_rows(self, partitions: Sequence[PartitionKey]) -> list[PartitionKey]:
        """Keep the partitions that hold labels, or rows of labels that they have lost."""
        held = {*self.partitions.held(), *self.partitions.emptied()}
        return [partition for partition in partitions if partition in held]

    def _named(self, options: RunOptions) -> RunOptions:
        """Fill in what options leave open: an id, the judge, and merchants by their keys."""
        self.partitions.check_label_types(options.label_types or ())
        merchants = options.merchants
        return replace(
            options.named(self.settings.judge.judge),
            merchants=None if merchants is None else self.partitions.merchant_keys(merchants),
        )

    def _definitions(self, options: RunOptions) -> dict[AssetName, Stage]:
        scores = self.score.definition()
        verdicts = verdict_stage(scores, self.judge.identity(options.judge or "offline"))
        return {
            "similarity_matches": scores,
            "llm_verdicts": verdicts,
            "outliers": outlier_stage(verdicts),
        }

    def _stale(
        self, options: RunOptions, state: PartitionState | None = None
    ) -> list[PartitionKey]:
        return self.partitions.stale(list(self._definitions(options).values()), options, state)

    def _unjudged(self, options: RunOptions, reporter: Reporter) -> tuple[RunOptions, StageRun]:
        """Score the stale partitions; return the stage run that the openai judge would execute."""
        options = self._named(replace(options, judge="openai"))
        reporter.fitted(self, self.score.fit(options)[0])
        state = self.partitions.state()
        stale = self._stale(options, state)
        self._compute("similarity_matches", stale, state.labels, options, reporter)
        definition = self._definitions(options)["llm_verdicts"]
        silent = replace(options, on_progress=None)
        return options, StageRun(self.warehouse, definition, stale, silent)

    def _wanted(
        self,
        asset: AssetName,
        stale: set[PartitionKey],
        state: PartitionState,
        options: RunOptions,
        reporter: Reporter,
    ) -> list[PartitionKey]:
        """List the partitions of a stage that are stale, or computed but not reported."""
        stored = state.stored[asset]
        selected = self.partitions.selected(stored, options)
        unreported = reporter.unreported(asset, {key: stored[key] for key in selected})
        wanted = sorted(stale | unreported)
        why = why_stale(wanted, stored)
        _log.info("%s: %s", asset, why)
        reporter.started(asset, why)
        return wanted

    def _compute(
        self,
        asset: AssetName,
        partitions: Sequence[PartitionKey],
        labels: LabelState,
        options: RunOptions,
        reporter: Reporter,
    ) -> StageReport:
        report = StageReport(asset)
        with closing(self._counted(asset, partitions, labels, options, report)) as results:
            reporter.consume(asset, partitions, results)
        reporter.finished(self, report)
        return report

    def _counted(
        self,
        asset: AssetName,
        partitions: Sequence[PartitionKey],
        labels: LabelState,
        options: RunOptions,
        report: StageReport,
    ) -> Generator[PartitionResult]:
        """Run one stage; count each result in the report before it is passed on."""
        if not partitions:
            return
        totals = RunTotals()
        for result in self._results(asset, partitions, labels, options, totals):
            report.add(result)
            yield result
        if asset == "llm_verdicts" and options.judge == "openai":
            report.usage = totals

    def _results(
        self,
        asset: AssetName,
        partitions: Sequence[PartitionKey],
        labels: LabelState,
        options: RunOptions,
        totals: RunTotals,
    ) -> Iterator[PartitionResult]:
        if asset == "similarity_matches":
            return self.score.run(partitions, options, labels)
        definition = self._definitions(options)[asset]
        if asset == "llm_verdicts":
            return self.judge.run(definition, partitions, options, totals, labels)
        return self.decide.run(definition, partitions, options, labels)
