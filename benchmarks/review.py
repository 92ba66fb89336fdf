"""Review with the truth as the reviewer: how many answers make labels right.

    python -m benchmarks.review ../shared/data/sroie_dev --cleanlab
    python -m benchmarks.review ../shared/data/cord --until 0.1

DATA is a folder with `words.parquet`, `labels.parquet` and `truth.parquet`, or with `judged.csv` in
its place, by which only what was judged wrong is wrong. Every status is PENDING at first. The
reviewer is simulated: it looks at the list of up to 50 labels for which the same is proposed, gives
by the truth the answer that is right for most of them, and leaves out those that it is wrong for,
which come again. Each list is one answer, and each label of a blind sample. What it says is applied
for real, and the share of wrong labels is counted in the tables. The other orders are of single
labels: by our score, by cleanlab's, and at random.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import pyarrow.parquet as pq

from benchmarks.offline_runs import OFFLINE, Data, prepared
from benchmarks.quality import cleanlab_suspicion, labels_with_lines
from harmonizer_assets.core.base.settings import ReviewSettings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    LabelKey,
    label_key,
    label_keys,
)
from harmonizer_assets.core.review.answers import Answer
from harmonizer_assets.core.review.queue import ReviewFilter

REVIEWER: Final = "the truth"
BUDGETS: Final = (
    0.0,
    0.005,
    0.0075,
    0.01,
    0.0125,
    0.015,
    0.0175,
    0.02,
    0.03,
    0.04,
    0.05,
    0.055,
    0.06,
    0.07,
    0.08,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    1.0,
)
"""Answers, as a share of all labels, after which the labels are looked at."""
GOAL: Final = 0.01


@dataclass(frozen=True)
class Truth:
    """What is right: for each wrong label the type that is, or None; and all labels."""

    right_label: Mapping[LabelKey, str | None]
    labels: Sequence[LabelKey]

    @classmethod
    def of(cls, data: Data) -> Truth:
        if not data.truth.exists():
            return cls.judged(data)
        rows = pq.read_table(data.truth)
        keys = list(label_keys(rows))
        wrong = zip(keys, rows["is_error"].to_pylist(), rows["true_label"].to_pylist(), strict=True)
        return cls({key: label for key, is_error, label in wrong if is_error}, keys)

    @classmethod
    def judged(cls, data: Data) -> Truth:
        rows = duckdb.read_csv(str(data.truth.with_name("judged.csv"))).to_arrow_table().to_pylist()
        right = {
            label_key(row): None if row["right_label"] == "none" else row["right_label"]
            for row in rows
            if row["verdict"] == "wrong"
        }
        return cls(right, list(label_keys(pq.read_table(data.labels))))

    def says(self, key: LabelKey) -> tuple[Answer, str | None]:
        if key in self.right_label:
            return Answer.WRONG, self.right_label[key]
        return Answer.RIGHT, None


def answers_by_queue(pipeline: Pipeline, truth: Truth) -> Iterator[int]:
    """Answer what the review queue asks; yield the number of labels looked at for each answer."""
    while items := pipeline.review.items(REVIEWER, limit=1):
        [item] = items
        if item["is_blind"]:
            verdict, to_label = truth.says(label_key(item))
            pipeline.review.answer(label_key(item), REVIEWER, verdict, to_label=to_label)
            yield 1
            continue
        shown = pipeline.review.listed(REVIEWER, ReviewFilter().same_proposal(item))
        said = {label_key(row): truth.says(label_key(row)) for row in shown}
        [(answer, _)] = Counter(said.values()).most_common(1)
        ticked = [key for key, one in said.items() if one == answer]
        verdict, to_label = answer
        pipeline.review.answer_listed(ticked, REVIEWER, verdict, to_label=to_label)
        yield len(shown)


def wrong_share(pipeline: Pipeline, truth: Truth) -> float:
    """Count the labels in the tables that are wrong and stand, and those that lack."""
    standing = set(
        label_keys(
            pipeline.warehouse.query(
                f"SELECT {LABEL_COLUMNS} FROM labels WHERE validation_status <> 'INVALID'"
            )
        )
    )
    wrong = sum(
        key in standing or (right is not None and key._replace(label=right) not in standing)
        for key, right in truth.right_label.items()
    )
    return wrong / len(truth.labels)


def by_queue(pipeline: Pipeline, truth: Truth, until: float) -> None:
    """Answer, apply and look, budget by budget, until a share of the labels is reached."""
    budgets = [round(share * len(truth.labels)) for share in BUDGETS]
    most = round(until * len(truth.labels))
    print(f"review queue: {wrong_share(pipeline, truth):.2%} wrong before", flush=True)
    reached: int | None = None
    began, last, looked_at = time.perf_counter(), 0, 0
    for given, n_labels in enumerate(islice(answers_by_queue(pipeline, truth), most), start=1):
        last = given
        looked_at += n_labels
        if given in budgets:
            pipeline.apply(REVIEWER, commit=True)
            share = wrong_share(pipeline, truth)
            found = len(truth.right_label) - share * len(truth.labels)
            print(
                f"  {given:>6} answers, {looked_at:>6} labels looked at: {share:.2%} wrong, "
                f"{found / given:.3f} found per answer"
            )
            reached = given if reached is None and share < GOAL else reached
    pipeline.apply(REVIEWER, commit=True)
    share = wrong_share(pipeline, truth)
    seconds = time.perf_counter() - began
    whole = "" if last == most else ", the whole queue"
    print(f"  {last:>6} answers{whole}: {share:.2%} wrong; {seconds:.0f} s", flush=True)
    if share < GOAL:
        print(f"  below {GOAL:.0%} at the latest after {reached or last} answers")


def one_by_one(name: str, order: Sequence[LabelKey], truth: Truth) -> None:
    """Show what answering about single labels in an order would find."""
    wrong = np.array([key in truth.right_label for key in order])
    left = (len(truth.right_label) - np.cumsum(wrong)) / len(truth.labels)
    below = int(np.argmax(left < GOAL)) + 1
    at = max(1, round(0.05 * len(truth.labels)))
    before = len(truth.right_label) / len(truth.labels)
    reached = f"below {GOAL:.0%} after {below} answers; " if before >= GOAL else ""
    print(
        f"{name}, one by one: {reached}{wrong[:at].sum() / at:.3f} found per answer at a "
        f"budget of 5 % ({at} answers)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cleanlab", action="store_true", help="compare with cleanlab")
    parser.add_argument("--seed", type=int, default=7, help="of the random order")
    parser.add_argument(
        "--until", type=float, default=1.0, metavar="SHARE", help="of the labels are answered"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harmonizer-review-") as name:
        folder = Path(name)
        data = Data.of(options.data).pending(folder / "pending")
        truth = Truth.of(data)
        pipeline = prepared(data, folder / "home")
        # The reviewer never errs, so nothing has to be held back.
        unbraked = ReviewSettings(brake_share=1.0)
        pipeline = Pipeline(
            pipeline.home, pipeline.settings.model_copy(update={"review": unbraked})
        )
        pipeline.harmonize(OFFLINE)
        scored = pipeline.warehouse.query(
            f"SELECT {LABEL_COLUMNS} FROM similarity_matches "
            f"ORDER BY outlier_score DESC, {LABEL_COLUMNS}"
        )
        known = {*truth.labels}
        ours = [key for key in label_keys(scored) if key in known]
        rng = np.random.default_rng(options.seed)
        by_queue(pipeline, truth, options.until)
        one_by_one("our score", ours, truth)
        if options.cleanlab:
            rows = labels_with_lines(data.words, data.labels)
            keys = list(label_keys(rows))
            suspicion = cleanlab_suspicion(rows)
            one_by_one("cleanlab", [keys[at] for at in np.argsort(-suspicion)], truth)
        shuffled = rng.permutation(len(truth.labels)).tolist()
        one_by_one("random", [truth.labels[at] for at in shuffled], truth)


if __name__ == "__main__":
    main()
