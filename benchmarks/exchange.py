"""Exchange of 10,000 labels under review: to each format and back, and into a home as answers.

    python -m benchmarks.exchange

The texts are those that formats are known to change. What comes back is compared with what was
written; a difference ends the benchmark. The answers are imported from NDJSON, twice.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.review.exchange.base import Returned
from harmonizer_assets.core.review.exchange.formats import FORMATS
from harmonizer_assets.core.review.exchange.importing import import_answers
from harmonizer_assets.core.review.exchange.records import ExchangeRecord
from harmonizer_assets.core.store.warehouse import Warehouse
from harmonizer_tests.support.exchange import HOSTILE, TYPES, edited_json, record

T = TypeVar("T")
WORDS_PER_RECEIPT: Final = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    records = made(parser.parse_args().records)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for format_name in FORMATS:
            compare(format_name, records, folder)
        import_twice(records, folder)


def made(count: int) -> list[ExchangeRecord]:
    """Make records, each on a word of its own, 40 to a receipt."""
    records = []
    for number in range(count):
        receipt, word = divmod(number, WORDS_PER_RECEIPT)
        text = HOSTILE[number % len(HOSTILE)]
        one = record(1 + word % 19, text=text, line=f"{text} {number}", merchant_name=text)
        key = one.key._replace(image_id=f"image-{receipt}", word_id=word)
        records.append(record(1 + word % 19, **{**vars(one), "key": key}))
    return records


def timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def compare(name: str, records: Sequence[ExchangeRecord], folder: Path) -> None:
    """Write and read one format; end where a record differs."""
    exchange_format = FORMATS[name]
    path = folder / f"{name}{exchange_format.suffix}"
    _, writing = timed(lambda: exchange_format.write(path, records, TYPES))
    found, reading = timed(lambda: list(exchange_format.read(path)))
    returned = [part.record for part in found if isinstance(part, Returned)]
    if sorted(returned, key=lambda one: one.key) != sorted(records, key=lambda one: one.key):
        raise SystemExit(f"{name}: what came back is not what was written")
    size = path.stat().st_size / 1e6
    print(
        f"{name}: {len(returned):,} records without a difference, "
        f"written in {writing:.2f} s, read in {reading:.2f} s, {size:.1f} MB"
    )


def import_twice(records: Sequence[ExchangeRecord], folder: Path) -> None:
    """Import an answer about each record into a home that holds their labels."""
    warehouse = Warehouse(Home(folder / "home"))
    warehouse.write(lambda con: fill(con, records))
    path = edited_json(folder / "ndjson.ndjson", agree)
    for turn in ("first", "second"):
        report, seconds = timed(
            lambda: import_answers(warehouse, FORMATS["ndjson"], path, TYPES, "ann")
        )
        print(
            f"{turn} import: {sum(report.answers.values()):,} answers stored, "
            f"{report.known:,} known, {len(report.refused):,} refused, in {seconds:.2f} s"
        )


def agree(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row |= {"answer": "wrong", "answer_label": row["to_label"]}


def fill(con: Any, records: Sequence[ExchangeRecord]) -> None:
    rows = [
        {
            **one.key._asdict(),
            "text": one.text,
            "validation_status": one.validation_status,
            "merchant_name": one.merchant_name,
            "merchant_key": "shop",
            "batch_id": one.batch_id,
            "batch_time": one.batch_time,
        }
        for one in records
    ]
    con.register("made", pa.Table.from_pylist(json.loads(json.dumps(rows, default=str))))
    con.execute(
        "INSERT INTO words BY NAME SELECT image_id, receipt_id, line_id, word_id, text, batch_id, "
        "batch_time::TIMESTAMPTZ AS batch_time FROM made"
    )
    con.execute(
        "INSERT INTO labels BY NAME SELECT * EXCLUDE (text) "
        "REPLACE (batch_time::TIMESTAMPTZ AS batch_time) FROM made"
    )
    con.unregister("made")


if __name__ == "__main__":
    main()
