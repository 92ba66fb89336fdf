"""Receipts whose texts repeat as seldom as real ones do, from a seed, for `benchmarks.pipeline`.

Words and names of products are drawn as in Simon's model of texts (1955): a new one with a fixed
probability, otherwise one that was used before, so that frequencies follow Zipf's law and the share
of new ones does not fall as the receipts become more. The probabilities are set so that 72 % of the
labelled words are documents of their own, as on the receipts of CORD (0.718, counted with
`python -m benchmarks.real_text FOLDER`).
"""

from __future__ import annotations

import argparse
import datetime as dt
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.measure.samples import lexicon
from harmonizer_assets.core.measure.samples.receipts import LABEL_SCHEMA, WORD_SCHEMA

_NEW_WORD: Final = 0.13
_NEW_PRODUCT: Final = 0.73
_NEW_CAPTION: Final = 0.3
_VALIDATED: Final = 0.3
_WRONG: Final = 0.06
_RECEIPTS_PER_GROUP: Final = 100
_SYLLABLES: Final = tuple(a + b for a in "bcdfghjklmnprstwz" for b in ("a", "e", "i", "o", "u"))

Cells = list[tuple[float, str, str | None]]
"""One row: horizontal place, text and label of each cell."""


@dataclass
class _Stock:
    """Draws as in Simon's model: something new with a fixed probability, else something used."""

    rng: random.Random
    new: float
    make: Callable[[], str]
    used: list[str] = field(default_factory=list)

    def draw(self) -> str:
        if self.used and self.rng.random() >= self.new:
            drawn = self.rng.choice(self.used)
        else:
            drawn = self.make()
        self.used.append(drawn)
        return drawn


class _Printer:
    """Prints the receipts of many merchants, or of none."""

    def __init__(self, seed: int, merchants: int) -> None:
        self.rng = rng = random.Random(f"{seed}/real text")
        self._words = _Stock(rng, _NEW_WORD, self._word)
        self._products = _Stock(rng, _NEW_PRODUCT, self._product)
        self._names = [
            f"{rng.choice(lexicon.NAME_FIRST)} {self._word()} {number}"
            for number in range(merchants)
        ]

    def _word(self) -> str:
        return "".join(self.rng.choices(_SYLLABLES, k=self.rng.randint(1, 4))).title()

    def _product(self) -> str:
        return " ".join(self._words.draw() for _ in range(self.rng.choice((1, 2, 2, 3, 3, 4))))

    def _amount(self, cents: int) -> str:
        return f"{cents / 100:,.2f}"

    def _caption(self, usual: Sequence[str]) -> str:
        """Draw a caption: a usual one, at times with a word that hardly anybody else prints."""
        caption = self.rng.choice(usual)
        return f"{caption} {self._words.draw()}" if self.rng.random() < _NEW_CAPTION else caption

    def receipt(self) -> tuple[str | None, list[Cells]]:
        """Print one receipt: its merchant and its rows."""
        rng = self.rng
        name = rng.choice(self._names) if self._names else None
        moment = dt.datetime(2023, 1, 1) + dt.timedelta(minutes=rng.randrange(525_600))
        left, middle, right = rng.uniform(0, 0.2), rng.uniform(0.4, 0.65), rng.uniform(0.7, 0.9)
        rows: list[Cells] = [
            [(rng.uniform(left, middle), name or self._products.draw(), "MERCHANT_NAME")],
            [(left, f"{rng.randint(1, 250)} {self._products.draw()} Road", "ADDRESS_LINE")],
            [(left, "Tel", None), (middle, f"0{rng.randint(10**7, 10**9)}", "PHONE_NUMBER")],
            [
                (left, moment.strftime(rng.choice(lexicon.DATE_FORMATS)), "DATE"),
                (middle, moment.strftime(rng.choice(lexicon.TIME_FORMATS)), "TIME"),
            ],
        ]
        total = 0
        for _ in range(rng.randint(1, 12)):
            count, price = rng.choice((1, 1, 1, 2, 3, 10)), rng.randint(10, 90_000) * 5
            total += count * price
            rows.append(
                [
                    (left, str(count), "QUANTITY"),
                    (left + 0.05, self._products.draw(), "PRODUCT_NAME"),
                    (middle + 0.05, self._amount(price), "UNIT_PRICE"),
                    (right, self._amount(count * price), "LINE_TOTAL"),
                ]
            )
        return name, rows + self._totals(total, rng.uniform(left, middle), right)

    def _totals(self, total: int, middle: float, right: float) -> list[Cells]:
        tax = round(total * 0.06)
        amounts = {
            "SUBTOTAL": (lexicon.SUBTOTAL_CAPTIONS, total),
            "TAX": (lexicon.TAX_CAPTIONS, tax),
            "GRAND_TOTAL": (lexicon.TOTAL_CAPTIONS, total + tax),
        }
        return [
            *(
                [(middle, self._caption(captions), None), (right, self._amount(cents), label)]
                for label, (captions, cents) in amounts.items()
            ),
            [
                (middle, self.rng.choice(lexicon.PAYMENTS), "PAYMENT_METHOD"),
                (right, self._amount(total + tax), None),
            ],
        ]


