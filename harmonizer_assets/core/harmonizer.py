"""The harmonizer: one home's pipeline from label batches to outlier tables."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Final, Literal, get_args

from harmonizer_assets.core import outliers, quality_history, run_history, similarity
from harmonizer_assets.core.aio import iterate
from harmonizer_assets.core.alarms import update_merchant_alarms, update_receipt_alarms
from harmonizer_assets.core.documents import DOCUMENT_VERSION
from harmonizer_assets.core.embedding import Embedder, make_embedder
from harmonizer_assets.core.errors import SourceError
from harmonizer_assets.core.evaluation import Evaluation, evaluate
from harmonizer_assets.core.fitting import FittedModel
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.indexing import Indexing
from harmonizer_assets.core.ingest import Ingest, IngestReport
from harmonizer_assets.core.judge import OfflineJudge
from harmonizer_assets.core.llm.batch_api import BatchAPI, BatchState
from harmonizer_assets.core.llm.endpoint import require_key
from harmonizer_assets.core.llm.judging import LLMJudge
from harmonizer_assets.core.llm.plan import Plan, make_plan
from harmonizer_assets.core.llm.prices import price_of
from harmonizer_assets.core.llm.scheduler import RunTotals
from harmonizer_assets.core.models import NO_MODEL, Models
from harmonizer_assets.core.outliers import OutlierPublishing, outlier_stage
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.patterns import update_patterns
from harmonizer_assets.core.pictures import cost_against_finds, heat_map, similarity_distribution
from harmonizer_assets.core.progress import Progress, ProgressFn
from harmonizer_assets.core.report import render_report, write_report
from harmonizer_assets.core.results import Counts, IndexReport, PartitionResult
from harmonizer_assets.core.settings import JudgeName, Settings
from harmonizer_assets.core.similar_words import SimilarWords
from harmonizer_assets.core.similarity import SimilarityScorer, similarity_stage
from harmonizer_assets.core.sources import TABLE_URL_VARIABLE, S3Source, Source, TableSource
from harmonizer_assets.core.stages import (
    Chunk,
    ChunkRows,
    Stage,
    StageRun,
    failures,
    label_counts,
    merchant_fingerprints,
    run_regrouping_stage,
    run_stage,
    stored_fingerprints,
)
from harmonizer_assets.core.taxonomy import Taxonomy
from harmonizer_assets.core.vector_index import VectorIndex
from harmonizer_assets.core.verdicts import OfflineJudging, requeue_dead_letters, verdict_stage
from harmonizer_assets.core.warehouse import Warehouse

AssetName = Literal["similarity_matches", "llm_verdicts", "outliers"]

ASSETS: Final[tuple[AssetName, ...]] = get_args(AssetName)
"""The partitioned assets, in the order in which they are computed."""

_SELECTED_LABELS_PER_CHUNK: Final = 100_000
"""Stages that do little but join tables take fewer, larger steps: each reads the tables once."""

_ASKING: Final = "llm_verdicts waits for another run that asks"

_COUNTS = """
SELECT
    (SELECT count(*) FROM labels) AS labels,
    (SELECT count(*) FROM label_decisions WHERE NOT is_outlier) AS valid,
    (SELECT count(*) FROM label_decisions WHERE is_outlier) AS outliers,
    (SELECT count(*) FROM label_decisions WHERE is_outlier IS NULL) AS unresolved,
    (SELECT count(*) FROM dead_letters) AS dead_letters,
    (SELECT count(*) FROM quarantine) AS quarantined,
    (SELECT count(*) FROM batches) AS batches,
    (SELECT count(*) FROM label_partitions) AS partitions,
    (SELECT count(DISTINCT merchant_key) FROM labels) AS merchants,
    (SELECT count(*) FROM merchant_alarms) AS merchant_alarms,
    (SELECT count(*) FROM receipt_alarms) AS receipt_alarms,
    (SELECT count(*) FROM label_patterns) AS patterns
