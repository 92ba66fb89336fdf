"""Measure what is found on labels with known errors, beside cleanlab, and what each part is worth.

    python -m benchmarks.quality ../shared/data/sroie_dev --cleanlab --ablation --noise
    python -m benchmarks.quality ../shared/data/cord --noise row phrase --rate 0.05 --statuses half

DATA is a folder with `words.parquet`, `labels.parquet` and `truth.parquet`, and `taxonomy.yaml` if
its label types are not the default ones. Everything runs in this process, one after the other, so
that times can be compared as ratios. cleanlab is optional: `pip install -e '.[bench]'`. With the
names of kinds, `--noise` measures those alone, and needs no truth.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import average_precision_score

from benchmarks.asking import Choice, asking_curve, show_step
from benchmarks.noise import CHOICES, VALIDATED, corrupted, measure_noise
from benchmarks.offline_runs import Data, prepared, run, show
from harmonizer_assets.core.base.settings import ScorerName
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LABEL_KEY
from harmonizer_assets.core.score.classifier import EVIDENCE_GROUPS
from harmonizer_assets.core.score.fitting import (
    fit_model,
    locate_labels,
    read_sample,
)
from harmonizer_assets.core.score.scoring import score_with_model


def cleanlab_suspicion(rows: pa.Table) -> npt.NDArray[np.float64]:
    """cleanlab's ranking of n labels with a model as good as its features allow: shape (n,).

    Logistic regression on character n-grams of text and line and on the position, out of fold.

    Args:
        rows: as `labels_with_lines` reads them.
    """
    from cleanlab.rank import get_label_quality_scores
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.preprocessing import LabelEncoder

    text = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), min_df=2)
    line = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), min_df=2)
    places = np.column_stack([rows[name].to_numpy() for name in ("x", "y", "width", "height")])
    features = sparse.hstack(
        [
            text.fit_transform(rows["text"].to_pylist()),
            line.fit_transform(rows["line"].to_pylist()),
            sparse.csr_matrix(np.nan_to_num(places)),
        ],
        format="csr",
    )
    given = LabelEncoder().fit_transform(rows["label"].to_pylist())
    probabilities = cross_val_predict(
        LogisticRegression(C=10, max_iter=1000), features, given, cv=5, method="predict_proba"
    )
    quality = get_label_quality_scores(given, probabilities, method="normalized_margin")
    return -np.asarray(quality, dtype=np.float64)


def cleanlab_ranking(data: Data) -> dict[str, float]:
    """cleanlab's ranking of labels with known errors; seconds and AUPRC."""
    con = duckdb.connect()
    con.register("rows", labels_with_lines(data.words, data.labels))
    con.register("truth", pq.read_table(data.truth))
    rows = con.execute(
        f"SELECT * FROM rows JOIN truth USING ({LABEL_COLUMNS}) ORDER BY {LABEL_COLUMNS}"
    ).to_arrow_table()
    began = time.perf_counter()
    suspicion = cleanlab_suspicion(rows)
    seconds = time.perf_counter() - began
    wrong = rows["is_error"].to_numpy(zero_copy_only=False)
    validated = np.array(rows["validation_status"].to_pylist()) == "VALID"
    return {
        "seconds": seconds,
        "auprc": float(average_precision_score(wrong, suspicion)),
        "auprc_valid_last": float(
            average_precision_score(wrong, np.where(validated, -10.0, suspicion))
        ),
    }


def labels_with_lines(words: Path, labels: Path) -> pa.Table:
    """Read labels with the text, line and position of their words."""
    con = duckdb.connect()
    con.register("words", pq.read_table(words))
    con.register("labels", pq.read_table(labels))
    return con.execute(
        f"""
        WITH lines AS (
            SELECT image_id, receipt_id, line_id, string_agg(text, ' ' ORDER BY word_id) AS line
            FROM words GROUP BY ALL
        )
        SELECT {LABEL_COLUMNS}, validation_status, text, line, x, y, width, height
        FROM labels
        JOIN words USING (image_id, receipt_id, line_id, word_id)
        JOIN lines USING (image_id, receipt_id, line_id)
        ORDER BY {LABEL_COLUMNS}
        """
    ).to_arrow_table()


