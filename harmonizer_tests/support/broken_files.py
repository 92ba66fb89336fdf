"""Files of labels, damaged in every way that chance finds."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_tests.support.receipts import LABEL_COLUMNS

ROWS: Final = 8
SUFFIXES: Final = (".csv", ".ndjson", ".parquet")

Rows = list[dict[str, Any]]


def label_rows() -> Rows:
    """Rows that can all be used."""
    values = ("i", 1, 1, 0, "GRAND_TOTAL", "VALID", 'Shop "A", é')
    row = dict(zip(LABEL_COLUMNS, values, strict=True))
    return [{**row, "word_id": number, "note": f"n{number}"} for number in range(ROWS)]


def as_file(rows: Rows, suffix: str) -> bytes:
    """Write rows of any values in a format."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if suffix == ".ndjson":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if suffix == ".csv":
        lines = [names, *([row.get(name, "") for name in names] for row in rows)]
        return "".join(",".join(_field(value) for value in line) + "\n" for line in lines).encode()
    columns = [_array([row.get(name) for row in rows]) for name in names]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, names=names), sink)
    return sink.getvalue()


def _field(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in '",\n') else text


def _array(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])


def broken_file(seed: int) -> tuple[str, bytes]:
    """Return the suffix and the content of one file; equal for equal seeds."""
    chance = random.Random(seed)
    suffix = chance.choice(SUFFIXES)
    break_ = chance.choice((_damaged, _truncated, _mistyped, _nested, _huge, _misnamed, _spliced))
    return suffix, break_(chance, suffix)


def _damaged(chance: random.Random, suffix: str) -> bytes:
    content = bytearray(as_file(label_rows(), suffix))
    for _ in range(chance.choice((1, 3, 20, 100))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


def _truncated(chance: random.Random, suffix: str) -> bytes:
    content = as_file(label_rows(), suffix)
    cut = chance.randrange(len(content))
    return chance.choice((content[:cut], content[cut:], content[:cut] + content))


def _mistyped(chance: random.Random, suffix: str) -> bytes:
    odd: tuple[Any, ...] = (
        None, True, -1, 1.5, 2**63, 2**70, float("nan"), float("inf"), "", "NA", "\x00", "\ud7ff",
        b"\xc3\xa9".decode(), [], {}, [None], "x\ny", "'", '"', '"24', "=1+1", "🧾", "\ufeff",
    )  # fmt: skip
    rows = label_rows()
    name = chance.choice(list(rows[0]))
    for row in rows:
        if chance.random() < 0.7:
            row[name] = chance.choice(odd)
    return as_file(rows, suffix)


def _nested(chance: random.Random, suffix: str) -> bytes:
    depth = chance.choice((3, 60, 300, 900, 5_000))
    rows = label_rows()
    if suffix == ".parquet":
        value: Any = "x"
        for _ in range(min(depth, 60)):
            value = [value] if chance.random() < 0.5 else {"a": value}
        rows[0]["note"], rows = value, rows[:1]
        return as_file(rows, suffix)
    text = "[" * depth + "]" * (depth - chance.randrange(2))
    content = as_file(rows, suffix)
    return content.replace(b'"n3"', text.encode()).replace(b"n3", text.encode())


def _huge(chance: random.Random, suffix: str) -> bytes:
    rows = label_rows()
    name = chance.choice(("image_id", "label", "merchant_name", "note", "word_id"))
    size = chance.choice((20_000, 150_000, 1_200_000))
    if name != "word_id" or suffix != ".parquet":
        rows[chance.randrange(ROWS)][name] = "x" * size
    for number in range(chance.choice((0, 50, 1_100))):
        rows[0][f"column {number}"] = number
    return as_file(rows, suffix)


def _misnamed(chance: random.Random, suffix: str) -> bytes:
    odd = ("", " ", "Note", "LABEL", "a\x00b", 'q"uote', "a/b~c", "x" * 300, "file_row_number",
           "extra", "batch_id", "row_number", "problem", "🧾", "null", "0")  # fmt: skip
    rows = label_rows()
    for name in chance.sample(odd, chance.randrange(1, 4)):
        for row in rows:
            row[name] = f"v{row['word_id']}"
    return as_file(rows, suffix)


def _spliced(chance: random.Random, suffix: str) -> bytes:
    """Put something where it does not belong: quotes, line ends, another format."""
    content = as_file(label_rows(), suffix)
    others: tuple[Callable[[], bytes], ...] = (
        lambda: b'"',
        lambda: b'\n"',
        lambda: b"\r",
        lambda: b"\x00" * 10,
        lambda: b"\xff\xfe",
        lambda: as_file(label_rows(), chance.choice(SUFFIXES)),
    )
    for _ in range(chance.choice((1, 2, 5))):
        place = chance.randrange(len(content))
        content = content[:place] + chance.choice(others)() + content[place:]
    return content
