"""Import 1,000,000 words in three formats, each in a process of its own; and CORD, compared.

    python -m benchmarks.imports
    python -m benchmarks.imports --words 100000
    python -m benchmarks.imports --again
    python -m benchmarks.imports --cord ../shared/data/cord

The first says for each format how long an import into a folder takes and how much memory at most.
With `--again`, the files are imported into a home, taken up, and imported once more, which has to
find what has changed since.
With `--cord`, the tables of the data set are written as CORD's own JSON and imported from it; every
score of the imported words must be that of the tables.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.offline_runs import OFFLINE
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.importers.importing import (
    ImportReport,
    import_to_folder,
    import_to_home,
)
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LABEL_KEY

WORDS_PER_RECEIPT: Final = 100
TYPES: Final = ("DATE", "TIME", "TAX", "GRAND_TOTAL")
SIZE: Final = 1024
"""Pixels of a side of images that are made up."""
_MOST_PIXELS: Final = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--cord", type=Path, help="folder with CORD as tables")
    parser.add_argument(
        "--again", action="store_true", help="import into a home that has it all already"
    )
    parser.add_argument("--import", dest="imported", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--import-to-home", dest="updated", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--ingest", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.imported:
        measure(*options.imported)
    elif options.updated:
        measure_home(*options.updated)
    elif options.ingest:
        Pipeline(Home(options.ingest)).ingest()
    elif options.cord:
        compare(options.cord)
    else:
        for name in WRITERS:
            in_its_own_process(name, options.words, again=options.again)


# Time and memory


def receipts(words: int) -> Iterator[tuple[str, list[tuple[str, list[int], str | None]]]]:
    """Receipts with words, boxes in pixels, and labels on every fourth word."""
    for number in range(words // WORDS_PER_RECEIPT):
        yield (
            f"receipt-{number}",
            [
                (
                    f"word{(number * 31 + place) % 5000}",
                    [10 * (place % 10), 8 * place, 10 * (place % 10) + 9, 8 * place + 7],
                    TYPES[place // 4 % len(TYPES)] if place % 4 == 0 else None,
                )
                for place in range(WORDS_PER_RECEIPT)
            ],
        )


def hugging_face(path: Path, words: int) -> Path:
    with (path / "train.jsonl").open("w") as file:
        for name, found in receipts(words):
            record = {
                "id": name,
                "tokens": [text for text, _, _ in found],
                "bboxes": [box for _, box, _ in found],
                "ner_tags": [label or "O" for _, _, label in found],
            }
            file.write(json.dumps(record) + "\n")
    return path / "train.jsonl"


def label_studio(path: Path, words: int) -> Path:
    with (path / "export.json").open("w") as file:
        file.write("[")
        for number, (name, found) in enumerate(receipts(words)):
            results = [part for place, word in enumerate(found) for part in _region(place, *word)]
            annotation = {"completed_by": 1, "result": results}
            task = {"id": number, "data": {"image": f"{name}.png"}, "annotations": [annotation]}
            file.write((",\n" if number else "") + json.dumps(task))
        file.write("]")
    return path / "export.json"


def _region(place: int, text: str, box: list[int], label: str | None) -> Iterator[dict[str, Any]]:
    left, top, right, bottom = (side / 10 for side in box)
    value = {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}
    common = {"id": f"r{place}", "original_width": SIZE, "original_height": SIZE}
    yield {**common, "type": "textarea", "value": {**value, "text": [text]}}
    if label:
        yield {**common, "type": "labels", "value": {**value, "labels": [label]}}


def conll(path: Path, words: int) -> Path:
    with (path / "train.conll").open("w") as file:
        for _, found in receipts(words):
            file.write("-DOCSTART- O\n\n")
            for text, _, label in found:
                file.write(f"{text}\t{f'B-{label}' if label else 'O'}\n")
            file.write("\n")
    return path / "train.conll"


WRITERS: Final[dict[str, Callable[[Path, int], Path]]] = {
    "hugging-face": hugging_face,
    "label-studio": label_studio,
    "conll": conll,
}


def in_its_own_process(name: str, words: int, *, again: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="harmonizer-imports-") as folder:
        path = WRITERS[name](Path(folder), words)
        print(f"{name}: {words:,} words, a file of {path.stat().st_size / 1e6:,.0f} MB", flush=True)
        command = [sys.executable, "-m", "benchmarks.imports"]
        if not again:
            subprocess.run([*command, "--import", name, str(path), f"{folder}/out"], check=True)
            return
        for _ in range(2):
            to_home = ["--import-to-home", name, str(path), f"{folder}/home"]
            subprocess.run([*command, *to_home], check=True)
            subprocess.run([*command, "--ingest", f"{folder}/home"], check=True)


def measure(name: str, path: str, out: str) -> None:
    began = time.perf_counter()
    tell(import_to_folder(name, [Path(path)], Path(out)), time.perf_counter() - began)


def measure_home(name: str, path: str, home: str) -> None:
    began = time.perf_counter()
    tell(import_to_home(name, [Path(path)], Home(Path(home)).ensure()), time.perf_counter() - began)


def tell(report: ImportReport, seconds: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    written = report.written
    print(
        f"  {written.words:,} words and {written.labels:,} labels in {seconds:.1f} s "
        f"({written.words / seconds:,.0f} words a second), {peak:,.0f} MB at most"
    )


# CORD


def compare(data: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="harmonizer-imports-") as name:
        folder = Path(name)
        source = as_cord(data, folder)
        report = import_to_folder("cord", [source], folder / "out", label_map=folder / "map.yaml")
        written = report.written
        print(
            f"imported: {written.words:,} words, {written.labels:,} labels; {written.clipped} "
            "boxes reach out of their image and are clipped"
        )
        labels, out = data / "labels.parquet", report.folder
        tables = scored(folder / "tables", data / "words.parquet", labels, data)
        imported = scored(folder / "imported", out / "words.parquet", out / "labels.parquet", data)
    for what, scores in (("tables", tables), ("imported", imported)):
        print(f"{what}: average precision {judged(scores, data):.3f}")
    differs = [key for key, score in tables.items() if imported.get(key) != score]
    print(f"{len(differs):,} of {len(tables):,} scores differ between tables and import")
    if differs or len(tables) != len(imported):
        raise SystemExit(1)


def judged(scores: dict[tuple[Any, ...], float], data: Path) -> float:
    """Average precision of the labels that were judged wrong; see `benchmarks.judged`."""
    # Not at the top: the processes whose memory is measured do not need it.
    from sklearn.metrics import average_precision_score

    rows = duckdb.read_csv(str(data / "judged.csv")).to_arrow_table().to_pylist()
    verdicts = {tuple(row[name] for name in LABEL_KEY): row["verdict"] for row in rows}
    certain = [key for key in scores if verdicts.get(key) != "doubtful"]
    wrong = [verdicts.get(key) == "wrong" for key in certain]
    return float(average_precision_score(wrong, [scores[key] for key in certain]))


def as_cord(data: Path, folder: Path) -> Path:
    """Write tables as the JSON of CORD, and a mapping of its names to those of the tables."""
    words = pq.read_table(data / "words.parquet").to_pylist()
    labels = pq.read_table(data / "labels.parquet").to_pylist()
    names = {_key(row): row["label"] for row in labels}
    by_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in words:
        by_image[row["image_id"]].append(row)
    (folder / "cord").mkdir()
    for image, rows in by_image.items():
        rows.sort(key=_key)
        size = pixels(rows, "x", "width"), pixels(rows, "y", "height")
        phrases = [_phrase(row, names[_key(row)], *size) for row in rows]
        meta = {"image_size": {"width": size[0], "height": size[1]}}
        content = {"valid_line": phrases, "meta": meta}
        (folder / "cord" / f"{image}.json").write_text(json.dumps(content))
    mapped = {_own(name): name for name in set(names.values())}
    (folder / "map.yaml").write_text(json.dumps({"labels": mapped}))
    return folder / "cord"


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("image_id", "receipt_id", "line_id", "word_id"))


def _own(name: str) -> str:
    plain = name.removesuffix("_KEY").lower()
    return f"{plain}.key" if name.endswith("_KEY") else plain


def pixels(rows: list[dict[str, Any]], start: str, size: str) -> int:
    """Find the side of an image: the fewest pixels in which all of its boxes are whole."""
    ends = [end for row in rows for end in (row[start], row[start] + row[size])]
    for side in range(1, _MOST_PIXELS):
        if all(abs(end * side - round(end * side)) < 1e-6 for end in ends):
            return side
    raise SystemExit(f"{rows[0]['image_id']}: its boxes are not of whole pixels")


def _phrase(row: dict[str, Any], name: str, across: int, down: int) -> dict[str, Any]:
    left, right = (round(end * across) for end in (row["x"], row["x"] + row["width"]))
    top, bottom = (round(end * down) for end in (row["y"], row["y"] + row["height"]))
    corners = [(right, top), (right, bottom), (left, bottom), (left, top)]
    quad = {
        f"{axis}{n}": corner["xy".index(axis)]
        for n, corner in enumerate(corners, 1)
        for axis in "xy"
    }
    one = {
        "quad": quad,
        "is_key": int(name.endswith("_KEY")),
        "row_id": row["line_id"],
        "text": row["text"],
    }
    return {"words": [one], "category": _own(name).removesuffix(".key")}


def scored(folder: Path, words: Path, labels: Path, data: Path) -> dict[tuple[Any, ...], float]:
    """Return the outlier score of each label of a home made of two files."""
    home = Home(folder).ensure()
    shutil.copy(data / "taxonomy.yaml", home.root / "taxonomy.yaml")
    pipeline = Pipeline(home, Settings())
    submit_batch(home, words, labels)
    pipeline.run(OFFLINE)
    rows: pa.Table = pipeline.warehouse.query(
        f"SELECT {LABEL_COLUMNS}, round(outlier_score, 9) FROM similarity_matches"
    )
    return {
        tuple(row[:-1]): row[-1] for row in map(list, zip(*rows.to_pydict().values(), strict=True))
    }


if __name__ == "__main__":
    main()
