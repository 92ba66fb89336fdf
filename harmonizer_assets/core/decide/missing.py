"""Missing labels: words that carry no label and look as if they should.

The suspicion model has words without a label as a class of their own. Of each word it says, out of
fold, how much better the best label type explains it than that class does. How many of the words
that look so much like labelled ones do carry that type is counted, with an isotonic regression, and
is the score.

That share is the probability that a label is missing as far as words that look alike deserve the
same label. Where a type is labelled only here and there, such words are common, the share is low,
and nothing is proposed. Whether an annotator left a word out by mistake or on purpose, no count
tells (Elkan and Noto 2008, "Learning classifiers from only positive and unlabeled data").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from harmonizer_assets.core.base.settings import MissingLabelSettings
from harmonizer_assets.core.decide.explain import Line
from harmonizer_assets.core.records.label import WORD_COLUMNS, WORD_KEY, WordKey, word_keys
from harmonizer_assets.core.score.features import extract_features
from harmonizer_assets.core.score.fitting import FittedModel
from harmonizer_assets.core.score.folds import folds_of
from harmonizer_assets.core.score.pages import Page, read_page
from harmonizer_assets.core.score.view import Floats, Ints
from harmonizer_assets.core.store.warehouse import Warehouse

VERSION: Final = "1"

_RECEIPTS_AT_ONCE: Final = 500
_LABELLED_SAMPLE: Final = 20_000
"""Labelled words that the shares are counted on; more take time and make no difference."""
_LEAST_LOG_ODDS: Final = 0.0
"""Words that the model takes for unlabelled ones are no candidates."""
_DECIMALS: Final = 6

# A receipt belongs to the merchant of most of its labels.
_RECEIPTS: Final = """
SELECT image_id, receipt_id, merchant_key, min(merchant_name) AS merchant_name, count(*) AS labels
FROM labels GROUP BY image_id, receipt_id, merchant_key
QUALIFY row_number() OVER (
    PARTITION BY image_id, receipt_id ORDER BY count(*) DESC, merchant_key) = 1
ORDER BY merchant_key, image_id, receipt_id
"""

_FINGERPRINTS: Final = f"""
WITH receipts AS ({_RECEIPTS})
SELECT r.merchant_key, count(*)::VARCHAR || '-' || bit_xor(md5_number(concat_ws(chr(31),
    {WORD_COLUMNS}, coalesce(text, ''), coalesce(l.label, ''), coalesce(l.validation_status, ''),
    x, y, width, height)))::VARCHAR AS fingerprint
FROM words w JOIN receipts r USING (image_id, receipt_id)
LEFT JOIN labels l USING ({WORD_COLUMNS})
GROUP BY r.merchant_key
"""

_EQUAL_TEXTS: Final = f"""
WITH asked AS (SELECT DISTINCT lower(trim(word_text)) AS text, label_type FROM found)
SELECT a.text, a.label_type, count(*) AS words,
    count(l.label) FILTER (l.validation_status <> 'INVALID') AS labelled
FROM words w JOIN asked a ON lower(trim(w.text)) = a.text
LEFT JOIN labels l ON l.label = a.label_type
    AND {" AND ".join(f"l.{name} = w.{name}" for name in WORD_KEY)}
