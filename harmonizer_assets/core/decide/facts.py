"""Facts about doubted labels, read from the tables for explanations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from harmonizer_assets.core.decide.explain import THIRDS, Counts, Facts, Line
from harmonizer_assets.core.records.label import (
    LABEL_KEY,
    WORD_COLUMNS,
    WordKey,
    label_key,
    qualified,
    word_keys,
)
from harmonizer_assets.core.records.mask import MASK
from harmonizer_assets.core.records.status import Status
from harmonizer_assets.core.score.amounts import RELATIONS, amount_relations
from harmonizer_assets.core.score.features import shape_of, shapes_of
from harmonizer_assets.core.score.pages import Page, read_page

_TEXTS: Final = f"""
SELECT l.label, w.text, count(*) AS n
FROM labels l JOIN words w USING ({WORD_COLUMNS})
WHERE l.validation_status <> 'INVALID' GROUP BY ALL ORDER BY ALL
"""

_THIRDS: Final = f"""
SELECT l.label, floor(3 * (d.row_bin + 0.5) / 8)::INTEGER AS third, count(*) AS n
FROM labels l JOIN word_documents wd USING ({WORD_COLUMNS})
JOIN documents d USING (document_id)
WHERE l.validation_status <> 'INVALID' GROUP BY ALL ORDER BY ALL
"""

# Counts leave the doubted label itself out; it is no rejected one, so it is among them.
_COUNTED: Final = f"""
WITH labelled AS (
    SELECT l.label, d.mask, list_last(string_split(d.left_context, ' ')) AS before
    FROM labels l JOIN word_documents wd USING ({WORD_COLUMNS})
    JOIN documents d USING (document_id)
    WHERE l.validation_status <> 'INVALID'
),
doubted_words AS (
    SELECT o.*, d.mask, list_last(string_split(d.left_context, ' ')) AS before,
        d.row_bin
    FROM doubted o
    LEFT JOIN word_documents wd USING ({WORD_COLUMNS})
    LEFT JOIN documents d USING (document_id)
),
by_mask AS (
    SELECT mask, label, count(*) AS n FROM labelled
    WHERE mask IN (SELECT mask FROM doubted_words) GROUP BY ALL
),
by_before AS (
    SELECT before, label, count(*) AS n FROM labelled
    WHERE before IN (SELECT before FROM doubted_words) GROUP BY ALL
),
masked AS (
    SELECT {MASK} AS mask, count(*) AS n_words, count(l.image_id) AS n_labelled
    FROM words w
    LEFT JOIN (SELECT DISTINCT {WORD_COLUMNS} FROM labels) l USING ({WORD_COLUMNS})
    WHERE {MASK} IN (SELECT mask FROM doubted_words)
    GROUP BY ALL
)
SELECT {qualified("o", LABEL_KEY)}, o.mask, o.before, o.row_bin,
    coalesce(m1.n, 1) - 1 AS mask_own,
    coalesce(m2.n, 0) AS mask_competing,
    coalesce(b1.n, 1) - 1 AS before_own,
    coalesce(b2.n, 0) AS before_competing,
    coalesce(masked.n_words - masked.n_labelled, 0) AS unlabelled,
    coalesce(masked.n_labelled, 1) - 1 AS with_label
FROM doubted_words o
LEFT JOIN by_mask m1 ON m1.mask = o.mask AND m1.label = o.label
LEFT JOIN by_mask m2 ON m2.mask = o.mask AND m2.label = o.competing_label
LEFT JOIN by_before b1 ON b1.before = o.before AND b1.label = o.label
LEFT JOIN by_before b2 ON b2.before = o.before AND b2.label = o.competing_label
LEFT JOIN masked ON masked.mask = o.mask
ORDER BY ALL
"""


@dataclass(frozen=True)
class Profile:
    """Typical shapes and places of the labels of each type.

    Attributes:
        shapes: per label type, the share of each shape.
        thirds: per label type, the share in each third of the page.
    """

    shapes: Mapping[str, Mapping[str, float]]
    thirds: Mapping[str, Mapping[int, float]]


def read_profile(con: duckdb.DuckDBPyConnection) -> Profile:
    """Read typical shapes and places of the labels of each type."""
    shapes: dict[str, Counter[Any]] = {}
    texts = con.execute(_TEXTS).to_arrow_table()
    for label, shape, n in zip(
        texts["label"].to_pylist(),
        shapes_of(texts["text"].to_pylist()),
        texts["n"].to_pylist(),
        strict=True,
    ):
        shapes.setdefault(label, Counter())[shape] += n
    thirds: dict[str, Counter[Any]] = {}
    for label, third, n in con.execute(_THIRDS).fetchall():
        thirds.setdefault(label, Counter())[third] += n
    return Profile(_shares(shapes), _shares(thirds))


def _shares(counts: Mapping[str, Counter[Any]]) -> dict[str, dict[Any, float]]:
    return {
        label: {value: n / counter.total() for value, n in counter.items()}
        for label, counter in counts.items()
    }


class Lines:
    """Rows of receipts, looked up by one of their words."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._number = {key: at for at, key in enumerate(word_keys(page.keys))}
        rows = int(page.row[-1]) + 1 if page.n_words else 0
        self._start = np.searchsorted(page.row, np.arange(rows + 1))

    @classmethod
    def read(
        cls, con: duckdb.DuckDBPyConnection, words: pa.Table, label_types: Sequence[str]
    ) -> Lines:
        """Read the receipts that hold some words; `words` has at least their keys."""
        receipts = words.select(["image_id", "receipt_id"]).group_by(["image_id", "receipt_id"])
        return cls(read_page(con, receipts.aggregate([]), label_types))

    def number(self, key: WordKey) -> int | None:
        """Look up the number of a word on the page; None when it has not arrived."""
        return self._number.get(key)

    def words_on_row(self, row: int) -> range:
        """Return the numbers of the words of a row."""
        return range(int(self._start[row]), int(self._start[row + 1]))

    def line(self, word: int) -> Line:
        """Return the row of a word, with the word marked."""
        on_row = self.words_on_row(int(self.page.row[word]))
        return Line([self.page.texts[other] for other in on_row], word - on_row.start)


