"""Small receipts for tests, made by hand: every merchant prints its own fixed layout."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.reports import PartitionResult, RunReport

OFFLINE: Final = RunOptions(judge="offline")

WORD_COLUMNS = (
    "image_id",
    "receipt_id",
    "line_id",
    "word_id",
    "text",
    "x",
    "y",
    "width",
    "height",
)
LABEL_COLUMNS = (
    "image_id",
    "receipt_id",
    "line_id",
    "word_id",
    "label",
    "validation_status",
    "merchant_name",
)


@dataclass
class Receipts:
    """Rows of words and labels, and which label keys are wrong."""

    words: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[tuple[Any, ...]] = field(default_factory=list)

    def add_receipt(
        self,
        image_id: str,
        merchant: str | None,
        *,
        total: str = "12.50",
        wrong_total: str | None = None,
        status: str = "VALID",
    ) -> None:
        """Add one receipt; `wrong_total` is a wrong label for the total, which stays PENDING."""
        name = (merchant or "No Name").split()[0].upper()
        rows: list[list[tuple[str, str | None]]] = [
            [(name, "MERCHANT_NAME")],
            [("12", "ADDRESS_LINE"), ("High", "ADDRESS_LINE"), ("Street", "ADDRESS_LINE")],
            [("2024-03-07", "DATE"), ("14:05", "TIME")],
            [("Coffee", "PRODUCT_NAME"), ("3.50", "LINE_TOTAL")],
            [("Sandwich", "PRODUCT_NAME"), ("9.00", "LINE_TOTAL")],
            [("SUBTOTAL", None), (total, "SUBTOTAL")],
            [("TOTAL", None), (total, wrong_total or "GRAND_TOTAL")],
            [("Thank", None), ("you", None)],
        ]
        for line_id, row in enumerate(rows, start=1):
            for word_id, (text, label) in enumerate(row, start=1):
                key = {
                    "image_id": image_id,
                    "receipt_id": 1,
                    "line_id": line_id,
                    "word_id": word_id,
                }
                x = 0.1 if word_id == 1 else 0.2 + 0.2 * word_id
                box = {"x": x, "y": line_id / 10, "width": 0.1, "height": 0.03}
                self.words.append({**key, "text": text, **box})
                if label is None:
                    continue
                is_wrong = wrong_total is not None and label == wrong_total and line_id == 7
                self.labels.append(
                    {
                        **key,
                        "label": label,
                        "validation_status": "PENDING" if is_wrong else status,
                        "merchant_name": merchant,
                    }
                )
                if is_wrong:
                    self.wrong.append((*key.values(), label))

    def submit(self, pipeline: Pipeline, folder: Path) -> Path:
        """Write both files and put them into the home's inbox."""
        words, labels = self.write(folder)
        return submit_batch(pipeline.home, words, labels)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both files as CSV."""
        return (
            write_csv(folder / "words.csv", WORD_COLUMNS, self.words),
            write_csv(folder / "labels.csv", LABEL_COLUMNS, self.labels),
        )


def shop_receipts(
    merchants: Sequence[str | None] = ("Alpha Mart", "Beta Cafe"),
    each: int = 4,
    images: str = "image",
) -> Receipts:
    """`each` receipts of every merchant, the last of each with its total labelled as a date.

    Receipts of different batches need different `images`, or they replace each other.
    """
    receipts = Receipts()
    for number, merchant in enumerate(merchants):
        for copy in range(each):
            receipts.add_receipt(
                f"{images}-{number}-{copy}",
                merchant,
                total=f"{10 + copy}.50",
                wrong_total="DATE" if copy == each - 1 else None,
            )
    return receipts


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def harmonize(pipeline: Pipeline) -> RunReport:
    """Run the whole pipeline without Dagster."""
    return pipeline.run(OFFLINE)


def score(pipeline: Pipeline) -> list[PartitionResult]:
    """Score all partitions, and nothing else."""
    return list(pipeline.score.run(pipeline.partitions.held(), OFFLINE))


def table(pipeline: Pipeline, name: str, *leave_out: str) -> list[dict[str, Any]]:
    """All rows of a table, in a stable order, without some columns."""
    excluded = f"EXCLUDE ({', '.join(leave_out)})" if leave_out else ""
    return pipeline.warehouse.query(f"SELECT * {excluded} FROM {name} ORDER BY ALL").to_pylist()
