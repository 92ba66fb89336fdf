"""The tables that arrive: their columns and keys."""

from __future__ import annotations

from typing import Final

from harmonizer_assets.core.ingest.readers import TableLayout
from harmonizer_assets.core.records.label import LABEL_KEY, WORD_KEY

WORDS: Final = TableLayout(
    "words",
    (*WORD_KEY, "text"),
    ("x", "y", "width", "height"),
    whole_numbers=WORD_KEY[1:],
)
LABELS: Final = TableLayout(
    "labels",
    (*LABEL_KEY, "validation_status", "merchant_name"),
    derived=("merchant_key",),
    whole_numbers=WORD_KEY[1:],
)
LAYOUTS: Final = (WORDS, LABELS)
