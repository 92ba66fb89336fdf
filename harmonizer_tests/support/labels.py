"""Labels by the number: so many label types, merchants and words, for measuring the LLM path."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import score

WORDS_PER_RECEIPT: Final = 5
_TRIES: Final = 100


def _amount(rnd: random.Random) -> str:
    return f"{rnd.randrange(1, 999)}.{rnd.randrange(100):02d}"


def _word(rnd: random.Random) -> str:
    return "".join(rnd.choice("abcdefghijklmnoprstuvwz") for _ in range(rnd.randrange(4, 11)))


def _date(rnd: random.Random) -> str:
    return str(dt.date(2000, 1, 1) + dt.timedelta(days=rnd.randrange(9_000)))


TEXTS: Final[dict[str, Callable[[random.Random], str]]] = {
    "PRODUCT_NAME": lambda rnd: _word(rnd).title(),
    "LINE_TOTAL": _amount,
    "DATE": _date,
    "TIME": lambda rnd: f"{rnd.randrange(24):02d}:{rnd.randrange(60):02d}:{rnd.randrange(60):02d}",
    "ADDRESS_LINE": lambda rnd: f"{_word(rnd).title()}-{rnd.randrange(1, 400)}",
    "PHONE_NUMBER": lambda rnd: f"+{rnd.randrange(10**10, 10**11)}",
    "QUANTITY": lambda rnd: f"{rnd.randrange(1, 99_999)}x",
    "GRAND_TOTAL": lambda rnd: f"${_amount(rnd)}",
    "TAX": lambda rnd: f"{_amount(rnd)}%",
    "LOYALTY_ID": lambda rnd: f"#{rnd.randrange(10**9, 10**10)}",
}
"""The label types, with a maker of texts for each."""


def scored_home(
    home: Home,
    *,
    label_types: int = 1,
    merchants: int = 1,
    words: int = 520,
    repeated: float = 0.0,
    wrong: float = 0.0,
    validated: float = 0.0,
    settings: Settings | None = None,
    seed: int = 7,
) -> Pipeline:
    """Ingest, index and score `words` labels of each label type and merchant.

    Args:
        home: an empty home.
        label_types: how many label types; at most ten.
        merchants: how many merchants.
        words: labels of each label type and merchant.
        repeated: share of the words that equal another one in text and context.
        wrong: share of the words whose text is of another label type.
        validated: share of the labels with the right type that are VALID; others are PENDING.
        settings: of the home.
        seed: of the texts.
    """
    rnd = random.Random(seed)
    names = list(TEXTS)[:label_types]
    word_rows: list[dict[str, Any]] = []
    label_rows: list[dict[str, Any]] = []
    used: set[str] = set()
    for merchant in range(merchants):
        for line, label_type in enumerate(names, start=1):
            common = [TEXTS[label_type](rnd) for _ in range(max(1, words // 20))]
            for number in range(words):
                receipt, word_id = divmod(number, WORDS_PER_RECEIPT)
                kind = rnd.choice(list(TEXTS)) if rnd.random() < wrong else label_type
                # There are only so many dates: when most are used up, some come twice.
                for _ in range(_TRIES):
                    if (text := TEXTS[kind](rnd)) not in used:
                        break
                used.add(text)
                if rnd.random() < repeated:
                    text = common[number % len(common)]
                key = {
                    "image_id": f"merchant-{merchant}-receipt-{receipt}",
                    "receipt_id": 1,
                    # Each word on a line of its own, for its neighbours are part of a question.
                    "line_id": WORDS_PER_RECEIPT * line + word_id,
                    "word_id": 1,
                }
                is_valid = kind == label_type and number % 100 < 100 * validated
                y = line / (len(names) + 1) + word_id / 200
                box = {"x": 0.1 * line, "y": y, "width": 0.05, "height": 0.004}
                word_rows.append({**key, "text": text, **box})
                label_rows.append(
                    {
                        **key,
                        "label": label_type,
                        "validation_status": "VALID" if is_valid else "PENDING",
                        "merchant_name": f"Shop {merchant}",
                    }
                )
    folder = home.scratch / "labels"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(word_rows), folder / "words.parquet")
    pq.write_table(pa.Table.from_pylist(label_rows), folder / "labels.parquet")
    submit_batch(home, folder / "words.parquet", folder / "labels.parquet")
    pipeline = Pipeline(home, settings)
    pipeline.ingest()
    pipeline.index()
    score(pipeline)
    return pipeline


def scored_copy(home: Home, settings: Settings | None = None, **size: Any) -> Pipeline:
    """What `scored_home` makes of an empty home, as a copy of one that is made once.

    Args:
        home: an empty home.
        settings: of the home.
        size: further arguments of `scored_home`.
    """
    copy_home(
        home,
        ("scored", repr(settings), *sorted(size.items())),
        lambda fresh: scored_home(fresh, settings=settings, **size),
    )
    return Pipeline(home, settings)
