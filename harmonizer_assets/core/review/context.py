"""The context of a label: the receipt around its word, and why it is doubted.

The receipt says nothing of what is proposed, so it can be shown to whoever is asked blindly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from harmonizer_assets.core.index.layout import read_layout
from harmonizer_assets.core.records.box import Box
from harmonizer_assets.core.records.label import (
    LABEL_GIVEN,
    WORD_KEY,
    LabelKey,
    WordKey,
    word_key,
)
from harmonizer_assets.core.store.database import Connection
from harmonizer_assets.core.store.warehouse import Warehouse

IMAGE_URI: Final = "image_uri"
"""Name of the column of words that says where the image of the receipt is."""

_WORD: Final = f"""
SELECT text, x, y, width, height, extra ->> '{IMAGE_URI}' AS {IMAGE_URI} FROM words
WHERE {" AND ".join(f"{name} = ${name}" for name in WORD_KEY)}
"""
_LABELS: Final = """
SELECT image_id, receipt_id, line_id, word_id, label, validation_status, merchant_name
FROM labels WHERE image_id = $image_id AND receipt_id = $receipt_id ORDER BY ALL
"""
_GROUNDS: Final = f"""
SELECT evidence, examples FROM outliers
WHERE {LABEL_GIVEN}
"""


@dataclass(frozen=True)
class ReceiptWord:
    """A word of a receipt.

    Attributes:
        labels: that it carries, without those that were rejected.
        is_marked: whether it is the word that the context is of.
    """

    text: str
    labels: Sequence[str]
    is_marked: bool


@dataclass(frozen=True)
class Context:
    """What stands around a word.

    Attributes:
        rows: of its receipt from the top, each with its words in reading order.
        labels: all labels of the word: rows with `label`, `validation_status`, `merchant_name`.
        box: where it stands; None without position.
        image_uri: where the image of its receipt is, as the words have it; None where they do not.
    """

    rows: Sequence[Sequence[ReceiptWord]]
    labels: Sequence[Mapping[str, Any]]
    box: Box | None
    image_uri: str | None


@dataclass(frozen=True)
class Grounds:
    """Why a label is doubted.

    Attributes:
        pieces: what speaks against it: `group`, `weight` in log odds and `sentence`.
        examples: under `for` and `against`, labels of similar words with their marked `line`.
    """

    pieces: Sequence[Mapping[str, Any]] = ()
    examples: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def read_context(warehouse: Warehouse, word: WordKey) -> Context | None:
    """Read what stands around a word; None where the word is not there."""
    return warehouse.read(lambda con: _read_context(con, word))


def read_grounds(warehouse: Warehouse, key: LabelKey) -> Grounds:
    """Read why a label is doubted; empty where it is not."""
    rows = warehouse.query(_GROUNDS, key._asdict()).to_pylist()
    if not rows:
        return Grounds()
    return Grounds(json.loads(rows[0]["evidence"] or "[]"), json.loads(rows[0]["examples"] or "{}"))


def _read_context(con: Connection, word: WordKey) -> Context | None:
    found = con.execute(_WORD, word._asdict()).to_arrow_table().to_pylist()
    if not found:
        return None
    receipt = {"image_id": word.image_id, "receipt_id": word.receipt_id}
    labels = con.execute(_LABELS, receipt).to_arrow_table().to_pylist()
    layout = read_layout(con, pa.Table.from_pylist([receipt])).to_pylist()
    return Context(
        _rows(layout, labels, word),
        [label for label in labels if word_key(label) == word],
        Box.of(found[0]),
        found[0][IMAGE_URI],
    )


def _rows(
    layout: Sequence[Mapping[str, Any]], labels: Sequence[Mapping[str, Any]], marked: WordKey
) -> list[list[ReceiptWord]]:
    standing: dict[WordKey, list[str]] = {}
    for label in labels:
        if label["validation_status"] != "INVALID":
            standing.setdefault(word_key(label), []).append(label["label"])
    rows: dict[int, list[ReceiptWord]] = {}
    for word in layout:
        key = word_key(word)
        shown = ReceiptWord(word["text"], standing.get(key, ()), key == marked)
        rows.setdefault(word["row"], []).append(shown)
    return list(rows.values())