def ablation(data: Data, home: Path) -> dict[str, float]:
    """AUPRC of the score with all groups of evidence, and without each of them."""
    pipeline = prepared(data, home)
    label_types = pipeline.taxonomy.names
    labels, page = pipeline.warehouse.read(lambda con: read_sample(con, label_types))
    truth = {
        tuple(row[name] for name in LABEL_KEY): row["is_error"]
        for row in pq.read_table(data.truth, columns=[*LABEL_KEY, "is_error"]).to_pylist()
    }
    similar_words = pipeline.score.similar_words()
    gathered, known = similar_words.votes(labels)
    scored = labels.filter(pa.array(known))
    wrong = [
        truth[key] for key in zip(*(scored[name].to_pylist() for name in LABEL_KEY), strict=True)
    ]
    found = {}
    for group in (None, *EVIDENCE_GROUPS):
        left_out = () if group is None else (group,)
        model = fit_model(similar_words, labels, page, pipeline.settings.triage, left_out)
        votes: npt.NDArray[np.float64] = gathered.type_probability
        if group == "similar_words":
            votes = np.ones_like(votes)
        located = locate_labels(scored, page, label_types, votes)
        scores = score_with_model(model, located, gathered, pipeline.settings.triage)
        found[group or "all"] = float(average_precision_score(wrong, scores.outlier_score))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="folder with words, labels and truth.parquet")
    parser.add_argument("--cleanlab", action="store_true", help="compare with cleanlab")
    parser.add_argument("--ablation", action="store_true", help="leave out each group of evidence")
    parser.add_argument("--scorers", action="store_true", help="also the other scorers")
    parser.add_argument("--noise", nargs="*", choices=CHOICES, help="kinds of errors [all]")
    parser.add_argument("--rate", nargs="+", type=float, default=[0.08], help="of the noise [0.08]")
    parser.add_argument("--statuses", nargs="+", choices=VALIDATED, default=list(VALIDATED))
    parser.add_argument(
        "--asking",
        nargs="?",
        const="row",
        choices=CHOICES,
        help="ask a person [about row]",
    )
    parser.add_argument("--seed", type=int, default=7, help="of the injected noise")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harmonizer-quality-") as folder:
        figures = measure(options, Path(folder))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    data = Data.of(options.data)
    alone = options.noise or options.asking
    figures = {} if alone else measure_given(data, options, folder)
    if options.asking:
        figures["asking"] = list(measure_asking(data, options, folder))
    if options.noise is not None:
        kinds = options.noise or CHOICES
        noisy = measure_noise(data, folder, kinds, options.rate, options.statuses, options.seed)
        figures["noise"] = list(noisy)
    return figures


def measure_asking(
    data: Data, options: argparse.Namespace, folder: Path
) -> Iterator[dict[str, Any]]:
    """Measure what a person's answers teach, beside a random choice of as many."""
    made = folder / "asking"
    noisy = corrupted(data, options.asking, options.rate[0], "pending", options.seed, made)
    for choice in get_args(Choice):
        for row in asking_curve(noisy, choice, options.seed, made / choice):
            show_step(row)
            yield row


def measure_given(data: Data, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure the errors that the data holds."""
    pending = data.pending(folder / "pending")
    given = run(data, folder / "given")
    unvalidated = run(pending, folder / "unvalidated")
    figures: dict[str, Any] = {
        "runs": [show("statuses as given", given), show("every status PENDING", unvalidated)]
    }
    print(f"guarantee: {given.guarantee}")
    for name, quality in given.evaluation.per_merchant_size.items():
        print(
            f"  merchants with {name:<11} {quality.labels:>6} labels, recall {quality.recall:.3f}"
        )
    if options.scorers:
        scorers: tuple[ScorerName, ...] = ("evidence", "count_rule")
        for scorer in scorers:
            figures["runs"].append(show(scorer, run(data, folder / scorer, scorer)))
    if options.cleanlab:
        ranking = cleanlab_ranking(data)
        figures["cleanlab"] = ranking
        print(
            f"cleanlab: AUPRC {ranking['auprc']:.4f}, with VALID ranked last "
            f"{ranking['auprc_valid_last']:.4f}, {ranking['seconds']:.1f} s; ours took "
            f"{given.seconds / ranking['seconds']:.2f} of that with statuses, "
            f"{unvalidated.seconds / ranking['seconds']:.2f} without"
        )
    if options.ablation:
        for name, each in (("statuses", data), ("pending", pending)):
            figures[f"ablation_{name}"] = ablation(each, folder / f"ablation-{name}")
            shown = ", ".join(f"{k} {v:.4f}" for k, v in figures[f"ablation_{name}"].items())
            print(f"AUPRC without each group ({name}): {shown}", flush=True)
    return figures


if __name__ == "__main__":
    main()
