"""The rows of `similarity_matches`: what is made of labels once their votes are gathered.

Array work alone: it needs neither database nor index, so it runs wherever labels and votes are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.base.settings import SimilaritySettings, TriageSettings
from harmonizer_assets.core.records.label import LABEL_KEY
from harmonizer_assets.core.score.calibration import are_rejected
from harmonizer_assets.core.score.classifier import EVIDENCE_GROUPS
from harmonizer_assets.core.score.fitting import FittedModel, locate_labels
from harmonizer_assets.core.score.pages import Page
from harmonizer_assets.core.score.scoring import (
    DECIMALS,
    Scores,
    rejected_but_right,
    score_in_parts,
    score_labels,
)
from harmonizer_assets.core.score.similar_words import label_type_columns
from harmonizer_assets.core.score.unknown import NO_WORD
from harmonizer_assets.core.score.votes import Ints, Votes

JSON_COLUMNS: Final = ("alternatives", "contributions")
"""Columns whose texts are JSON."""

_ALTERNATIVES: Final = 4
"""Label types per label that a judge's suggestion is compared with."""
_UNKNOWN_SCORE: Final = 0.5
"""Score of a label whose word has not arrived."""


@dataclass(frozen=True)
class Gathered:
    """What n labels are scored from.

    Attributes:
        labels: n rows as `read_merchant_labels` gives them: all labels of each merchant.
        page: the words of all receipts that hold them; None where similar words alone score them.
        votes: on the m labels whose words have arrived, in their order.
        known: shape (n,), which labels those are.
        nearest: m ids of the nearest documents of other merchants; None where there is none.
    """

    labels: pa.Table
    page: Page | None
    votes: Votes
    known: npt.NDArray[np.bool_]
    nearest: Sequence[str | None]


@dataclass(frozen=True)
class Scorer:
    """Scores labels with one model and one set of settings.

    Attributes:
        label_types: the taxonomy's names.
        version: of the model.
        model: None where similar words alone are to decide.
        similarity: settings of similarity.
        triage: settings of triage.
    """

    label_types: Sequence[str]
    version: str
    model: FittedModel | None
    similarity: SimilaritySettings
    triage: TriageSettings

    def rows(self, gathered: Gathered) -> pa.Table:
        """Make the rows of all labels, in their order."""
        labels, known = gathered.labels, gathered.known
        columns = _unknown_columns(labels["validation_status"].to_pylist())
        scored = labels.filter(pa.array(known))
        if scored.num_rows:
            scores = self._scores(scored, gathered.page, gathered.votes)
            kinds = label_type_columns(scored, self.label_types)
            for name, values in self._columns(gathered, scores, kinds).items():
                columns[name][known] = values
        table = labels.select(LABEL_KEY)
        table = table.append_column("label_type", labels["label"])
        table = table.append_column("merchant_key", labels["merchant_key"])
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values, from_pandas=True))
        scorer = self.similarity.scorer
        if scorer == "model" and self.model is None:
            scorer = "evidence"
        for name, value in (("scorer", scorer), ("model_version", self.version)):
            table = table.append_column(name, pa.array([value] * labels.num_rows, pa.string()))
        return table

    def _scores(self, labels: pa.Table, page: Page | None, votes: Votes) -> Scores:
        if self.model is None or page is None:
            return score_labels(votes, labels["validation_status"].to_pylist(), self.similarity)
        located = locate_labels(labels, page, self.label_types, votes.type_probability)
        return score_in_parts(self.model, located, votes, self.triage)

    def _columns(
        self, gathered: Gathered, scores: Scores, kinds: Ints
    ) -> dict[str, npt.NDArray[Any]]:
        votes, names = gathered.votes, np.array(self.label_types, dtype=object)
        every, probability = np.arange(len(kinds)), scores.type_probability
        return {
            "n_matches": votes.n_matches,
            "best_similarity": _rounded(votes.best_similarity),
            "mean_similarity": _rounded(votes.mean_similarity),
            "outlier_score": scores.outlier_score,
            "score_without_status": scores.without_status,
            "triage": scores.triage.astype(object),
            "looks_right": scores.looks_right,
            "unknown_because": scores.unknown_because,
            "valid_matches": votes.valid_matches,
            "label_probability": _rounded(probability[every, kinds]),
            "competing_label": names[scores.competing_type],
            "competing_probability": _rounded(probability[every, scores.competing_type]),
            "alternatives": _alternatives(probability, names),
            "merchant_for": _rounded(votes.merchant_for),
            "merchant_against": _rounded(votes.merchant_against),
            "corpus_for": _rounded(votes.corpus_for),
            "corpus_against": _rounded(votes.corpus_against),
            "own_similarity": _rounded(votes.own_similarity),
            "corpus_similarity": _rounded(votes.corpus_similarity),
            "nearest_document": np.array(gathered.nearest, dtype=object),
            "no_label": scores.no_label.astype(object),
            "contributions": _contributions(scores),
        }


def _contributions(scores: Scores) -> npt.NDArray[np.object_]:
    """Render the log odds by group against the labels of which something is known as JSON."""
    if scores.contributions is None:
        return np.full(len(scores.outlier_score), None, dtype=object)
    return np.array(
        [
            None if unknown else json.dumps(dict(zip(EVIDENCE_GROUPS, row, strict=True)))
            for row, unknown in zip(
                np.round(scores.contributions, 2).tolist(), scores.unknown_because, strict=True
            )
        ],
        dtype=object,
    )


def _unknown_columns(statuses: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Make the columns of n labels with these statuses whose words have not arrived."""
    n = len(statuses)
    rejected = are_rejected(statuses)
    zero = [
        "best_similarity",
        "mean_similarity",
        "merchant_for",
        "merchant_against",
        "corpus_for",
        "corpus_against",
        "own_similarity",
        "corpus_similarity",
    ]
    columns: dict[str, npt.NDArray[Any]] = {name: np.zeros(n) for name in zero}
    columns["n_matches"] = np.zeros(n, dtype=np.int64)
    columns["valid_matches"] = np.zeros(n, dtype=np.int64)
    columns["outlier_score"] = np.full(n, _UNKNOWN_SCORE)
    columns["score_without_status"] = np.full(n, _UNKNOWN_SCORE)
    columns["triage"] = np.where(rejected, "outlier", "ambiguous").astype(object)
    columns["unknown_because"] = np.full(n, NO_WORD, dtype=object)
    columns["looks_right"] = rejected_but_right(rejected, np.zeros(n, dtype=bool))
    columns["label_probability"] = np.zeros(n)
    columns["competing_probability"] = np.zeros(n)
    columns["competing_label"] = np.full(n, None, dtype=object)
    columns["nearest_document"] = np.full(n, None, dtype=object)
    columns["alternatives"] = np.full(n, None, dtype=object)
    columns["no_label"] = np.full(n, False, dtype=object)
    columns["contributions"] = np.full(n, None, dtype=object)
    return columns


def _alternatives(
    probability: npt.NDArray[np.float64], names: npt.NDArray[np.object_]
) -> npt.NDArray[np.object_]:
    """Render the most probable label types of each label as JSON, the most probable first."""
    order = np.argsort(-probability, axis=1, kind="stable")[:, :_ALTERNATIVES]
    values = np.round(np.take_along_axis(probability, order, axis=1), 3).tolist()
    return np.array(
        [
            json.dumps(dict(zip(row, chances, strict=True)))
            for row, chances in zip(names[order].tolist(), values, strict=True)
        ],
        dtype=object,
    )


def _rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.round(values, DECIMALS)
