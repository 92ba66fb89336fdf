"""Proposals for receipts that carry no label: by the fitted model, or by a judge, to a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.secrets import secrets_removed
from harmonizer_assets.core.base.settings import JudgeSettings
from harmonizer_assets.core.decide.proposed_by_judge import JudgedProposals, ProposingJudge
from harmonizer_assets.core.decide.unlabelled import (
    propose_labels,
    unlabelled_receipts,
    write_proposals,
)
from harmonizer_assets.core.judge.stage import JudgeStage
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.score.stage import ScoreStage
from harmonizer_assets.core.store.warehouse import Warehouse


class LabelProposals:
    """Proposes labels for the receipts of a home that carry none. No label of the home changes."""

    def __init__(
        self,
        warehouse: Warehouse,
        label_types: Sequence[str],
        score: ScoreStage,
        judge: JudgeStage,
        settings: JudgeSettings,
    ) -> None:
        self._warehouse = warehouse
        self._label_types = label_types
        self._score = score
        self._judge = judge
        self._settings = settings

    def from_model(
        self, path: Path, least: float = 0.8, *, overwrite: bool = False
    ) -> tuple[int, int]:
        """Write labels as the fitted model sees them to a file.

        Args:
            path: a Parquet file, to be made.
            least: probability from which a label is proposed, 0..1.
            overwrite: whether a file that is there is replaced.

        Returns:
            How many receipts have no label, and how many labels are proposed for them.

        Raises:
            InputError: no model is fitted yet, or the file cannot be written.
        """
        version, model = self._score.in_force()
        if model is None:
            raise InputError(
                f"{self._warehouse.home.root}: there is no fitted model: it takes 200 labels and a "
                "run"
            )
        receipts = unlabelled_receipts(self._warehouse)
        tables = propose_labels(self._warehouse, receipts, self._label_types, model, version, least)
        return receipts.num_rows, write_proposals(path, tables, overwrite=overwrite)

    @secrets_removed()
    def from_judge(
        self, path: Path, options: RunOptions | None = None, *, overwrite: bool = False
    ) -> JudgedProposals:
        """Write labels as a judge sees them to a file; its answers, usage and cost are stored.

        Args:
            path: a Parquet file, to be made.
            options: which judge.
            overwrite: whether a file that is there is replaced.

        Raises:
            InputError: no model is fitted for the offline judge, or the file cannot be written.
            ConfigurationError: the judge cannot work with the settings and the environment.
            JudgeError: the endpoint can answer nothing; what it answered before is kept.
            RunStoppedError: the caller stopped it.
        """
        options, found = (options or RunOptions()).named(self._settings.judge), JudgedProposals()
        self._judge.check(options.judge)
        version, model = self._score.in_force()
        proposing = ProposingJudge(
            self._warehouse,
            self._label_types,
            version,
            model,
            asks_all=not self._settings.skip_high_confidence,
        )
        if options.judge == "openai":
            ask = partial(self._judge.answers_to, options=options, totals=found.usage)
            tables = proposing.by_model(ask, self._judge.language_model().model, found)
        else:
            tables = proposing.offline(found)
        write_proposals(path, tables, overwrite=overwrite)
        return found