GROUP BY ALL
"""


_SCHEMA: Final = pa.schema(
    [
        ("image_id", pa.string()),
        *((name, pa.int64()) for name in WORD_KEY[1:]),
        *((name, pa.string()) for name in ("label_type", "merchant_key", "merchant_name")),
        *((name, pa.string()) for name in ("word_text", "line", "reasoning")),
        ("score", pa.float64()),
        ("is_missing", pa.bool_()),
    ]
)


class Candidate(NamedTuple):
    """A word that may lack a label.

    Attributes:
        key, text: of the word.
        line: its row, the word marked.
        beside: label types of the words directly to the left and right, if they have any.
        log_odds: of the best label type against no label.
        label_type: that type.
    """

    key: WordKey
    text: str
    line: str
    beside: tuple[str | None, str | None]
    log_odds: float
    label_type: str


@dataclass(frozen=True)
class Shares:
    """Which share of words carries the label that they look like, by log odds.

    Attributes:
        log_odds: ascending.
        share: of the same length, ascending, 0..1.
    """

    log_odds: Sequence[float]
    share: Sequence[float]

    @classmethod
    def count(cls, log_odds: Floats, carries: Floats, weight: Floats) -> Shares:
        """Count among n words; those that carry another label than the likeliest are left out."""
        from sklearn.isotonic import IsotonicRegression

        counted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(log_odds, carries, weight)
        return cls(counted.X_thresholds_.tolist(), counted.y_thresholds_.tolist())

    def at(self, log_odds: Floats) -> Floats:
        """Return the shares at some log odds, of the same shape."""
        return np.interp(log_odds, self.log_odds, self.share)


@dataclass(frozen=True)
class _State:
    """What there is to be searched, and what has been.

    Attributes:
        identity: of model, settings and code.
        receipts: each with its merchant and the number of its labels.
        now: fingerprint of each merchant's words and labels.
        searched: the same of the last search, of the same identity only.
        stored: merchants of any search.
        shares: those that were counted by the same identity; None where nothing was.
    """

    identity: str
    receipts: list[dict[str, Any]]
    now: Mapping[str, str]
    searched: Mapping[str, str]
    stored: frozenset[str]
    shares: Shares | None

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, identity: str) -> _State:
        searches = con.execute("SELECT * FROM missing_label_searches").fetchall()
        counted = con.execute(
            "SELECT log_odds, share FROM missing_label_calibration WHERE identity = $1", [identity]
        ).fetchone()
        return cls(
            identity,
            con.execute(_RECEIPTS).to_arrow_table().to_pylist(),
            dict(con.execute(_FINGERPRINTS).fetchall()),
            {merchant: print_ for merchant, by, print_ in searches if by == identity},
            frozenset(merchant for merchant, _, _ in searches),
            None if counted is None else Shares(*counted),
        )

    def stale(self) -> set[str]:
        """Name the merchants whose words have to be searched."""
        return {name for name, each in self.now.items() if self.searched.get(name) != each}

    def gone(self) -> set[str]:
        """Name the merchants that were searched and have no words any more."""
        return {*self.stored} - self.now.keys()


@dataclass(frozen=True)
class _Searched:
    """What a search has seen: all unlabelled words, and a sample of the labelled ones."""

    candidates: list[Candidate]
    log_odds: list[Floats]
    carries: list[Floats]
    weight: list[Floats]

    def shares(self) -> Shares:
        return Shares.count(
            np.concatenate(self.log_odds),
            np.concatenate(self.carries),
            np.concatenate(self.weight),
        )


class MissingLabels:
    """Keeps the table `missing_labels` up to date, merchant by merchant."""

    def __init__(
        self, warehouse: Warehouse, label_types: Sequence[str], settings: MissingLabelSettings
    ) -> None:
        """Set up the search; nothing is read yet.

        Args:
            warehouse: holds the words and labels.
            label_types: the taxonomy's names.
            settings: what is listed, and whether it is decided.
        """
        self._warehouse = warehouse
        self._label_types = tuple(label_types)
        self._settings = settings

    def update(self, version: str, model: FittedModel | None) -> int:
        """Search the words of the merchants that have changed since the last search.

        Args:
            version: of the model.
            model: in force; without one nothing is proposed.

        Returns:
            How many labels are missing now.
        """
        if model is None or not self._settings.find:
            self._warehouse.write(_clear)
            return 0
        identity = self._identity(version)
        state = self._warehouse.read(lambda con: _State.read(con, identity))
        wanted = state.stale()
        if not wanted and not state.gone():
            return self._count()
        receipts = [row for row in state.receipts if row["merchant_key"] in wanted]
        searched = self._search(receipts, model)
        shares = state.shares
        if shares is None and searched.candidates:
            shares = searched.shares()
        rows = [] if shares is None else self._rows(searched.candidates, shares, receipts)
        self._warehouse.write(lambda con: _store(con, state, wanted, rows, shares))
        return self._count()

    def _identity(self, version: str) -> str:
        content = [VERSION, version, self._label_types, self._settings.model_dump()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def _search(self, receipts: Sequence[Mapping[str, Any]], model: FittedModel) -> _Searched:
        labels = sum(row["labels"] for row in receipts)
        every = max(1, labels // _LABELLED_SAMPLE)
        found = _Searched([], [], [], [])
        for start in range(0, len(receipts), _RECEIPTS_AT_ONCE):
            some = receipts[start : start + _RECEIPTS_AT_ONCE]
            self._look(self._page(some), model, every, found)
        return found

    def _page(self, receipts: Sequence[Mapping[str, Any]]) -> Page:
        keys = pa.Table.from_pylist(
            [{name: row[name] for name in ("image_id", "receipt_id")} for row in receipts]
        )
        return self._warehouse.read(lambda con: read_page(con, keys, self._label_types))

    def _look(self, page: Page, model: FittedModel, every: int, found: _Searched) -> None:
        """Look at the unlabelled words of a page, and at every so many labelled ones."""
        labelled = np.unique(page.label_word)
        unlabelled = np.setdiff1d(np.arange(page.n_words), labelled)
        if not len(unlabelled):
            return
        words = np.concatenate([unlabelled, labelled[::every]])
        features, folds = extract_features(page, words), folds_of(page, words)
        classes = model.suspicion.class_log_probability(features, folds)
        best = classes[:, :-1].argmax(axis=1)
        log_odds = classes[np.arange(len(words)), best] - classes[:, -1]
        carried = set(zip(page.label_word.tolist(), page.label_type.tolist(), strict=True))
        carries = np.array(
            [pair in carried for pair in zip(words.tolist(), best.tolist(), strict=True)]
        )
        counted = carries | (np.arange(len(words)) < len(unlabelled))
        found.log_odds.append(log_odds[counted])
        found.carries.append(carries[counted].astype(np.float64))
        found.weight.append(np.where(carries, float(every), 1.0)[counted])
        likely = np.flatnonzero(log_odds[: len(unlabelled)] > _LEAST_LOG_ODDS)
        found.candidates.extend(
            self._candidates(page, unlabelled[likely], best[likely], log_odds[likely])
        )

    def _candidates(
        self, page: Page, words: Ints, best: Ints, log_odds: Floats
    ) -> Iterator[Candidate]:
        keys = word_keys(page.keys.take(words))
        types = dict(zip(page.label_word.tolist(), page.label_type.tolist(), strict=True))
        starts = np.searchsorted(page.row, page.row[words], side="left").tolist()
        ends = np.searchsorted(page.row, page.row[words], side="right").tolist()

        def named(word: int, start: int, end: int) -> str | None:
            number = types.get(word) if start <= word < end else None
            return None if number is None else self._label_types[number]

        rows = zip(
            words.tolist(), keys, best.tolist(), log_odds.tolist(), starts, ends, strict=True
        )
        for word, key, number, odds, start, end in rows:
            texts = [text or "" for text in page.texts[start:end]]
            yield Candidate(
                key,
                texts[word - start],
                Line(texts, word - start).to_text(),
                (named(word - 1, start, end), named(word + 1, start, end)),
                odds,
                self._label_types[number],
            )

    def _rows(
        self,
        candidates: Sequence[Candidate],
        shares: Shares,
        receipts: Sequence[Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        merchant = {(row["image_id"], row["receipt_id"]): row for row in receipts}
        scores = np.round(shares.at(np.array([each.log_odds for each in candidates])), _DECIMALS)
        decide_from = self._settings.decide_from
        rows = []
        for each, score in zip(candidates, scores.tolist(), strict=True):
            if score < self._settings.least_score:
                continue
            owner = merchant[each.key[:2]]
            rows.append(
                {
                    **each.key._asdict(),
                    "label_type": each.label_type,
                    "merchant_key": owner["merchant_key"],
                    "merchant_name": owner["merchant_name"],
                    "word_text": each.text,
                    "line": each.line,
                    "score": score,
                    "is_missing": True if self._settings.decide and score >= decide_from else None,
                    "beside": list(each.beside),
                }
            )
        return self._explained(rows)

    def _explained(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not rows:
            return rows
        found = pa.Table.from_pylist(rows).select(["word_text", "label_type"])
        equal = self._warehouse.read(
            lambda con: con.register("found", found).execute(_EQUAL_TEXTS).fetchall()
        )
        counts = {(text, label): (words, labelled) for text, label, words, labelled in equal}
        for row in rows:
            text = row["word_text"].strip().lower()
            words, labelled = counts.get((text, row["label_type"]), (1, 0))
            row["reasoning"] = reasoning_of(
                row["label_type"], row["score"], row.pop("beside"), words - 1, labelled
            )
        return rows

    def _count(self) -> int:
        return int(
            self._warehouse.query("SELECT count(*) AS n FROM missing_labels")["n"][0].as_py()
        )


def reasoning_of(
    label_type: str,
    share: float,
    beside: Sequence[str | None],
    equal: int,
    labelled: int,
) -> str:
    """Explain why a word should carry a label, in one sentence.

    Args:
        label_type: proposed.
        share: of the words that look like it which carry that type, 0..1.
        beside: label types of the words to the left and right.
        equal: how many other words have the same text.
        labelled: how many of those carry the type.
    """
    shown = "more than 99%" if share > 0.99 else f"{share:.0%}"
    parts = [f"{shown} of the words that look like this one carry {label_type}"]
    if equal:
        parts.append(f"with the same text, {labelled:,} of {equal:,} others")
    sides = [
        side for side, each in zip(("left", "right"), beside, strict=True) if each == label_type
    ]
    if sides:
        plural = "words" if len(sides) > 1 else "word"
        verb = "carry" if len(sides) > 1 else "carries"
        parts.append(f"the {plural} to the {' and '.join(sides)} {verb} it")
    return "; ".join(parts)


def _store(
    con: duckdb.DuckDBPyConnection,
    state: _State,
    searched: set[str],
    rows: list[dict[str, Any]],
    shares: Shares | None,
) -> None:
    """Replace what is stored of the merchants that were searched, or are gone."""
    replaced = sorted(searched | state.gone())
    for table in ("missing_labels", "missing_label_searches"):
        con.execute(f"DELETE FROM {table} WHERE list_contains($1, merchant_key)", [replaced])
    if rows:
        # A word may have been labelled since it was read.
        con.register("found", pa.Table.from_pylist(rows, _SCHEMA))
        con.execute(
            "INSERT INTO missing_labels BY NAME "
            f"SELECT * FROM found ANTI JOIN labels USING ({WORD_COLUMNS})"
        )
    con.executemany(
        "INSERT INTO missing_label_searches VALUES ($1, $2, $3)",
        [(name, state.identity, state.now[name]) for name in sorted(searched)],
    )
    if state.shares is None:
        con.execute("DELETE FROM missing_label_calibration")
    if state.shares is None and shares is not None:
        con.execute(
            "INSERT INTO missing_label_calibration VALUES ($1, $2, $3)",
            [state.identity, list(shares.log_odds), list(shares.share)],
        )


def _clear(con: duckdb.DuckDBPyConnection) -> None:
    for table in ("missing_labels", "missing_label_searches", "missing_label_calibration"):
        # A table that is not changed lets the copy of the tables be.
        if con.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():
            con.execute(f"DELETE FROM {table}")
