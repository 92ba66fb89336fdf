"""Labels for receipts that carry none, as a judge sees them.

A language model is asked like about every other label: whether it is right that the word carries
none, and which type fits otherwise. The offline judge is asked whether the type that the fitted
model takes a word for is right. What comes out is as in `unlabelled`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.decide.unlabelled import (
    SCHEMA,
    class_log_probability,
    pages,
    proposal,
    unlabelled_receipts,
)
from harmonizer_assets.core.index.documents import PLACE_BINS, ROW_END, ROW_START
from harmonizer_assets.core.judge import OfflineJudge
from harmonizer_assets.core.judge.llm import Answer
from harmonizer_assets.core.records.label import LabelKey, Question, word_keys
from harmonizer_assets.core.records.mask import mask_of
from harmonizer_assets.core.records.merchant import UNKNOWN_MERCHANT
from harmonizer_assets.core.records.reports import RunTotals
from harmonizer_assets.core.records.taxonomy import NO_LABEL
from harmonizer_assets.core.score.fitting import FittedModel
from harmonizer_assets.core.score.pages import Page
from harmonizer_assets.core.score.view import Floats
from harmonizer_assets.core.store.warehouse import Warehouse

BY_OFFLINE_JUDGE: Final = "offline_judge"
BY_MODEL: Final = "llm"
_HARDLY: Final = 0.01
"""Probability of a label below which a language model is not asked about a word."""
_EVEN: Final = 0.5

AskFn = Callable[[Iterable[Sequence[Question]]], Iterator[Sequence[tuple[Question, Answer | None]]]]


@dataclass
class JudgedProposals:
    """What a judge has proposed.

    Attributes:
        receipts: that carry no label.
        words: that the judge was asked about, equal questions included.
        unanswered: words without an answer, as the budget was used up or all attempts failed.
        labels: how many were proposed.
        usage: of a language model.
    """

    receipts: int = 0
    words: int = 0
    unanswered: int = 0
    labels: int = 0
    usage: RunTotals = field(default_factory=RunTotals)


class ProposingJudge:
    """Has a judge propose labels for the receipts of a home that carry none."""

    def __init__(
        self,
        warehouse: Warehouse,
        label_types: Sequence[str],
        version: str,
        model: FittedModel | None,
        *,
        asks_all: bool = False,
    ) -> None:
        """Set up; nothing is read yet.

        Args:
            warehouse: holds the words.
            label_types: the taxonomy's names.
            version: of the fitted model.
            model: in force, if any.
            asks_all: ask a language model also where the fitted model sees no label.
        """
        self._warehouse = warehouse
        self._label_types = tuple(label_types)
        self._version = version
        self._model = model
        self._least = 0.0 if asks_all else _HARDLY

    def offline(self, found: JudgedProposals) -> Iterator[pa.Table]:
        """Yield what the offline judge proposes, some receipts at a time; count it in `found`.

        Raises:
            InputError: no model is fitted, so it can know nothing.
        """
        if self._model is None:
            raise InputError(
                "the offline judge knows no more than the fitted model, and there is none: it "
                "takes 200 labels and a run"
            )
        judge = OfflineJudge()
        for page in self._pages(found):
            questions = [*self._on_types(page, class_log_probability(page, self._model))]
            verdicts = judge.decide(questions)
            found.words += len(questions)
            rows = [
                proposal(
                    question.key.word,
                    question.word_text,
                    question.key.label,
                    BY_OFFLINE_JUDGE,
                    self._version,
                    verdict.confidence,
                )
                for question, verdict in zip(questions, verdicts, strict=True)
                if verdict.is_outlier is False
            ]
            found.labels += len(rows)
            yield pa.Table.from_pylist(rows, SCHEMA)

    def by_model(self, ask: AskFn, name: str, found: JudgedProposals) -> Iterator[pa.Table]:
        """Yield what a language model proposes, some receipts at a time; count it in `found`.

        Args:
            ask: asks batches of questions, and gives them back with their answers.
            name: of the model.
            found: to which it is added.
        """
        for answered in ask(self._batches(found)):
            found.words += len(answered)
            rows = []
            for question, answer in answered:
                if answer is None:
                    found.unanswered += 1
                elif answer.is_outlier and answer.suggested_label is not None:
                    word, text, label = (
                        question.key.word,
                        question.word_text,
                        answer.suggested_label,
                    )
                    rows.append(proposal(word, text, label, BY_MODEL, name, answer.confidence))
            found.labels += len(rows)
            yield pa.Table.from_pylist(rows, SCHEMA)

    def _pages(self, found: JudgedProposals) -> Iterator[Page]:
        receipts = unlabelled_receipts(self._warehouse)
        found.receipts = receipts.num_rows
        return pages(self._warehouse, receipts, self._label_types)

    def _batches(self, found: JudgedProposals) -> Iterator[list[Question]]:
        for page in self._pages(found):
            classes = None if self._model is None else class_log_probability(page, self._model)
            yield [*self._on_none(page, classes)]

    def _on_types(self, page: Page, classes: Floats) -> Iterator[Question]:
        """Ask whether the likeliest type is right, for words that look more like it than none."""
        best = classes[:, :-1].argmax(axis=1)
        likely = np.flatnonzero(classes[np.arange(page.n_words), best] > classes[:, -1])
        second = np.argsort(classes[likely], axis=1)[:, -2]
        names = (*self._label_types, NO_LABEL.name)
        keys = word_keys(page.keys.take(likely))
        for word, key, other in zip(likely.tolist(), keys, second.tolist(), strict=True):
            chance = float(np.exp(classes[word, best[word]]))
            yield Question(
                LabelKey(*key, names[best[word]]),
                UNKNOWN_MERCHANT,
                None,
                page.texts[word],
                1.0 - chance,
                chance,
                names[other],
                float(np.exp(classes[word, other])),
                calibrated=True,
            )

    def _on_none(self, page: Page, classes: Floats | None) -> Iterator[Question]:
        """Ask whether each word carries no label."""
        masks = [mask_of(text) for text in page.texts]
        heights = _heights(page)
        for word, key in enumerate(word_keys(page.keys)):
            if not any(sign.isalnum() for sign in page.texts[word]):
                continue
            chance, best, probability = _EVEN, None, 0.0
            if classes is not None:
                best = self._label_types[int(classes[word, :-1].argmax())]
                probability = float(np.exp(classes[word, :-1].max()))
                chance = 1.0 - float(np.exp(classes[word, -1]))
                if chance < self._least:
                    continue
            left, right = _beside(page, masks, word)
            yield Question(
                LabelKey(*key, NO_LABEL.name),
                UNKNOWN_MERCHANT,
                None,
                page.texts[word],
                chance,
                1.0 - chance,
                best,
                probability,
                left=left,
                right=right,
                height=heights[word],
            )


def _beside(page: Page, masks: Sequence[str], word: int) -> tuple[str, str]:
    """Return up to two words on each side, as documents have them."""
    row = page.row[word]
    before = [masks[n] for n in range(max(0, word - 2), word) if page.row[n] == row]
    after = [masks[n] for n in range(word + 1, min(page.n_words, word + 3)) if page.row[n] == row]
    return " ".join(before) or ROW_START, " ".join(after) or ROW_END


def _heights(page: Page) -> list[float]:
    """Return the height of each word's row on its receipt, 0..1, as coarsely as documents do."""
    starts = np.searchsorted(page.receipt, page.receipt, side="left")
    ends = np.searchsorted(page.receipt, page.receipt, side="right") - 1
    first, last = page.row[starts], page.row[ends]
    bins = np.floor(PLACE_BINS * (page.row - first) / (last - first + 1))
    return ((bins + 0.5) / PLACE_BINS).tolist()
