"""Fitting: one model of suspicion, calibrated and with its thresholds, from a home's own labels."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
import numpy as np
import pyarrow as pa

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.files import make_private_folder, sync_to_disk, write_atomically
from harmonizer_assets.core.base.settings import TriageSettings
from harmonizer_assets.core.records.label import WORD_COLUMNS
from harmonizer_assets.core.records.status import Status
from harmonizer_assets.core.score.calibration import Calibration, are_rejected, probability
from harmonizer_assets.core.score.classifier import Opinions, SuspicionModel
from harmonizer_assets.core.score.features import extract_features, with_neighbours
from harmonizer_assets.core.score.folds import Folds, folds_of
from harmonizer_assets.core.score.pages import Page, read_page, trust_of
from harmonizer_assets.core.score.similar_words import (
    SimilarWords,
    label_type_columns,
    read_merchant_labels,
)
from harmonizer_assets.core.score.thresholds import Thresholds, choose_thresholds
from harmonizer_assets.core.score.view import Floats, Ints

if TYPE_CHECKING:
    from scipy import sparse

MIN_LABELS: Final = 200
"""With fewer labels no model is fitted; similar words alone score them."""
MOST_LABELS: Final = 30_000
"""More labels are sampled, by whole receipts: they take time and no longer make a difference."""

# In an order that has nothing to do with names or time, and is the same everywhere.
_SAMPLED_RECEIPTS: Final = f"""
SELECT image_id, receipt_id FROM (
    SELECT image_id, receipt_id, sum(labels) OVER (
        ORDER BY md5(image_id || chr(31) || receipt_id), image_id, receipt_id
        ROWS UNBOUNDED PRECEDING) - labels AS before
    FROM (
        SELECT image_id, receipt_id, count(*) AS labels
        FROM labels SEMI JOIN words USING ({WORD_COLUMNS}) GROUP BY ALL))
