"""Labels for receipts that carry none: what the fitted model or a judge takes their words for.

The model's view of the text and of the place is asked, since there are no labels around. Proposals
are PENDING, say where they come from, and are no part of the home: nothing learns from them before
a person has looked at them and given them to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.files import staged
from harmonizer_assets.core.records.label import LABEL_KEY, WORD_KEY, WordKey, word_keys
from harmonizer_assets.core.records.status import Status
from harmonizer_assets.core.score.features import extract_features
from harmonizer_assets.core.score.fitting import FittedModel
from harmonizer_assets.core.score.folds import folds_of
from harmonizer_assets.core.score.pages import Page, read_page
from harmonizer_assets.core.score.view import Floats
from harmonizer_assets.core.store.export import check_target
from harmonizer_assets.core.store.warehouse import Warehouse

ORIGIN: Final = "model"
_RECEIPTS_AT_ONCE: Final = 500
_DECIMALS: Final = 6
_UNLABELLED: Final = """
SELECT DISTINCT image_id, receipt_id FROM words
ANTI JOIN labels USING (image_id, receipt_id) ORDER BY ALL
"""
SCHEMA: Final = pa.schema(
    [
        ("image_id", pa.string()),
        *((name, pa.int64()) for name in WORD_KEY[1:]),
        *((name, pa.string()) for name in (LABEL_KEY[-1], "validation_status", "merchant_name")),
        ("origin", pa.string()),
        ("model_version", pa.string()),
        ("proposal_probability", pa.float64()),
        ("word_text", pa.string()),
    ]
)


def unlabelled_receipts(warehouse: Warehouse) -> pa.Table:
    """List the receipts that hold words and no label: columns `image_id` and `receipt_id`."""
    return warehouse.query(_UNLABELLED)


def propose_labels(
    warehouse: Warehouse,
    receipts: pa.Table,
    label_types: Sequence[str],
    model: FittedModel,
    version: str,
    least: float,
) -> Iterator[pa.Table]:
    """Propose labels for the words of receipts without any.

    Args:
        warehouse: holds the words.
        receipts: see `unlabelled_receipts`.
        label_types: the taxonomy's names.
        model: in force.
        version: of the model.
        least: probability from which a label is proposed, 0..1.

    Yields:
        Tables of labels with the columns `SCHEMA`, for some receipts at a time.
    """
    for page in pages(warehouse, receipts, label_types):
        rows = [*_rows(page, label_types, model, version, least)]
        yield pa.Table.from_pylist(rows, SCHEMA)


def pages(warehouse: Warehouse, receipts: pa.Table, label_types: Sequence[str]) -> Iterator[Page]:
    """Read the words of receipts, some receipts at a time."""
    for start in range(0, receipts.num_rows, _RECEIPTS_AT_ONCE):
        some = receipts.slice(start, _RECEIPTS_AT_ONCE)
        page = warehouse.read(
            lambda con, some=some: read_page(con, some, label_types)  # type: ignore[misc]
        )
        if page.n_words:
            yield page


def class_log_probability(page: Page, model: FittedModel) -> Floats:
    """Compute log probabilities of each label type, and of none in the last column.

    Returns:
        Shape (w, n_types + 1).
    """
    words = np.arange(page.n_words)
    return model.suspicion.class_log_probability_of_text(
        extract_features(page, words), folds_of(page, words)
    )


def proposal(
    key: WordKey, text: str, label: str, origin: str, version: str, probability: float | None
) -> dict[str, Any]:
    """Make a row of `SCHEMA`."""
    return {
        **key._asdict(),
        "label": label,
        "validation_status": Status.PENDING.value,
        "merchant_name": None,
        "origin": origin,
        "model_version": version,
        "proposal_probability": None if probability is None else round(probability, _DECIMALS),
        "word_text": text,
    }


def write_proposals(path: Path, tables: Iterable[pa.Table], *, overwrite: bool = False) -> int:
    """Write proposals to a Parquet file, which appears as a whole; return how many there are.

    Raises:
        InputError: the file has another suffix, is there already, or cannot be written.
    """
    if path.suffix.lower() != ".parquet":
        raise InputError(f"{path}: proposals are written as Parquet: give a name that ends so")
    check_target(path, overwrite=overwrite)
    count = 0
    try:
        with staged(path) as partial, pq.ParquetWriter(partial, SCHEMA) as writer:
            for table in tables:
                writer.write_table(table)
                count += table.num_rows
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return count


def _rows(
    page: Page, label_types: Sequence[str], model: FittedModel, version: str, least: float
) -> Iterator[dict[str, Any]]:
    words = np.arange(page.n_words)
    classes = class_log_probability(page, model)
    best = classes[:, :-1].argmax(axis=1)
    probability = np.exp(classes[words, best])
    likely = np.flatnonzero((probability >= least) & (classes[words, best] > classes[:, -1]))
    keys = word_keys(page.keys.take(likely))
    for word, key in zip(likely.tolist(), keys, strict=True):
        label = label_types[best[word]]
        chance = float(probability[word])
        yield proposal(key, page.texts[word], label, ORIGIN, version, chance)
