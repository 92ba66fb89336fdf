"""Run as a process of its own: how much memory a file takes whose rows are large."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline

KEY = {
    "image_id": "i",
    "receipt_id": 1,
    "line_id": 1,
    "label": "DATE",
    "validation_status": "VALID",
    "merchant_name": "Alpha Mart",
}


def main(folder: Path, lines: int, size: int) -> None:
    """Ingest a small file and a large one; print rows quarantined, and the growth in MB."""
    pipeline = Pipeline(Home(folder / "home").ensure())
    peaks, quarantined = [], 0
    for name, count, note in (("small", lines, 10), ("large", lines, size)):
        batch = pipeline.home.inbox / name
        batch.mkdir()
        with (batch / "labels.ndjson").open("w") as file:
            file.write(json.dumps({**KEY, "word_id": lines}) + "\n")
            for number in range(count):
                file.write(json.dumps({**KEY, "word_id": number, "note": "x" * note}) + "\n")
        [report] = pipeline.ingest().batches
        quarantined = report.quarantined
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024)
    print(json.dumps({"quarantined": quarantined, "grown_mb": peaks[1] - peaks[0]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