WHERE before < $most
ORDER BY ALL
"""
_MERCHANTS_OF_RECEIPTS: Final = """
SELECT DISTINCT merchant_key FROM labels SEMI JOIN sampled USING (image_id, receipt_id) ORDER BY ALL
"""


@dataclass(frozen=True)
class FittedModel:
    """A model that is ready to score labels.

    Attributes:
        label_types: the taxonomy it was fitted for.
        suspicion: the model of which label type a word carries.
        calibration: from margins to probabilities of being wrong.
        thresholds: between which probabilities a label is asked about.
        examples: per label type, how many trusted labels it was fitted on; statuses count as in
            `pages.trust_of`, so four PENDING labels are one.
        labels: labels it was fitted on.
        validated: how many of them are VALID.
    """

    label_types: tuple[str, ...]
    suspicion: SuspicionModel
    calibration: Calibration
    thresholds: Thresholds
    examples: tuple[int, ...]
    labels: int
    validated: int

    def to_bytes(self) -> bytes:
        """Write the model to bytes; equal models give equal bytes."""
        content = {
            "label_types": self.label_types,
            "calibration": asdict(self.calibration),
            "thresholds": asdict(self.thresholds),
            "examples": self.examples,
            "labels": self.labels,
            "validated": self.validated,
        }
        file = io.BytesIO()
        np.savez_compressed(
            file,
            allow_pickle=False,
            content=np.array(json.dumps(content)),
            **self.suspicion.arrays(),
        )
        return file.getvalue()

    def save(self, path: Path) -> None:
        """Write the model to a file, as a whole or not at all.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            make_private_folder(path.parent)
            write_atomically(path, self.to_bytes())
            # The table of models names it from then on.
            sync_to_disk(path, path.parent)
        except OSError as error:
            raise StoreError(f"{path}: the model cannot be written ({error.strerror})") from error

    @classmethod
    def load(cls, path: Path) -> FittedModel:
        """Read a model that `save` has written.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            return cls.from_bytes(path.read_bytes())
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(
                f"{path}: the model cannot be read ({error}): delete it, and the next run fits it "
                "again"
            ) from error

    @classmethod
    def from_bytes(cls, written: bytes) -> FittedModel:
        """Read a model that `to_bytes` has written.

        Raises:
            ValueError: the bytes are no model.
            KeyError: a part of it is missing.
        """
        with np.load(io.BytesIO(written), allow_pickle=False) as arrays:
            content = json.loads(str(arrays["content"]))
            suspicion = SuspicionModel.from_arrays(arrays)
        return cls(
            tuple(content["label_types"]),
            suspicion,
            Calibration(**content["calibration"]),
            Thresholds(**content["thresholds"]),
            tuple(content["examples"]),
            content["labels"],
            content["validated"],
        )


@dataclass(frozen=True)
class LabelFeatures:
    """Labels with their words, folds and votes, one entry per label.

    Attributes:
        labels: n rows as `read_merchant_labels` gives them, words that have not arrived left out.
        page: all words of the receipts that hold them.
        word: shape (n,), number of each label's word on the page.
        label_type: shape (n,).
        folds: of the labels' words.
        votes: shape (n, t), probability of each label type by similar words.
    """

    labels: pa.Table
    page: Page
    word: Ints
    label_type: Ints
    folds: Folds
    votes: Floats

    def parts(self, words: int) -> Iterator[tuple[Ints, LabelFeatures]]:
        """Split the labels by pages of about so many words.

        Yields:
            The numbers of each part's labels, and the part.
        """
        for first, page in self.page.parts(words):
            inside = (self.word >= first) & (self.word < first + page.n_words)
            at = np.flatnonzero(inside)
            yield (
                at,
                LabelFeatures(
                    self.labels.take(at),
                    page,
                    self.word[at] - first,
                    self.label_type[at],
                    self.folds.take(at),
                    self.votes[at],
                ),
            )


def locate_labels(
    labels: pa.Table, page: Page, label_types: Sequence[str], votes: Floats
) -> LabelFeatures:
    """Find labels on the page that was read for them.

    Args:
        labels: n rows with the labels' keys; all of them on words of the page.
        page: of the receipts that hold them.
        label_types: the taxonomy's names.
        votes: shape (n, t).

    Raises:
        ValueError: a word is not on the page.
    """
    word = page.words_of(labels)
    if (word < 0).any():
        raise ValueError("the page lacks words that are labelled")
    kinds = label_type_columns(labels, label_types)
    return LabelFeatures(labels, page, word, kinds, folds_of(page, word), votes)


def read_labels_with_pages(
    con: duckdb.DuckDBPyConnection, merchants: Sequence[str], label_types: Sequence[str]
) -> tuple[pa.Table, Page]:
    """Read all labels of some merchants, and the whole receipts that they are on."""
    labels = read_merchant_labels(con, merchants, label_types)
    return labels, read_page(con, _labelled_receipts(labels), label_types)


def _labelled_receipts(labels: pa.Table) -> pa.Table:
    """List the receipts that hold labels: `image_id` and `receipt_id`, without doubles."""
    ids = ["image_id", "receipt_id"]
    return labels.select(ids).group_by(ids).aggregate([])


def read_sample(
    con: duckdb.DuckDBPyConnection, label_types: Sequence[str]
) -> tuple[pa.Table, Page]:
    """Read what a model is fitted on: receipts with `MOST_LABELS` labels, or a little more.

    Returns:
        All labels of the merchants that the receipts are of, since they vote on each other, and
        the receipts.
    """
    receipts = con.execute(_SAMPLED_RECEIPTS, {"most": MOST_LABELS}).to_arrow_table()
    con.register("sampled", receipts)
    merchants = [key for (key,) in con.execute(_MERCHANTS_OF_RECEIPTS).fetchall()]
    con.unregister("sampled")
    labels = read_merchant_labels(con, merchants, label_types)
    return labels, read_page(con, receipts, label_types)


def fit_model(
    similar_words: SimilarWords,
    labels: pa.Table,
    page: Page,
    settings: TriageSettings,
    without: Sequence[str] = (),
) -> FittedModel:
    """Fit a model.

    Args:
        similar_words: gathers the votes of similar words.
        labels: n rows, all labels of some merchants.
        page: the receipts whose labels it is fitted on.
        settings: of the thresholds.
        without: groups to be left out, for ablation; see `EVIDENCE_GROUPS`.
    """
    gathered, known = similar_words.votes(labels, page.receipts_of(labels) >= 0)
    label_types = similar_words.label_types
    votes = gathered.type_probability
    if "similar_words" in without:
        votes = np.ones_like(votes)
    located = locate_labels(labels.filter(pa.array(known)), page, label_types, votes)
    words, features, row = _training_words(located, without)
    statuses = np.array(located.labels["validation_status"].to_pylist(), dtype=object)
    weights = trust_of(statuses.tolist())
    model = SuspicionModel.fit(
        features, row, located.label_type, weights, folds_of(page, words), votes, len(label_types)
    )
    opinions = model.opinions(features[row], located.folds, votes)
    margin = model.margin(opinions, located.label_type)
    valid, invalid = statuses == Status.VALID, statuses == Status.INVALID
    unknown = ~valid & ~are_rejected(statuses.tolist())
    slips = _margins_of_slips(model, opinions, located.label_type)
    rejected = margin[invalid]
    calibration = Calibration.fit(
        margin[unknown],
        margin[valid],
        np.concatenate([slips[valid], rejected]),
        slips[unknown & (len(label_types) > 1)],
    )
    rows = _margins_of_wrong_rows(model, features[row], located)
    # People make mistakes word by word and row by row.
    wrong = np.concatenate([slips[valid][::2], rows[valid][1::2], rejected])

    def wrong_probability(margin: Floats) -> Floats:
        return probability(calibration.log_odds(margin), [Status.PENDING] * len(margin))

    thresholds = choose_thresholds(
        wrong_probability(margin[valid]),
        wrong_probability(wrong),
        wrong_probability(margin[unknown]),
        calibration.wrong_share,
        settings,
    )
    if doubt := calibration.doubt():
        reason = f"{thresholds.reason}; {doubt}" if thresholds.reason else doubt
        thresholds = replace(thresholds, reason=reason)
    examples = np.bincount(located.label_type, weights=weights, minlength=len(label_types))
    return FittedModel(
        label_types,
        model,
        calibration,
        thresholds,
        tuple(round(count) for count in examples.tolist()),
        located.labels.num_rows,
        int(valid.sum()),
    )


def _training_words(
    located: LabelFeatures, without: Sequence[str]
) -> tuple[Ints, sparse.csr_matrix, Ints]:
    """Choose words to learn from; return them, their features and the row of each label.

    As many unlabelled words as labels, evenly spread over the receipts.
    """
    page = located.page
    labelled = np.unique(located.word)
    unlabelled = np.setdiff1d(np.arange(page.n_words), labelled)
    if len(unlabelled) > len(located.word):
        chosen = np.linspace(0, len(unlabelled) - 1, len(located.word)).astype(np.int64)
        unlabelled = unlabelled[chosen]
    words = np.concatenate([labelled, unlabelled])
    return words, extract_features(page, words, without), np.searchsorted(labelled, located.word)


def _margins_of_slips(model: SuspicionModel, opinions: Opinions, label_type: Ints) -> Floats:
    """Compute the margins of n labels, were each the only wrong one: shape (n,).

    Every other one gets the type that is hardest to tell from its own, the others a type drawn as
    often as it occurs.
    """
    n = len(label_type)
    drawn = _drawn_types(label_type, model.n_types, n)
    hardest = model.competing(opinions, label_type)
    swapped = np.where((np.arange(n) % 2 == 0) | (drawn == label_type), hardest, drawn)
    return model.margin(opinions, swapped.astype(np.int64))


def _margins_of_wrong_rows(
    model: SuspicionModel, features: sparse.csr_matrix, located: LabelFeatures
) -> Floats:
    """Compute the margins of n labels, were all labels of a row wrong together: shape (n,).

    Those of one type get the same other one, drawn as often as it occurs, so that they speak for
    each other.
    """
    page, n_types = located.page, model.n_types
    size = (int(page.row[-1]) + 1, n_types)
    drawn = _drawn_types(located.label_type, n_types, size)
    order = np.argsort(-np.bincount(located.label_type, minlength=n_types), kind="stable")
    commonest, second = order[0], order[min(1, n_types - 1)]
    other = np.where(np.arange(n_types) == commonest, second, commonest)
    drawn = np.where(drawn == np.arange(n_types), other, drawn)
    wrong_page = replace(page, label_type=drawn[page.row[page.label_word], page.label_type])
    around = with_neighbours(features, wrong_page, located.word)
    return model.margin(
        model.opinions(around, located.folds, located.votes),
        drawn[page.row[located.word], located.label_type].astype(np.int64),
    )


def _drawn_types(label_type: Ints, n_types: int, size: int | tuple[int, int]) -> Ints:
    """Draw types as often as they occur among n labels, the same in every process."""
    shares = np.bincount(label_type, minlength=n_types) / max(len(label_type), 1)
    return np.random.RandomState(0).choice(n_types, size=size, p=shares)
