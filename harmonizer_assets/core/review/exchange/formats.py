"""All formats, by name."""

from __future__ import annotations

from typing import Final

from harmonizer_assets.core.review.exchange.argilla import Argilla
from harmonizer_assets.core.review.exchange.base import Format
from harmonizer_assets.core.review.exchange.csv_files import Csv
from harmonizer_assets.core.review.exchange.doccano import Doccano
from harmonizer_assets.core.review.exchange.label_studio import LabelStudio
from harmonizer_assets.core.review.exchange.ndjson_files import Ndjson
from harmonizer_assets.core.review.exchange.parquet_files import Parquet
from harmonizer_assets.core.review.exchange.prodigy import Prodigy

FORMATS: Final[dict[str, Format]] = {
    one.name: one
    for one in (Csv(), Parquet(), Ndjson(), LabelStudio(), Argilla(), Doccano(), Prodigy())
}
"""Who adds a format adds it here."""