def write_real_text(folder: Path, labels: int, merchants: int, seed: int) -> tuple[Path, Path]:
    """Write `words.parquet` and `labels.parquet` of about so many labels; 0 merchants for none."""
    paths = folder / "words.parquet", folder / "labels.parquet"
    made = 0
    printer = _Printer(seed, merchants)
    with (
        pq.ParquetWriter(paths[0], WORD_SCHEMA) as words,
        pq.ParquetWriter(paths[1], LABEL_SCHEMA) as labelled,
    ):
        first = 0
        while made < labels:
            rows = [
                row
                for number in range(first, first + _RECEIPTS_PER_GROUP)
                for row in _scanned(printer, number)
            ]
            first += _RECEIPTS_PER_GROUP
            given = [(*word[:4], *label) for word, label in rows if label is not None]
            words.write_table(_table([word for word, _ in rows], WORD_SCHEMA))
            labelled.write_table(_table(given[: labels - made], LABEL_SCHEMA))
            made += len(given)
    return paths


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _scanned(
    printer: _Printer, number: int
) -> Iterator[tuple[tuple[Any, ...], tuple[str, str, str | None] | None]]:
    """Read one receipt as OCR would: each word, with label, status and merchant where it has any"""
    rng = printer.rng
    merchant, rows = printer.receipt()
    top, step = rng.uniform(0.02, 0.2), rng.uniform(0.02, 0.04)
    for line, cells in enumerate(rows, start=1):
        word = 0
        for place, text, label in cells:
            x = place + rng.uniform(-0.02, 0.02)
            for part in text.split():
                word += 1
                width = 0.011 * len(part)
                y = top + line * step + rng.uniform(-0.001, 0.001)
                yield (
                    (f"real-{number:07d}", 1, line, word, part, x, y, width, 0.6 * step),
                    None if label is None else _labelled(rng, label, merchant),
                )
                x += width + 0.01


def _labelled(rng: random.Random, label: str, merchant: str | None) -> tuple[str, str, str | None]:
    if rng.random() < _WRONG:
        return rng.choice(lexicon.CONFUSABLE[label]), "PENDING", merchant
    return label, "VALID" if rng.random() < _VALIDATED else "PENDING", merchant


def distinct_share(words: Path, labels: Path, taxonomy: Path | None = None) -> float:
    """Count how many documents there are per labelled word, in a home of their own."""
    from harmonizer_assets.core.base.home import Home
    from harmonizer_assets.core.index.documents import build_documents
    from harmonizer_assets.core.ingest.inbox import submit_batch
    from harmonizer_assets.core.pipeline import Pipeline

    with tempfile.TemporaryDirectory(prefix="harmonizer-bench-") as folder:
        home = Home(Path(folder)).ensure()
        if taxonomy is not None and taxonomy.exists():
            home.taxonomy.write_bytes(taxonomy.read_bytes())
        pipeline = Pipeline(home)
        submit_batch(home, words, labels)
        pipeline.ingest()
        built = pipeline.warehouse.write(lambda con: build_documents(con, 10**9))
        return len(built["document_id"].unique()) / max(built.num_rows, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Documents per labelled word of some receipts.")
    parser.add_argument("data", type=Path, help="folder with words.parquet and labels.parquet")
    data = parser.parse_args().data
    share = distinct_share(data / "words.parquet", data / "labels.parquet", data / "taxonomy.yaml")
    print(f"{share:.3f}")


if __name__ == "__main__":
    main()
