"""Forty hand-made cases, answered by a real model through the product's own code.

Any OpenAI-compatible endpoint that keeps to a strict JSON schema will do; a small local one is
enough to see that the wire holds, and too weak to say anything about quality:

    OPENAI_BASE_URL=http://127.0.0.1:8077/v1 OPENAI_API_KEY=none HARMONIZER_MODEL=local \\
        python -m benchmarks.local_model

The environment of a local model is its own, not this project's; the README says which one was used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings, SimilaritySettings
from harmonizer_assets.core.harmonize import harmonize_all_labels
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline

CASES: Final = Path(__file__).with_name("local_model_cases.json")
WORD_WIDTH: Final = 0.1


def ingest_cases(home: Home, cases: list[dict[str, Any]]) -> None:
    """Each case is a row of a receipt of its own; its VALID examples are on other receipts."""
    words: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []

    def add(image: str, row: list[str], labelled: int, case: dict[str, Any], status: str) -> None:
        for number, text in enumerate(row):
            key = {"image_id": image, "receipt_id": 1, "line_id": 1, "word_id": number + 1}
            box = {"x": WORD_WIDTH * number, "y": 0.5, "width": 0.08, "height": 0.02}
            words.append({**key, "text": text, **box})
            if number == labelled:
                label = {"label": case["label_type"], "validation_status": status}
                labels.append({**key, **label, "merchant_name": case["merchant"]})

    for number, case in enumerate(cases):
        left, right = case["left"].split(), case["right"].split()
        row = [*left, case["text"], *right]
        add(f"case-{number}", row, len(left), case, "PENDING")
        for n, example in enumerate(case["valid_examples"]):
            add(f"case-{number}-example-{n}", [example], 0, case, "VALID")
    folder = home.scratch / "cases"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(words), folder / "words.parquet")
    pq.write_table(pa.Table.from_pylist(labels), folder / "labels.parquet")
    submit_batch(home, folder / "words.parquet", folder / "labels.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--timeout", type=float, default=600.0)
    parser.add_argument("--batch-size", type=int, default=4)
    options = parser.parse_args()
    cases = json.loads(CASES.read_text(encoding="utf-8"))
    settings = Settings(
        # VALID labels are not asked about, every other label is.
        similarity=SimilaritySettings(valid_below=0.02, outlier_above=1.0)
    ).with_judge(
        max_requests_in_flight=1,
        llm_batch_size=options.batch_size,
        timeout_seconds=options.timeout,
        outage_patience_seconds=options.timeout,
    )
    with tempfile.TemporaryDirectory(prefix="harmonizer-local-") as folder:
        home = Home(Path(folder) / "home").ensure()
        ingest_cases(home, cases)
        pipeline = Pipeline(home, settings)
        pipeline.ingest()
        pipeline.index()
        began = time.monotonic()
        report = asyncio.run(harmonize_all_labels(home, settings=settings))
        seconds = time.monotonic() - began
        rows = {
            row["image_id"]: row
            for row in pipeline.warehouse.query("FROM label_decisions").to_pylist()
        }
        letters = pipeline.warehouse.query("FROM dead_letters").to_pylist()
    outcomes: Counter[str] = Counter()
    suggested = 0
    for number, case in enumerate(cases):
        row = rows[f"case-{number}"]
        found = {True: "outlier", False: "ok", None: "unresolved"}[row["is_outlier"]]
        expected = "outlier" if case["is_outlier"] else "ok"
        outcomes[f"{expected} called {found}"] += 1
        suggested += bool(row["is_outlier"] and row["suggested_label"] == case["true_label"])
        print(
            f"{'+' if found == expected else '-'} {case['text']!r:28} {case['label_type']:15} "
            f"{expected:8} -> {found:10} by {row['decided_by']:10} {row['suggested_label'] or ''}"
        )
    print(f"\n{dict(outcomes)}, right type suggested {suggested}")
    print(
        f"{report.totals.words_asked} words asked in {report.totals.calls} calls, "
        f"{report.totals.retries} repeated, {len(letters)} dead letters, "
        f"{report.totals.prompt_tokens} tokens in, {report.totals.completion_tokens} out, "
        f"{seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
