"""Items of a DynamoDB table of words and labels: one table with generic keys.

Words, labels and merchants of receipts are items of one table: the partition key names the image,
the sort key what the item is, and four indexes repeat parts of both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from harmonizer_assets.core.records.correction import PROVENANCE
from harmonizer_assets.core.records.label import LabelKey, WordKey

LABEL: Final = "RECEIPT_WORD_LABEL"
WORD: Final = "RECEIPT_WORD"
PLACES: Final = ("RECEIPT_PLACE", "RECEIPT_METADATA")
"""Types of items that name the merchant of a receipt, the one that counts first."""
TYPES: Final = (WORD, LABEL, *PLACES)

_LABEL_WIDTH: Final = 40
_SORT_KEY: Final = re.compile(
    r"RECEIPT#(?P<receipt>\d+)(#LINE#(?P<line>\d+)#WORD#(?P<word>\d+))?"
    r"(#LABEL#(?P<label>.*)|#PLACE|#METADATA)?",
    re.DOTALL,
)


def item_key(key: LabelKey) -> dict[str, str]:
    """Return the primary key of a label's item."""
    return {
        "PK": f"IMAGE#{key.image_id}",
        "SK": f"{_word_path(key.word)}#LABEL#{key.label}",
    }


def status_index(status: str) -> str:
    """Return the attribute `GSI3PK` of a label, which holds its status once more."""
    return f"VALIDATION_STATUS#{status}"


def label_item(key: LabelKey, status: str, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Make the whole item of a label.

    Args:
        key: of the label.
        status: of the label.
        provenance: values of `PROVENANCE`; those that are missing are null.
    """
    word = f"IMAGE#{key.image_id}#{_word_path(key.word)}"
    return {
        **item_key(key),
        "TYPE": LABEL,
        "GSI1PK": f"LABEL#{key.label}".ljust(_LABEL_WIDTH, "_"),
        "GSI1SK": word,
        "GSI2PK": "RECEIPT",
        "GSI2SK": word,
        "GSI3PK": status_index(status),
        "GSI3SK": f"{word}#LABEL#{key.label}",
        "GSI4PK": f"IMAGE#{key.image_id}#RECEIPT#{key.receipt_id:05d}",
        "GSI4SK": f"4_LABEL#{key.line_id:05d}#{key.word_id:05d}#{key.label}",
        "validation_status": status,
        **{name: provenance.get(name) for name in PROVENANCE},
    }


def label_row(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the item of a label as a row of a batch, without the merchant.

    Returns:
        None where the keys name no label of a word.
    """
    found = _parsed(item)
    if found is None or found["label"] is None or found["word"] is None:
        return None
    return {
        **_ids(item, found),
        "label": found["label"],
        "validation_status": item.get("validation_status"),
        **{name: item.get(name) for name in PROVENANCE},
    }


def word_row(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the item of a word as a row of a batch; its box is turned, since y counts from below.

    Returns:
        None where the keys name no word.
    """
    found = _parsed(item)
    if found is None or found["word"] is None:
        return None
    box = item.get("bounding_box") or {}
    place: dict[str, Any] = dict.fromkeys(("x", "y", "width", "height"))
    if {*place} <= {*box}:
        place = {name: float(box[name]) for name in place}
        place["y"] = 1 - place["y"] - place["height"]
    return {**_ids(item, found), "text": item.get("text"), **place}


def merchant_of(item: Mapping[str, Any]) -> tuple[tuple[str, int], str] | None:
    """Read which merchant an item names for a receipt; the canonical name goes first.

    Returns:
        Image and receipt, and the name; None where it names none.
    """
    found = _parsed(item)
    name = item.get("canonical_merchant_name") or item.get("merchant_name")
    if found is None or not name:
        return None
    return (_image(item), int(found["receipt"])), str(name)


def _word_path(word: WordKey) -> str:
    return f"RECEIPT#{word.receipt_id:05d}#LINE#{word.line_id:05d}#WORD#{word.word_id:05d}"


def _parsed(item: Mapping[str, Any]) -> re.Match[str] | None:
    if not str(item.get("PK", "")).startswith("IMAGE#"):
        return None
    return _SORT_KEY.fullmatch(str(item.get("SK", "")))


def _image(item: Mapping[str, Any]) -> str:
    return str(item["PK"]).removeprefix("IMAGE#")


def _ids(item: Mapping[str, Any], found: re.Match[str]) -> dict[str, Any]:
    return {
        "image_id": _image(item),
        "receipt_id": int(found["receipt"]),
        "line_id": int(found["line"]),
        "word_id": int(found["word"]),
    }
