"""Make `receipts.jsonl`, the example of the tutorial about formats.

    harmonizer demo --labels 700 --home first_home
    python docs/examples/make.py first_home/demo/* docs/examples/receipts.jsonl

The sample receipts with their known errors become token classification as on the Hugging Face hub:
boxes in thousandths of the image, and no statuses.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def main(data: Path, out: Path) -> None:
    """Write the receipts of a folder with tables as JSON lines."""
    labels = {_key(row): row for row in pq.read_table(data / "labels.parquet").to_pylist()}
    receipts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(pq.read_table(data / "words.parquet").to_pylist(), key=_key):
        receipts[row["image_id"]].append(row)
    lines = (json.dumps(_record(name, rows, labels)) for name, rows in receipts.items())
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("image_id", "receipt_id", "line_id", "word_id"))


def _record(name: str, rows: list[dict[str, Any]], labels: dict[Any, Any]) -> dict[str, Any]:
    found = [labels.get(_key(row)) for row in rows]
    merchants = [label["merchant_name"] for label in found if label]
    return {
        "id": name,
        "merchant_name": merchants[0] if merchants else None,
        "tokens": [row["text"] for row in rows],
        "bboxes": [_box(row) for row in rows],
        "ner_tags": [label["label"] if label else "O" for label in found],
    }


def _box(row: dict[str, Any]) -> list[int]:
    left, top = row["x"], row["y"]
    sides = (left, top, left + row["width"], top + row["height"])
    return [round(1000 * min(max(side, 0.0), 1.0)) for side in sides]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