class FactFinder:
    """Finds the facts about doubted labels in one transaction."""

    def __init__(self, profile: Profile, label_types: Sequence[str]) -> None:
        self._profile = profile
        self._label_types = label_types

    def find(
        self, con: duckdb.DuckDBPyConnection, doubted: pa.Table, lines: Lines
    ) -> list[Facts | None]:
        """Find the facts about n labels.

        Args:
            con: a connection inside a transaction.
            doubted: n rows with the labels' keys, `word_text`, `competing_label`, `no_label` and
                `contributions`.
            lines: the receipts that hold them.

        Returns:
            n entries; None for words that have not arrived or that no model has scored.
        """
        con.register("doubted", doubted)
        counted = {
            label_key(row): row for row in con.execute(_COUNTED).to_arrow_table().to_pylist()
        }
        con.unregister("doubted")
        page = lines.page
        relations = amount_relations(page.receipt, page.row, page.texts)
        near = _NearLabels(lines, self._label_types)
        found: list[Facts | None] = []
        for row in doubted.to_pylist():
            key = label_key(row)
            word = lines.number(key.word)
            if word is None or row["contributions"] is None:
                found.append(None)
                continue
            names = [
                name
                for name, holds in zip(RELATIONS, relations[word].tolist(), strict=True)
                if holds
            ]
            found.append(self._facts(row, counted[key], near, word, names))
        return found

    def _facts(
        self,
        row: Mapping[str, Any],
        counts: Mapping[str, Any],
        near: _NearLabels,
        word: int,
        relations: Sequence[str],
    ) -> Facts:
        own, competing = row["label"], row["competing_label"]
        shape = shape_of(row["word_text"])
        bin_ = counts["row_bin"]
        third = None if bin_ is None else int(len(THIRDS) * (bin_ + 0.5) / 8)
        return Facts(
            text=row["word_text"],
            label_type=own,
            competing=competing,
            no_label=bool(row["no_label"]),
            contributions=json.loads(row["contributions"]),
            shape=shape,
            shape_share=_share_of(self._profile.shapes, own, competing, shape),
            third=third,
            third_share=_share_of(self._profile.thirds, own, competing, third),
            before="" if counts["before"] in (None, "^") else counts["before"],
            before_counts=Counts(counts["before_own"], counts["before_competing"]),
            mask=counts["mask"] or "",
            mask_counts=Counts(counts["mask_own"], counts["mask_competing"]),
            unlabelled=(counts["unlabelled"], counts["with_label"]),
            beside=near.beside(word),
            around=near.around(word),
            relations=relations,
        )


class _NearLabels:
    """The label types on the words around a word, the most frequent first."""

    def __init__(self, lines: Lines, label_types: Sequence[str]) -> None:
        self._lines = lines
        page = lines.page
        self._on: dict[int, list[str]] = {}
        for word, kind, status in zip(
            page.label_word.tolist(), page.label_type.tolist(), page.statuses, strict=True
        ):
            if status != Status.INVALID:
                self._on.setdefault(word, []).append(label_types[kind])

    def beside(self, word: int) -> list[str]:
        on_row = self._lines.words_on_row(int(self._lines.page.row[word]))
        return self._types(other for other in on_row if other != word)

    def around(self, word: int) -> list[str]:
        page = self._lines.page
        row, last = int(page.row[word]), int(page.row[-1])
        near = [other for other in (row - 1, row + 1) if 0 <= other <= last]
        return self._types(
            number
            for other in near
            for number in self._lines.words_on_row(other)
            if page.receipt[number] == page.receipt[word]
        )

    def _types(self, words: Iterable[int]) -> list[str]:
        counted = Counter(name for word in words for name in self._on.get(word, ()))
        return [name for name, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]


def _share_of(
    shares: Mapping[str, Mapping[Any, float]], own: str, competing: str, value: Any
) -> tuple[float, float] | None:
    if value is None or own not in shares or competing not in shares:
        return None
    return shares[own].get(value, 0.0), shares[competing].get(value, 0.0)
