"""How many of the amounts on receipts of the world have evidence from arithmetic.

    python -m benchmarks.amounts [FOLDER...]

First the receipts that the tests read, one for each part of the world; then those of each folder
with a `words.parquet`, as a home reads them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.score.pages import read_page
from harmonizer_tests.support.world_receipts import RECEIPTS, arithmetic_evidence, laid_out


def in_file(words: Path) -> tuple[int, int, int]:
    """Count receipts, their amounts, and those with evidence."""
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(Home(Path(folder) / "home").ensure())
        submit_batch(pipeline.home, words, None)
        pipeline.ingest()
        page = pipeline.warehouse.read(
            lambda con: read_page(
                con,
                con.execute("SELECT DISTINCT image_id, receipt_id FROM words").to_arrow_table(),
                pipeline.taxonomy.names,
            )
        )
    amounts, with_evidence = arithmetic_evidence(page.receipt, page.row, page.texts)
    return int(page.receipt.max()) + 1, amounts, with_evidence


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    found = {}
    for name, rows in RECEIPTS.items():
        row, texts = laid_out(rows)
        found[name] = 1, *arithmetic_evidence(np.zeros_like(row), row, texts)
    for folder in parser.parse_args().folders:
        found[folder.name] = in_file(folder / "words.parquet")
    print("| receipts | how many | amounts | with evidence | share |")
    print("| --- | --- | --- | --- | --- |")
    for name, (receipts, amounts, with_evidence) in found.items():
        share = with_evidence / amounts
        print(f"| {name} | {receipts:,} | {amounts:,} | {with_evidence:,} | {share:.0%} |")


if __name__ == "__main__":
    main()
