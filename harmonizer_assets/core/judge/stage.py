"""The `llm_verdicts` stage: a judge decides the labels that the score leaves open."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from harmonizer_assets.core.base.aio import iterate
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.progress import ProgressFn, waits_for
from harmonizer_assets.core.base.settings import JudgeName, JudgeSettings
from harmonizer_assets.core.judge.llm import (
    Answer,
    BatchJob,
    BatchJobs,
    EmbeddingMeter,
    LLMJudge,
    asking,
    asking_if_idle,
    collected_partitions,
    forget_collected,
    price_of,
    recover,
    recover_if_idle,
    require_key,
)
from harmonizer_assets.core.judge.offline import OfflineJudge
from harmonizer_assets.core.judge.offline_judging import OfflineJudging
from harmonizer_assets.core.records.account import Account
from harmonizer_assets.core.records.label import Question
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import PartitionResult, RunTotals
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.core.stages.run import (
    LABELS_PER_LARGE_CHUNK,
    run_regrouping_stage,
    run_stage,
)
from harmonizer_assets.core.stages.stage import Chunk, Stage
from harmonizer_assets.core.stages.state import LabelState
from harmonizer_assets.core.store.warehouse import Warehouse

_log = logging.getLogger(__name__)

_WAITS: Final = "llm_verdicts waits for another run that asks"


class JudgeStage:
    """Computes `llm_verdicts`: a judge's verdicts on the labels that the score leaves open."""

    def __init__(
        self, home: Home, warehouse: Warehouse, taxonomy: Taxonomy, settings: JudgeSettings
    ) -> None:
        """Set up the stage; nothing is asked yet."""
        self._home = home
        self._warehouse = warehouse
        self._taxonomy = taxonomy
        self._settings = settings

    def language_model(self) -> LLMJudge:
        """Make the judge that asks a model, with the home's settings; it sends nothing yet."""
        return LLMJudge(self._home, self._settings, self._taxonomy, self._warehouse)

    def batch_jobs(self) -> BatchJobs:
        """Open the Batch API with the home's settings.

        Raises:
            ConfigurationError: there is no key.
        """
        model = self.language_model()
        price = price_of(self._home, model.model)
        size = self._settings.llm_batch_size
        return BatchJobs(self._home, model, self._warehouse, price, size)

    def submit(self, chunks: Iterable[Chunk], options: RunOptions) -> list[BatchJob]:
        """Submit the questions of chunks to the Batch API, once no other run of the home asks.

        Raises:
            ConfigurationError: there is no key, or a budget in USD for a model without a price.
            JudgeError: the endpoint does not take the batch job.
        """
        model = self.language_model()
        # An unusable budget is an error before a lock is waited for.
        model.check_budget()
        waits = waits_for(options.on_progress, _WAITS)
        return self.batch_jobs().submit(chunks, options.account, waits)

    def collect(self) -> list[PartitionKey]:
        """Store the answers of the batch jobs that have ended.

        Returns:
            The partitions that wait for them, those of a collection that was killed included.

        Raises:
            ConfigurationError: there is no key.
            JudgeError: the endpoint does not return the answers.
        """
        collected = self.batch_jobs().collect()
        _log.info("%d answers of %d batch jobs", collected.answers, collected.batches)
        return self.collected()

    def collected(self) -> list[PartitionKey]:
        """List the partitions of collected batch jobs that no run has brought up to date since."""
        return self._warehouse.read(collected_partitions)

    def finish_collection(self, partitions: Sequence[PartitionKey]) -> None:
        """Record that the partitions of a collection are up to date."""
        self._warehouse.write(lambda con: forget_collected(con, partitions))

    @contextmanager
    def embedding_meter(
        self, model: str, account: Account, on_progress: ProgressFn | None
    ) -> Iterator[EmbeddingMeter]:
        """Charge embeddings to an account; nobody else asks from the first of them to the end.

        Args:
            model: that embeds.
            account: that is charged.
            on_progress: told if another run has to finish first.

        Raises:
            ConfigurationError: there is a budget in USD, and the model's price is not known.
        """
        waits = waits_for(on_progress, "word_embeddings waits for another run that asks")
        price = price_of(self._home, model, embeds=True)
        patience = self._settings.wait_seconds
        with ExitStack() as stack:
            yield EmbeddingMeter(
                self._warehouse,
                self._settings,
                account,
                model,
                price,
                lambda: stack.enter_context(asking(self._home, waits, timeout=patience)),
            )

    def check(self, judge: JudgeName | None = None) -> None:
        """Check that a judge can work; by default the one that the settings name.

        Raises:
            ConfigurationError: it needs a key that the environment does not hold, or it has a
                budget in USD and the model's price is not known.
        """
        if (judge or self._settings.judge) == "openai":
            require_key()
            self.language_model().check_budget()

    def recover(self) -> list[str]:
        """Put the answers of killed runs into the tables, unless a run is asking now.

        Returns:
            A sentence about each journal of answers that was damaged.
        """
        return recover_if_idle(self._home, self._warehouse)

    @contextmanager
    def idle(self) -> Iterator[bool]:
        """Keep everyone from asking, with all answers in the tables; yield whether nobody asks.

        Raises:
            StoreError: the answers of a killed run cannot be read.
        """
        with asking_if_idle(self._home) as is_idle:
            if is_idle:
                recover(self._home.journals, self._warehouse)
            yield is_idle

    def identity(self, judge: JudgeName) -> str:
        """Return an identity of the judge that changes whenever its verdicts could."""
        return self._offline().identity if judge == "offline" else self.language_model().identity

    def _offline(self) -> OfflineJudging:
        bought = self.language_model().bought_answers()
        return OfflineJudging(self._warehouse, OfflineJudge(), bought)

    def answers_to(
        self, batches: Iterable[Sequence[Question]], options: RunOptions, totals: RunTotals
    ) -> Iterator[list[tuple[Question, Answer | None]]]:
        """Ask a model about words that carry no label; yield each batch with its answers.

        Args:
            batches: questions about `NO_LABEL`.
            options: of the run.
            totals: to which calls, tokens and cost are added.

        Raises:
            ConfigurationError: there is no key, or a budget in USD for a model without a price.
            JudgeError: the model can answer nothing; what it answered before is kept.
        """
        require_key()
        model = self.language_model()
        waits = waits_for(options.on_progress, "proposals wait for another run that asks")
        yield from iterate(
            lambda: model.answers_to(batches, options.account, totals, waits), options.stop
        )

    def run(
        self,
        definition: Stage,
        partitions: Sequence[PartitionKey],
        options: RunOptions,
        totals: RunTotals,
        labels: LabelState | None = None,
    ) -> Iterator[PartitionResult]:
        """Judge partitions; yield each once its rows are committed.

        Args:
            definition: of the stage.
            partitions: with scored labels.
            options: of the run, with the judge.
            totals: to which calls, tokens and cost are added.
            labels: the labels' state, where it has been read already.

        Raises:
            ConfigurationError: the judge needs a key that the environment does not hold.
            JudgeError: the judge can answer nothing; what it answered before is kept.
        """
        if options.judge != "openai":
            yield from run_stage(
                self._warehouse,
                definition,
                partitions,
                self._offline().judge,
                options,
                labels=labels,
                labels_per_chunk=LABELS_PER_LARGE_CHUNK,
            )
            return
        require_key()
        model = self.language_model()
        waits = waits_for(options.on_progress, _WAITS)
        yield from run_regrouping_stage(
            self._warehouse,
            definition,
            partitions,
            lambda chunks: iterate(
                lambda: model.judge(chunks, options.account, totals, waits), options.stop
            ),
            options,
            labels=labels,
        )
