"""Measure what is found among labels as people gave them, of which some were judged by eye.

    python -m benchmarks.judged ../shared/data/cord --cleanlab

DATA is a folder with `words.parquet`, `labels.parquet`, `taxonomy.yaml` and `judged.csv`: the key
of a label, `verdict` (`wrong`, `right` or `doubtful`) and `right_label`. Average precision counts
`wrong` as found and leaves `doubtful` out; labels that nobody has judged count as right, so that a
ranking that finds new errors looks worse than it is.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.metrics import average_precision_score

from benchmarks.offline_runs import OFFLINE
from benchmarks.quality import cleanlab_suspicion, labels_with_lines
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import LABEL_COLUMNS

_FOUND = f"""
SELECT s.outlier_score, s.no_label, s.competing_label, d.is_outlier, j.verdict, j.right_label
FROM similarity_matches s
JOIN label_decisions d USING ({LABEL_COLUMNS})
LEFT JOIN judged j USING ({LABEL_COLUMNS})
"""


def harmonized(data: Path, folder: Path) -> Pipeline:
    """A home with the data, every label scored and decided without a language model."""
    home = Home(folder).ensure()
    shutil.copy(data / "taxonomy.yaml", home.root / "taxonomy.yaml")
    pipeline = Pipeline(home, Settings())
    submit_batch(home, data / "words.parquet", data / "labels.parquet")
    pipeline.run(OFFLINE)
    return pipeline


def show(name: str, verdict: npt.NDArray[np.object_], suspicion: npt.NDArray[np.float64]) -> None:
    """Print average precision, and what the most suspicious labels are."""
    certain = verdict != "doubtful"
    wrong, ranked = verdict[certain] == "wrong", suspicion[certain]
    order = np.argsort(-ranked, kind="stable")
    found = ", ".join(f"{int(wrong[order[:top]].sum())} among the first {top}" for top in (50, 100))
    precision = average_precision_score(wrong, ranked)
    print(f"{name}: average precision {precision:.3f}; of {int(wrong.sum())} wrong ones {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cleanlab", action="store_true", help="compare with cleanlab")
    options = parser.parse_args()
    judged = pa.table(duckdb.read_csv(str(options.data / "judged.csv")).to_arrow_table())
    with tempfile.TemporaryDirectory(prefix="harmonizer-judged-") as folder:
        began = time.perf_counter()
        pipeline = harmonized(options.data, Path(folder))
        print(f"{time.perf_counter() - began:.0f} s; {pipeline.score.guarantee()}")

        def read(con: duckdb.DuckDBPyConnection) -> pa.Table:
            con.register("judged", judged)
            return con.execute(_FOUND).to_arrow_table()

        rows = pipeline.warehouse.read(read)
    verdict = np.array([found or "" for found in rows["verdict"].to_pylist()], dtype=object)
    show("ours", verdict, rows["outlier_score"].to_numpy())
    flagged = np.array([found is True for found in rows["is_outlier"].to_pylist()])
    suggested = np.where(rows["no_label"].to_numpy(), "none", rows["competing_label"].to_numpy())
    right = suggested == np.array(rows["right_label"].to_pylist(), dtype=object)
    wrong = verdict == "wrong"
    print(
        f"flagged {flagged.sum()}: {(flagged & wrong).sum()} wrong, "
        f"{(flagged & (verdict == 'right')).sum()} right, "
        f"{(flagged & (verdict == 'doubtful')).sum()} doubtful, "
        f"{(flagged & (verdict == '')).sum()} not judged; suggestion right for "
        f"{(flagged & wrong & right).sum()} of those, for {(wrong & right).sum()} of all wrong ones"
    )
    if options.cleanlab:
        labels = labels_with_lines(options.data / "words.parquet", options.data / "labels.parquet")
        suspicion = cleanlab_suspicion(labels)
        con = duckdb.connect()
        con.register("ranked", labels.append_column("suspicion", pa.array(suspicion)))
        con.register("judged", judged)
        ranked = con.execute(
            f"SELECT suspicion, verdict FROM ranked LEFT JOIN judged USING ({LABEL_COLUMNS})"
        ).to_arrow_table()
        found = np.array([each or "" for each in ranked["verdict"].to_pylist()], dtype=object)
        show("cleanlab", found, ranked["suspicion"].to_numpy())


if __name__ == "__main__":
    main()
