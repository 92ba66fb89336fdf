"""Mistakes about one label: another type, or a slip to another word of the receipt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.measure.noise.confusion import Confusion
from harmonizer_assets.core.measure.noise.ledger import Ledger, shortfall
from harmonizer_assets.core.records.label import (
    LABEL_KEY,
    WORD_COLUMNS,
    WORD_KEY,
    LabelKey,
    WordKey,
    qualified,
    word_keys,
)

SINGLE_KINDS: Final = ("confusable", "random", "caption", "unlabelled_word")
"""Kinds of mistakes about one label. The order decides which errors a seed makes."""
_MOVING: Final = ("caption", "unlabelled_word")

# Candidates in an order that depends on the seed and the keys, and not on the order of the rows.
_TARGETS: Final = f"""
WITH free AS (
    SELECT {qualified("w", WORD_KEY)}, lower(trim(w.text)) AS text FROM words w
    ANTI JOIN labels USING ({WORD_COLUMNS})
),
-- A word that carries the label elsewhere may deserve it here: no error would come of it.
deserved AS (
    SELECT DISTINCT lower(trim(w.text)) AS text, l.label
    FROM labels l JOIN words w USING ({WORD_COLUMNS})
),
in_line AS (
    SELECT m.number, {qualified("f", WORD_KEY)},
        row_number() OVER (PARTITION BY m.number
            ORDER BY abs(f.word_id - m.word_id), f.word_id) AS choice
    FROM moved m JOIN free f USING (image_id, receipt_id, line_id)
    ANTI JOIN deserved e ON e.text = f.text AND e.label = m.label
    WHERE m.kind = 'caption'
),
on_receipt AS (
    SELECT m.number, {qualified("f", WORD_KEY)},
        row_number() OVER (PARTITION BY m.number
            ORDER BY md5(concat_ws(chr(31), m.salt, f.line_id, f.word_id))) AS choice
    FROM moved m JOIN free f USING (image_id, receipt_id)
    ANTI JOIN deserved e ON e.text = f.text AND e.label = m.label
    WHERE m.kind = 'unlabelled_word'
)
SELECT number, {WORD_COLUMNS}
FROM (FROM in_line UNION ALL FROM on_receipt)
QUALIFY row_number() OVER (
        PARTITION BY {WORD_COLUMNS} ORDER BY choice, number) = 1
    AND choice <= 5
ORDER BY number, choice
"""


def make_single_mistakes(
    ledger: Ledger,
    con: duckdb.DuckDBPyConnection,
    right: pa.Table,
    keys: Sequence[LabelKey],
    texts: Sequence[str],
    confusion: Confusion,
    random: np.random.RandomState,
    seed: int,
    rate: float,
    weights: Mapping[str, float],
) -> list[str]:
    """Make mistakes about single labels.

    Args:
        ledger: takes the mistakes.
        con: with a table or view `words`.
        right: n labels that are taken as right.
        keys, texts: of the labels and of their words.
        confusion: of label types.
        random, seed: decide which labels, and which words they slip to.
        rate: share of the labels to make wrong.
        weights: how often each kind is tried, see `SINGLE_KINDS`. Where `random` is one of them,
            a label that finds no word to slip to gets any other type.

    Returns:
        Sentences on kinds that found too few places.
    """
    kind = _kinds(random, len(keys), rate, weights)
    new_label = _new_labels(random, keys, texts, confusion, kind)
    moved = _moved(con, right, kind, seed)
    for at, each in enumerate(kind.tolist()):
        if each is None:
            continue
        if at in moved:
            ledger.move(at, moved[at], each)
        elif (label := new_label[at]) is not None and (
            each not in _MOVING or weights.get("random")
        ):
            ledger.relabel(at, label, "random" if each in _MOVING else each)
    tried = Counter(each for each in kind.tolist() if each is not None)
    return [
        shortfall(name, ledger.count(name), tried[name])
        for name in SINGLE_KINDS
        if ledger.count(name) < tried[name]
    ]


def _kinds(
    random: np.random.RandomState, n: int, rate: float, weights: Mapping[str, float]
) -> npt.NDArray[np.object_]:
    """Choose the kind of mistake to try on each label; None leaves it right."""
    kind = np.full(n, None, dtype=object)
    chosen = random.permutation(n)[: round(rate * n)]
    shares = np.array([weights.get(name, 0.0) for name in SINGLE_KINDS])
    if len(chosen):
        kind[chosen] = random.choice(
            np.array(SINGLE_KINDS, dtype=object), size=len(chosen), p=shares / shares.sum()
        )
    return kind


def _new_labels(
    random: np.random.RandomState,
    keys: Sequence[LabelKey],
    texts: Sequence[str],
    confusion: Confusion,
    kind: npt.NDArray[np.object_],
) -> list[str | None]:
    """Choose the wrong type of each label that is to get one."""
    if len(confusion.types) < 2:
        return [None] * len(keys)
    return [
        None
        if each is None
        else confusion.draw_single(random, text, key.label, confusable=each == "confusable")
        for key, text, each in zip(keys, texts, kind.tolist(), strict=True)
    ]


def _moved(
    con: duckdb.DuckDBPyConnection, right: pa.Table, kind: npt.NDArray[np.object_], seed: int
) -> dict[int, WordKey]:
    """Choose the word that each label is to move to, where there is a free one."""
    at = np.flatnonzero(np.isin(kind.astype(str), _MOVING))
    con.register("labels", right)
    moving = right.select(LABEL_KEY).take(at)
    moving = moving.append_column("number", pa.array(at, pa.int64()))
    moving = moving.append_column("kind", pa.array(kind[at].tolist(), pa.string()))
    # The salt keeps this form, so that the same seed goes on making the same errors.
    salt = [f"{seed}-{tuple(key)}" for key in word_keys(moving)]
    con.register("moved", moving.append_column("salt", pa.array(salt, pa.string())))
    target: dict[int, WordKey] = {}
    for number, *word in con.execute(_TARGETS).fetchall():
        target.setdefault(number, WordKey(*word))
    return target
