"""Sample receipts with known wrong labels, from a seed: for the demo, benchmarks and tests."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.measure.samples import lexicon

LABELS_PER_RECEIPT: Final = 42
"""About how many labels a receipt gets; merchants are sized by it."""
_ROWS_PER_GROUP: Final = 50_000
_UNKNOWN_MERCHANT_SHARE: Final = 0.01

_KEY = [
    ("image_id", pa.string()),
    ("receipt_id", pa.int64()),
    ("line_id", pa.int64()),
    ("word_id", pa.int64()),
]
_BOX = [(name, pa.float64()) for name in ("x", "y", "width", "height")]
WORD_SCHEMA: Final = pa.schema([*_KEY, ("text", pa.string()), *_BOX])
LABEL_SCHEMA: Final = pa.schema(
    [
        *_KEY,
        ("label", pa.string()),
        ("validation_status", pa.string()),
        ("merchant_name", pa.string()),
    ]
)
TRUTH_SCHEMA: Final = pa.schema(
    [*_KEY, ("label", pa.string()), ("is_error", pa.bool_()), ("true_label", pa.string())]
)


@dataclass(frozen=True)
class SampleSpec:
    """Which samples to make.

    Attributes:
        labels: about how many labels.
        merchants: how many merchants, at the most one for every 50 labels; None means one for
            every 150.
        error_rate: share of labels that are wrong.
        valid_share: share of the right labels whose status is VALID.
        ocr_noise: share of words with one misread character.
        seed: the same seed makes the same receipts.
    """

    labels: int = 5_000
    merchants: int | None = None
    error_rate: float = 0.08
    valid_share: float = 0.5
    ocr_noise: float = 0.03
    seed: int = 7


@dataclass(frozen=True)
class SampleFiles:
    """Where the samples are and how many there are."""

    words: Path
    labels: Path
    truth: Path
    n_words: int
    n_labels: int
    n_errors: int


@dataclass
class Cell:
    """A text that stands at one place of a row; its words share the label."""

    text: str
    x: float
    label: str | None = None


@dataclass
class Receipt:
    """A receipt before OCR: rows of cells, and the amounts that must add up (in cents)."""

    rows: list[list[Cell]] = field(default_factory=list)
    line_totals: list[int] = field(default_factory=list)
    discount: int = 0
    subtotal: int = 0
    tax: int = 0
    total: int = 0

    def add(self, *cells: Cell) -> None:
        """Add a row."""
        self.rows.append(list(cells))


@dataclass(frozen=True)
class Merchant:
    """The properties that all receipts of one merchant share."""

    name: str
    family: str
    address: tuple[str, ...]
    phone: str
    website: str | None
    hours: str | None
    captions: dict[str, str]
    date_format: str
    time_format: str
    currency: str
    left: float
    amount_x: float
    centered: bool
    has_unit_price: bool
    shows_subtotal: bool
    has_loyalty: bool
    splits_rows: bool


def write_samples(spec: SampleSpec, folder: Path) -> SampleFiles:
    """Write `words.parquet`, `labels.parquet` and `truth.parquet` into a folder.

    Memory does not grow with the number of labels.
    """
    files = {name: folder / f"{name}.parquet" for name in ("words", "labels", "truth")}
    schemas = {"words": WORD_SCHEMA, "labels": LABEL_SCHEMA, "truth": TRUTH_SCHEMA}
    counts = dict.fromkeys(files, 0)
    errors = 0
    writers = {name: pq.ParquetWriter(path, schemas[name]) for name, path in files.items()}
    pending: dict[str, list[tuple[Any, ...]]] = {name: [] for name in files}

    def flush(name: str) -> None:
        columns = list(zip(*pending[name], strict=True))
        if columns:
            arrays = [
                pa.array(column, kind.type)
                for column, kind in zip(columns, schemas[name], strict=True)
            ]
            writers[name].write_table(pa.Table.from_arrays(arrays, schema=schemas[name]))
        pending[name] = []

    try:
        for words, labels, truth in _receipts(spec):
            for name, rows in (("words", words), ("labels", labels), ("truth", truth)):
                pending[name].extend(rows)
                counts[name] += len(rows)
                if len(pending[name]) >= _ROWS_PER_GROUP:
                    flush(name)
            errors += sum(row[5] for row in truth)
            if counts["labels"] >= spec.labels:
                break
        for name in files:
            flush(name)
    finally:
        for writer in writers.values():
            writer.close()
    return SampleFiles(**files, n_words=counts["words"], n_labels=counts["labels"], n_errors=errors)


Rows = list[tuple[Any, ...]]


def _receipts(spec: SampleSpec) -> Iterator[tuple[Rows, Rows, Rows]]:
    """Make rows of words, labels and truth: one receipt of every merchant, then the others."""
    sizes = _merchant_sizes(spec)
    # A generator of its own per merchant: one merchant's receipts do not depend on the others.
    rngs = [random.Random(f"{spec.seed}/{index}") for index in range(len(sizes))]
    merchants = [make_merchant(rng, index) for index, rng in enumerate(rngs)]
    order = [*range(len(sizes))]
    order += [index for index, size in enumerate(sizes) for _ in range(size - 1)]
    for number, index in enumerate(order):
        two_on_one_image = number % 10 == 9
        image = f"sample-{number - two_on_one_image:07d}"
        receipt = make_receipt(rngs[index], merchants[index])
        yield _scan(
            rngs[index], receipt, merchants[index], spec, image, 2 if two_on_one_image else 1
        )


def _merchant_sizes(spec: SampleSpec) -> list[int]:
    """Draw receipts per merchant: many merchants with one or two, a few with many."""
    merchants = spec.merchants or max(3, spec.labels // 150)
    receipts = max(merchants, -(-spec.labels // (LABELS_PER_RECEIPT - 8)))
    rng = random.Random(f"{spec.seed}/sizes")
    weights = [rng.paretovariate(1.0) for _ in range(merchants)]
    spare = receipts - merchants
    total = sum(weights)
    return [1 + round(spare * weight / total) for weight in weights]


def make_merchant(rng: random.Random, index: int) -> Merchant:
    """Make a merchant and the habits of its till."""
    family = rng.choice(sorted(lexicon.ITEMS))
    name = " ".join(
        part
        for part in (
            rng.choice(lexicon.NAME_FIRST),
            rng.choice(lexicon.NAME_SECOND[family]),
            rng.choice(lexicon.NAME_LAST),
        )
        if part
    )
    if index < len(lexicon.ODD_NAMES):
        name = lexicon.ODD_NAMES[index]
    else:
        name = f"{name} {rng.choice(lexicon.CITIES)} {index}"
    street = (
        f"{rng.randint(1, 199)} {rng.choice(lexicon.STREETS)} {rng.choice(lexicon.STREET_KINDS)}"
    )
    city = f"{rng.randint(10000, 99999)} {rng.choice(lexicon.CITIES)}"
    site = "".join(c for c in name.lower() if c.isascii() and c.isalnum()) or "shop"
    return Merchant(
        name=name,
        family=family,
        address=(street, city),
        phone=rng.choice(
            (
                f"0{rng.randint(3, 9)}-{rng.randint(1000, 9999)} {rng.randint(1000, 9999)}",
                f"({rng.randint(200, 999)}) {rng.randint(200, 999)}-{rng.randint(1000, 9999)}",
            )
        ),
        website=f"www.{site}.example" if rng.random() < 0.6 else None,
        hours=rng.choice((None, "Mon-Sat 9:00-21:00", "Open daily 08:00 - 22:00", "24 hours")),
        captions={
            "total": rng.choice(lexicon.TOTAL_CAPTIONS),
            "subtotal": rng.choice(lexicon.SUBTOTAL_CAPTIONS),
            "tax": rng.choice(lexicon.TAX_CAPTIONS),
            "phone": rng.choice(lexicon.PHONE_CAPTIONS),
            "loyalty": rng.choice(lexicon.LOYALTY_CAPTIONS),
            "footer": rng.choice(lexicon.FOOTERS),
        },
        date_format=rng.choice(lexicon.DATE_FORMATS),
        time_format=rng.choice(lexicon.TIME_FORMATS),
        currency=rng.choice(("", "", "$", "RM")),
        left=rng.uniform(0.03, 0.12),
        amount_x=rng.uniform(0.74, 0.86),
        centered=rng.random() < 0.5,
        has_unit_price=rng.random() < 0.6,
        shows_subtotal=rng.random() < 0.8,
        has_loyalty=rng.random() < 0.5,
        splits_rows=rng.random() < 0.6,
    )


def make_receipt(rng: random.Random, merchant: Merchant) -> Receipt:
    """Make one receipt whose line totals, subtotal, tax and total add up."""
    receipt = Receipt()
    left, right = merchant.left, merchant.amount_x

    def amount(cents: int, *, prefix: bool = False) -> str:
        return f"{merchant.currency if prefix else ''}{cents / 100:.2f}"

    def header(text: str, label: str | None) -> None:
        x = max(left, 0.5 - 0.006 * len(text)) if merchant.centered else left
        receipt.add(Cell(text, x, label))

    header(merchant.name.upper() if rng.random() < 0.5 else merchant.name, "MERCHANT_NAME")
    for line in merchant.address:
        header(line, "ADDRESS_LINE")
    receipt.add(
        Cell(merchant.captions["phone"], left), Cell(merchant.phone, left + 0.14, "PHONE_NUMBER")
    )
    if merchant.website:
        header(merchant.website, "WEBSITE")
    if merchant.hours:
        header(merchant.hours, "STORE_HOURS")
    moment = dt.datetime(2023, 1, 1) + dt.timedelta(minutes=rng.randrange(525_600))
    receipt.add(
        Cell("Date", left),
        Cell(moment.strftime(merchant.date_format), left + 0.12, "DATE"),
        Cell(moment.strftime(merchant.time_format), right - 0.02, "TIME"),
    )
    receipt.add(Cell(f"Receipt # {rng.randint(10000, 99999)}", left))
    if merchant.has_loyalty and rng.random() < 0.7:
        receipt.add(
            Cell(merchant.captions["loyalty"], left),
            Cell(str(rng.randint(10**8, 10**9)), left + 0.3, "LOYALTY_ID"),
        )
    _add_items(rng, receipt, merchant, amount)
    _add_totals(rng, receipt, merchant, amount)
    receipt.add(Cell(merchant.captions["footer"], left + 0.1))
    return receipt


def _add_items(rng: random.Random, receipt: Receipt, merchant: Merchant, amount: Any) -> None:
    left, right = merchant.left, merchant.amount_x
    receipt.add(Cell("Item", left), Cell("Qty", 0.5), Cell("Amount", right))
    names = lexicon.ITEMS[merchant.family]
    for name in rng.sample(names, min(len(names), rng.randint(2, 8))):
        price, quantity = rng.randint(90, 6000), rng.choice((1, 1, 1, 2, 3))
        cells = [Cell(name, left, "PRODUCT_NAME"), Cell(str(quantity), 0.5, "QUANTITY")]
        if merchant.has_unit_price:
            cells.append(Cell(amount(price), 0.6, "UNIT_PRICE"))
        cells.append(Cell(amount(price * quantity), right, "LINE_TOTAL"))
        receipt.add(*cells)
        receipt.line_totals.append(price * quantity)


def _add_totals(rng: random.Random, receipt: Receipt, merchant: Merchant, amount: Any) -> None:
    left, right = merchant.left, merchant.amount_x
    receipt.subtotal = sum(receipt.line_totals)
    if merchant.shows_subtotal:
        receipt.add(
            Cell(merchant.captions["subtotal"], left),
            Cell(amount(receipt.subtotal), right, "SUBTOTAL"),
        )
    if rng.random() < 0.25:
        receipt.discount = round(receipt.subtotal * rng.choice((0.05, 0.1, 0.2)))
        if rng.random() < 0.5:
            receipt.add(
                Cell("Coupon", left), Cell(f"SAVE{rng.randint(10, 99)}", left + 0.2, "COUPON")
            )
        receipt.add(Cell("Discount", left), Cell(f"-{amount(receipt.discount)}", right, "DISCOUNT"))
    receipt.tax = round((receipt.subtotal - receipt.discount) * 0.06)
    receipt.total = receipt.subtotal - receipt.discount + receipt.tax
    receipt.add(Cell(merchant.captions["tax"], left), Cell(amount(receipt.tax), right, "TAX"))
    receipt.add(
        Cell(merchant.captions["total"], left),
        Cell(amount(receipt.total, prefix=True), right, "GRAND_TOTAL"),
    )
    payment = rng.choice(lexicon.PAYMENTS)
    paid = receipt.total if payment != "CASH" else -(-receipt.total // 1000) * 1000
    receipt.add(Cell(payment, left, "PAYMENT_METHOD"), Cell(amount(paid), right))
    if payment == "CASH":
        receipt.add(Cell("Change", left), Cell(amount(paid - receipt.total), right))


def _scan(
    rng: random.Random,
    receipt: Receipt,
    merchant: Merchant,
    spec: SampleSpec,
    image: str,
    receipt_id: int,
) -> tuple[Rows, Rows, Rows]:
    """Read a receipt as OCR would, and label it with errors."""
    words: Rows = []
    labels: Rows = []
    truth: Rows = []
    top, step = rng.uniform(0.02, 0.06), 0.9 / len(receipt.rows)
    height = min(0.03, step * 0.7)
    name = None if rng.random() < _UNKNOWN_MERCHANT_SHARE else merchant.name
    line_id = 0
    for row_number, cells in enumerate(receipt.rows):
        word_id = 0
        for position, cell in enumerate(cells):
            if position == 0 or merchant.splits_rows:
                line_id += 1
                word_id = 0
            x = cell.x + rng.uniform(-0.005, 0.005)
            for text in cell.text.split():
                word_id += 1
                key = (image, receipt_id, line_id, word_id)
                width = 0.012 * len(text)
                y = top + row_number * step + rng.uniform(-0.002, 0.002)
                box = (min(x, 0.99), y, min(width, 1 - min(x, 0.99)), height)
                x += width + 0.012
                words.append((*key, _misread(rng, text, spec.ocr_noise), *box))
                label = _assign(rng, cell.label, spec.error_rate)
                if label is None:
                    continue
                is_error = label != cell.label
                labels.append((*key, label, _status(rng, is_error, spec.valid_share), name))
                truth.append((*key, label, is_error, cell.label))
    return words, labels, truth


def _misread(rng: random.Random, text: str, noise: float) -> str:
    if rng.random() >= noise:
        return text
    at = rng.randrange(len(text))
    if len(text) > 3 and rng.random() < 0.3:
        return text[:at] + text[at + 1 :]
    return text[:at] + lexicon.CONFUSIONS.get(text[at], text[at]) + text[at + 1 :]


def _assign(rng: random.Random, true_label: str | None, error_rate: float) -> str | None:
    """Draw the label that a word gets: mostly the true one, sometimes a wrong one."""
    if true_label is None:
        # There is about one caption word for two labelled words.
        if rng.random() < error_rate / 2:
            return rng.choice(tuple(lexicon.CONFUSABLE))
        return None
    if rng.random() >= error_rate * 0.8:
        return true_label
    if rng.random() < 0.75:
        return rng.choice(lexicon.CONFUSABLE[true_label])
    return rng.choice([name for name in lexicon.CONFUSABLE if name != true_label])


def _status(rng: random.Random, is_error: bool, valid_share: float) -> str:
    if not is_error and rng.random() < valid_share:
        return "VALID"
    return rng.choices(("PENDING", "NEEDS_REVIEW", "NONE"), (0.85, 0.08, 0.07))[0]