"""

_UNINDEXED = """
SELECT count(*) AS n
FROM (SELECT DISTINCT image_id, receipt_id, line_id, word_id FROM labels) l
SEMI JOIN words w USING (image_id, receipt_id, line_id, word_id)
LEFT JOIN word_documents d USING (image_id, receipt_id, line_id, word_id)
LEFT JOIN document_metadata m USING (document_id)
WHERE m.document_id IS NULL
"""


_USAGE = """
SELECT label_type, sum(calls)::BIGINT AS calls, sum(words_asked)::BIGINT AS words_asked,
    sum(cache_hits)::BIGINT AS cache_hits,
    sum(skipped_by_similarity)::BIGINT AS skipped_by_similarity,
    sum(prompt_tokens)::BIGINT AS prompt_tokens,
    sum(completion_tokens)::BIGINT AS completion_tokens,
    CASE WHEN count(*) = count(cost_usd) THEN sum(cost_usd) END AS cost_usd,
    sum(retries)::BIGINT AS retries, sum(rate_limited)::BIGINT AS rate_limited
FROM llm_usage WHERE $run_id IS NULL OR run_id = $run_id
GROUP BY label_type ORDER BY cost_usd DESC NULLS LAST, calls DESC, label_type
"""


class Harmonizer:
    """Runs the pipeline of one home; usable from a notebook, without Dagster.

    Example:
        >>> harmonizer = Harmonizer(Home.resolve("harmonizer_home"))
        >>> harmonizer.ingest_pending()
        >>> harmonizer.index_documents()
        >>> partitions = harmonizer.stale_partitions("offline")
        >>> for result in harmonizer.score_partitions(partitions): ...
    """

    def __init__(self, home: Home, settings: Settings | None = None) -> None:
        """Open a home; settings default to its `harmonizer.toml`.

        Raises:
            ConfigurationError: the settings or the taxonomy of the home are invalid.
        """
        self.home = home
        self.settings = settings or Settings.load(home.settings_file)
        self.taxonomy = Taxonomy.of_home(home)
        self.warehouse = Warehouse(home)
        self.llm_totals = RunTotals()

    @cached_property
    def _embedder(self) -> Embedder:
        return make_embedder(self.settings.embedding)

    @cached_property
    def _index(self) -> VectorIndex:
        return VectorIndex(self.home, self._embedder)

    @cached_property
    def models(self) -> Models:
        """The fitted models of the home."""
        embedder = f"{self._embedder.name}/{self._embedder.version}"
        return Models(
            self.home, self.warehouse, self.taxonomy.names, embedder, self.settings.triage
        )

    @property
    def _scoring(self) -> Stage:
        """The stage with the model that is in force now, or due."""
        similarity_settings = self.settings.similarity
        identity = {
            "documents": DOCUMENT_VERSION,
            "embedder": [self._embedder.name, self._embedder.version],
            "settings": similarity_settings.model_dump(),
            "label_types": list(self.taxonomy.names),
            "model": self.models.version() if similarity_settings.scorer == "model" else NO_MODEL,
        }
        return similarity_stage(hashlib.sha256(json.dumps(identity).encode()).hexdigest())

    def fit_model(
        self, *, refit: bool = False, on_progress: ProgressFn | None = None
    ) -> tuple[str, FittedModel | None]:
        """Version and model of suspicion that is in force, fitted first where one is due.

        Without a model (the version is `NO_MODEL`) similar words alone judge: there are too few
        labels, or the settings say so.

        Args:
            refit: fit although none is due.
            on_progress: called when another process has to finish its fit first.
        """
        if self.settings.similarity.scorer != "model":
            return NO_MODEL, None
        waits = _waits_for(on_progress, "suspicion_model waits for another run that fits it")
        return self.models.ensure(self.similar_words, waits, refit=refit)

    def guarantee(self) -> str:
        """What is promised of the labels that nobody is asked about, in one sentence."""
        row = self.models.latest() if self.settings.similarity.scorer == "model" else None
        if row is None:
            return "no promise: fixed thresholds on the votes of similar words"
        if row["accepted_wrong_bound"] is None:
            return f"no promise: {row['reason']}"
        triage = self.settings.triage
        promise = (
            f"at most {row['accepted_wrong_bound']:.2%} of the accepted labels are wrong (aim "
            f"{triage.alpha:.1%}, {triage.confidence:.0%} confidence, from {row['validated']:,} "
            "validated labels"
        )
        if row["rejected_right_level"] is None:
            return f"{promise}); none is rejected without a question"
        return f"{promise}); at most {row['rejected_right_level']:.1%} of the rejected are right"

    def similar_words(self) -> SimilarWords:
        """Gathers the evidence of similar words, against the labels as they are now."""
        return SimilarWords(
            self.warehouse, self._index, self.taxonomy.names, self.settings.similarity
        )

    def ingest_pending(self, on_progress: ProgressFn | None = None) -> IngestReport:
        """Ingest all batches that wait in the inbox, oldest first."""
        return Ingest(self.home, self.warehouse, self.taxonomy).ingest_pending(on_progress)

    def sources(self) -> list[Source]:
        """The buckets and tables that the settings name, from which labels arrive."""
        arrivals = self.settings.arrivals
        found: list[Source] = []
        if arrivals.s3 is not None:
            found.append(S3Source(arrivals.s3, arrivals.s3_endpoint_url, self.home, self.warehouse))
        if arrivals.tables is not None:
            url = os.environ.get(TABLE_URL_VARIABLE)
            found.append(TableSource(arrivals.tables, url, self.home, self.warehouse))
        return found

    def pull_sources(self) -> tuple[int, list[SourceError]]:
        """Copy what is new in the sources into the inbox.

        Returns:
            The number of batches, and why sources could not be read: the others are.

        Raises:
            StoreError: the inbox cannot be written.
        """
        pulled, errors = 0, []
        for source in self.sources():
            try:
                pulled += source.pull()
            except SourceError as error:
                errors.append(error)
        return pulled, errors

    def waiting_batches(self) -> tuple[str | None, list[SourceError]]:
        """Names what waits in the inbox and the sources: None when nothing does.

        The errors are those of sources that cannot be read; the rest is looked at all the same.
        """
        waiting = [Ingest(self.home, self.warehouse, self.taxonomy).waiting()]
        errors = []
        for source in self.sources():
            try:
                waiting.append(source.waiting())
            except SourceError as error:
                errors.append(error)
        found = [name for name in waiting if name is not None]
        return ("-".join(found) if found else None), errors

    def index_documents(self, on_progress: ProgressFn | None = None) -> IndexReport:
        """Bring the vector index up to date with words and labels."""
        return Indexing(self.warehouse, self._index, self._embedder).run(on_progress)

    def partitions(
        self, label_types: Sequence[str] | None = None, merchants: Sequence[str] | None = None
    ) -> list[PartitionKey]:
        """The partitions that hold labels, optionally only some label types or merchant keys."""
        return self._selected(self.warehouse.read(label_counts), label_types, merchants)

    def materialize(
        self,
        asset: AssetName,
        partitions: Sequence[PartitionKey],
        *,
        judge: JudgeName,
        run_id: str = "",
        refresh: bool = False,
        on_progress: ProgressFn | None = None,
    ) -> Iterator[PartitionResult]:
        """Compute one partitioned asset; see `score_partitions` and those after it."""
        options: dict[str, Any] = {
            "run_id": run_id,
            "refresh": refresh,
            "on_progress": on_progress,
        }
        match asset:
            case "similarity_matches":
                return self.score_partitions(partitions, **options)
            case "llm_verdicts":
                return self.judge_partitions(partitions, judge=judge, **options)
            case "outliers":
                return self.publish_outliers(partitions, judge=judge, **options)

    def emptied_partitions(self) -> list[PartitionKey]:
        """The partitions that have lost all their labels but still hold rows."""
        held, stored, failed = self.warehouse.read(
            lambda con: (
                label_counts(con),
                [stored_fingerprints(con, asset) for asset in (similarity.ASSET, outliers.ASSET)],
                failures(con, ASSETS),
            )
        )
        left = {*failed, *(key for assets in stored for key in assets)}
        return sorted(key for key in left if key not in held)

    def failed_partitions(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """The partitions that could not be computed, by one run or by any; latest first.

        Each with `asset`, `label_type`, `merchant_key`, `error`, `traceback`, `run_id` and
        `failed_at`. A later run computes them again, since they are not up to date.
        """
        return self.warehouse.query(
            "SELECT * FROM partition_failures WHERE $run_id IS NULL OR run_id = $run_id "
            "ORDER BY failed_at DESC, asset, label_type, merchant_key",
            {"run_id": run_id},
        ).to_pylist()

    def _selected(
        self,
        partitions: Sequence[PartitionKey] | dict[PartitionKey, int],
        label_types: Sequence[str] | None,
        merchants: Sequence[str] | None,
    ) -> list[PartitionKey]:
        types = set(self.taxonomy.names if label_types is None else label_types)
        keys = None if merchants is None else set(merchants)
        return sorted(
            partition
            for partition in partitions
            if partition.label_type in types and (keys is None or partition.merchant_key in keys)
        )

    def stale_partitions(
        self,
        judge: JudgeName,
        label_types: Sequence[str] | None = None,
        merchants: Sequence[str] | None = None,
        *,
        refresh: bool = False,
    ) -> list[PartitionKey]:
        """The partitions whose stored results are not those of the present labels and settings.

        Partitions that lost all their labels are among them, so that their rows are removed.

        Args:
            judge: who is to decide ambiguous labels.
            refresh: select every partition, as after many new merchants have arrived.
        """
        stages = self._stages(judge)
        counts, prints, stored = self.warehouse.read(
            lambda con: (
                label_counts(con),
                merchant_fingerprints(con),
                {stage.asset: stored_fingerprints(con, stage.asset) for stage in stages},
            )
        )
        stale = [
            partition
            for partition in counts
            if refresh
            or any(
                stored[stage.asset].get(partition)
                != stage.fingerprint(prints[partition.merchant_key])
                for stage in stages
            )
        ]
        return self._selected([*stale, *self.emptied_partitions()], label_types, merchants)

    def _stages(self, judge: JudgeName) -> tuple[Stage, Stage, Stage]:
        identity = OfflineJudge().identity if judge == "offline" else self.llm_judge().identity
        scoring = self._scoring
        verdicts = verdict_stage(scoring, identity)
        return scoring, verdicts, outlier_stage(verdicts)

    def llm_judge(self) -> LLMJudge:
        """The language-model judge with the home's settings; it sends nothing by itself."""
        return LLMJudge(self.home, self.settings.judge, self.taxonomy, self.warehouse)

    def score_partitions(
        self,
        partitions: Sequence[PartitionKey],
        *,
        run_id: str = "",
        refresh: bool = False,
        on_progress: ProgressFn | None = None,
    ) -> Iterator[PartitionResult]:
        """Compute `similarity_matches` of these partitions; yields each once it is committed."""

        model = self.fit_model(on_progress=on_progress)

        @cache
        def scorer() -> SimilarityScorer:
            # Made on first use: a run without changes must not load the corpus.
            return SimilarityScorer(
                self.warehouse,
                self.similar_words(),
                model,
                self.settings.similarity,
                self.settings.triage,
            )

        yield from run_stage(
            self.warehouse,
            self._scoring,
            partitions,
            lambda chunk: scorer().score(chunk),
            run_id=run_id,
            refresh=refresh,
            on_progress=on_progress,
        )

    def judge_partitions(
        self,
        partitions: Sequence[PartitionKey],
        *,
        judge: JudgeName,
        run_id: str = "",
        refresh: bool = False,
        on_progress: ProgressFn | None = None,
    ) -> Iterator[PartitionResult]:
        """Judge the ambiguous labels of these partitions; yields each once it is committed.

        Raises:
            ConfigurationError: the judge needs a key that the environment does not hold.
            JudgeError: the judge can answer nothing; what it answered before is kept.
        """
        options: dict[str, Any] = {
            "run_id": run_id,
            "refresh": refresh,
            "on_progress": on_progress,
        }
        stage = self._stages(judge)[1]
        if judge == "offline":
            offline = OfflineJudging(self.warehouse, OfflineJudge())
            yield from run_stage(
                self.warehouse,
                stage,
                partitions,
                offline.judge,
                labels_per_chunk=_SELECTED_LABELS_PER_CHUNK,
                **options,
            )
            return
        require_key()
        llm = self.llm_judge()
        self.llm_totals = llm.totals
        waits = _waits_for(on_progress, _ASKING)
        yield from run_regrouping_stage(
            self.warehouse,
            stage,
            partitions,
            lambda chunks: iterate(lambda: llm.judge(chunks, run_id, waits)),
            **options,
        )

    async def ask_partitions(
        self,
        partitions: Sequence[PartitionKey],
        *,
        run_id: str = "",
        refresh: bool = False,
        on_progress: ProgressFn | None = None,
    ) -> AsyncGenerator[PartitionResult]:
        """What `judge_partitions` does with the openai judge, for asynchronous callers."""
        require_key()
        llm = self.llm_judge()
        self.llm_totals = llm.totals
        run = await asyncio.to_thread(
            partial(
                StageRun,
                self.warehouse,
                self._stages("openai")[1],
                partitions,
                run_id=run_id,
                refresh=refresh,
                on_progress=on_progress,
            )
        )
        for result in await asyncio.to_thread(lambda: [*run.unchanged(), *run.blocked()]):
            yield result
        waits = _waits_for(on_progress, _ASKING)
        async with aclosing(llm.judge(run.chunks(), run_id, waits)) as judged:
            async for chunk, rows in judged:
                for result in await asyncio.to_thread(partial(_committed, run, chunk, rows)):
                    yield result

    def publish_outliers(
        self,
        partitions: Sequence[PartitionKey],
        *,
        judge: JudgeName,
        run_id: str = "",
        refresh: bool = False,
        on_progress: ProgressFn | None = None,
    ) -> Iterator[PartitionResult]:
        """Write the `outliers` of these partitions; yields each once it is committed."""
        publishing = OutlierPublishing(
            self.warehouse, self.taxonomy.names, self.settings.similarity.match_threshold
        )
        yield from run_stage(
            self.warehouse,
            self._stages(judge)[2],
            partitions,
            publishing.publish,
            run_id=run_id,
            refresh=refresh,
            on_progress=on_progress,
            labels_per_chunk=_SELECTED_LABELS_PER_CHUNK,
        )

    def unscored_partitions(self) -> list[PartitionKey]:
        """The partitions whose labels or settings have changed since they were scored."""
        scoring = self._scoring
        counts, prints, stored = self.warehouse.read(
            lambda con: (
                label_counts(con),
                merchant_fingerprints(con),
                stored_fingerprints(con, similarity.ASSET),
            )
        )
        return self._selected(
            [
                key
                for key in counts
                if stored.get(key) != scoring.fingerprint(prints[key.merchant_key])
            ],
            None,
            None,
        )

    def unindexed_words(self) -> int:
        """How many labelled words that have arrived are not in the vector index."""
        row = self.warehouse.query(_UNINDEXED).to_pylist()[0]
        return int(row["n"])

    def plan(self, partitions: Sequence[PartitionKey], *, refresh: bool = False) -> Plan:
        """What asking a model about these partitions would take; needs no key and asks nobody."""
        judge = self.llm_judge()
        run = StageRun(
            self.warehouse,
            self._stages("openai")[1],
            partitions,
            run_id="",
            refresh=refresh,
            on_progress=None,
        )
        price = price_of(self.home, judge.model)
        return make_plan(judge, run.chunks(), self.settings.judge, price)

    def batch_api(self) -> BatchAPI:
        """The Batch API with the home's settings.

        Raises:
            ConfigurationError: there is no key.
        """
        judge = self.llm_judge()
        price = price_of(self.home, judge.model)
        return BatchAPI(judge, self.warehouse, price, self.settings.judge.llm_batch_size)

    def has_open_batches(self) -> bool:
        """Whether batches of the Batch API have answers to be collected; needs no key."""
        found = self.warehouse.query("SELECT count(*) AS n FROM llm_batch_items").to_pylist()
        return bool(found[0]["n"])

    def submit_batch(
        self, partitions: Sequence[PartitionKey], *, run_id: str = "", refresh: bool = False
    ) -> list[BatchState]:
        """Submit the open questions of these partitions to the Batch API.

        Raises:
            ConfigurationError: there is no key, or a budget in USD for a model without a price.
            JudgeError: the endpoint does not take the batch.
        """
        run = StageRun(
            self.warehouse,
            self._stages("openai")[1],
            partitions,
            run_id=run_id,
            refresh=refresh,
            on_progress=None,
        )
        budget = self.llm_judge().budget(in_batch=True)
        return self.batch_api().submit(run.chunks(), run_id, budget)

    def requeue_dead_letters(self) -> list[PartitionKey]:
        """Have the next run ask the dead letters again; the partitions that hold them."""
        return self.warehouse.write(requeue_dead_letters)

    def usage(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """What has been used per label type, by one run or by all; most expensive first."""
        return self.warehouse.query(_USAGE, {"run_id": run_id}).to_pylist()

    def check_judge(self, judge: JudgeName) -> None:
        """See that a judge can work.

        Raises:
            ConfigurationError: it needs a key that the environment does not hold, or it has a
                budget in USD and the model's price is not known.
        """
        if judge == "openai":
            require_key()
            self.llm_judge().budget()

    def decided_by(self) -> dict[str, int]:
        """How many labels each way of deciding has decided."""
        rows = self.warehouse.query(
            "SELECT decided_by, count(*) AS n FROM label_decisions GROUP BY ALL ORDER BY ALL"
        ).to_pylist()
        return {row["decided_by"]: row["n"] for row in rows}

    def update_alarms(self) -> int:
        """Find receipts whose merchant name is suspect; how many there are."""
        return update_merchant_alarms(self.warehouse)

    def update_receipt_alarms(self) -> int:
        """Find receipts on which many label types are wrong together; how many there are."""
        return update_receipt_alarms(self.warehouse)

    def update_patterns(self) -> int:
        """Find recurring wrong labels that could become rules; how many there are."""
        return update_patterns(self.warehouse, self.settings.patterns)

    def contradictions(self) -> list[dict[str, Any]]:
        """Equal words that are validated with different label types: `label_contradictions`."""
        return self.warehouse.query(
            "SELECT * FROM label_contradictions ORDER BY n_a + n_b DESC, merchant_key, document_id"
        ).to_pylist()

    @property
    def truth_file(self) -> Path | None:
        """The truth file that the settings name."""
        truth = self.settings.evaluation.truth
        return None if truth is None else self.home.root / truth

    def evaluate(self, truth: Path, *, run_id: str = "") -> Evaluation:
        """Compare what was decided with a truth file and keep the figures in `quality_history`.

        Raises:
            InputError: the truth file is not usable.
        """
        evaluation = evaluate(self.warehouse, truth)
        quality_history.record(self.warehouse, evaluation, run_id)
        return evaluation

    def write_report(self, run_id: str = "", folder: Path | None = None) -> Path:
        """Write the harmonization report as one HTML page.

        Args:
            run_id: the run that it is of; names the file.
            folder: where to; by default the home's `reports`.

        Raises:
            StoreError: the folder cannot be written.
        """
        now = dt.datetime.now(dt.UTC)
        page = render_report(self.warehouse, guarantee=self.guarantee(), made_at=now, run_id=run_id)
        name = run_id or f"{now:%Y%m%dT%H%M%S}"
        return write_report(folder or self.home.reports, page, name)

    def record_run(self, run_id: str) -> None:
        """Keep the totals after a run, with which the next run is compared."""
        run_history.record(self.warehouse, run_id)

    def outlier_rate_jumps(self) -> list[run_history.Jump]:
        """Label types whose share of outliers the last run has changed, by more than chance."""
        return run_history.jumps(self.warehouse, self.settings.checks.max_outlier_rate_jump)

    def verdict_drift(self) -> run_history.Drift:
        """How verdicts have changed with the model or the prompt."""
        return run_history.drift(self.warehouse)

    def pictures(self) -> dict[str, bytes]:
        """Pictures of what was found, as PNG: similarity, the heat map, cost against finds."""
        return {
            "similarity_distribution": similarity_distribution(self.warehouse),
            "heat_map": heat_map(self.warehouse),
            "cost_against_finds": cost_against_finds(self.warehouse),
        }

    def picture_of(self, partition: PartitionKey) -> bytes:
        """How alike the labels of a partition are, as a PNG image."""
        return similarity_distribution(self.warehouse, partition)

    @property
    def index_version(self) -> str:
        """Names what vectors are made of and by whom; equal versions can be compared."""
        return f"{DOCUMENT_VERSION}/{self._embedder.name}/{self._embedder.version}"

    def worst_outliers(self, limit: int) -> list[dict[str, Any]]:
        """The most suspicious labels of all, with their lines and reasons."""
        return self.warehouse.query(
            "SELECT label_type, merchant_key, merchant_name, word_text, line, reasoning, "
            "outlier_score, suggested_label, image_id, receipt_id, line_id, word_id "
            "FROM outliers WHERE is_outlier ORDER BY outlier_score DESC, image_id, receipt_id, "
            "line_id, word_id, label_type LIMIT $limit",
            {"limit": limit},
        ).to_pylist()

    def counts(self) -> Counts:
        """The home's totals."""
        return Counts(**self.warehouse.query(_COUNTS).to_pylist()[0])


def _waits_for(on_progress: ProgressFn | None, what: str) -> Callable[[], None] | None:
    """Report as progress that another run has to finish first."""
    if on_progress is None:
        return None
    return lambda: on_progress(Progress(what, 0, 0, 0, 0))


def _committed(run: StageRun, chunk: Chunk, rows: ChunkRows) -> list[PartitionResult]:
    return list(run.commit(chunk, rows))
