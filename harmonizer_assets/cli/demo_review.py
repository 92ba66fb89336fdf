"""The end of the demo: review three findings, apply, find again, undo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from harmonizer_assets.core.pipeline import Pipeline

_REVIEWER: Final = "the known errors"
_ANSWERS: Final = 3


def show_review(pipeline: Pipeline, truth: Path, run_again: Callable[[], object]) -> None:
    """Go once round: what was found is reviewed, applied, found again, and undone.

    Args:
        pipeline: of a home whose labels have been harmonized.
        truth: the known errors, which play the reviewer.
        run_again: brings the home up to date.
    """
    from harmonizer_assets.core.apply.undo import Selection, undo

    _answer(pipeline, truth)
    before = pipeline.tables.counts()
    applied = pipeline.apply(_REVIEWER, commit=True)
    run_again()
    after = pipeline.tables.counts()
    click.echo(
        f"apply --commit: {len(applied.corrections)} labels corrected; the next run finds "
        f"{after.outliers:,} outliers instead of {before.outliers:,}, and {after.rejected:,} "
        "labels are rejected."
    )
    selection = Selection(operation=applied.operation_id)
    undone = undo(pipeline.warehouse, selection, actor=_REVIEWER, commit=True)
    run_again()
    click.echo(
        f"undo --commit: {len(undone.corrections)} labels are again exactly what they were, and "
        f"{pipeline.tables.counts().outliers:,} outliers are found."
    )


def _answer(pipeline: Pipeline, truth: Path) -> None:
    from harmonizer_assets.cli.show import Column, listing, show
    from harmonizer_assets.core.measure.truth import read_truth
    from harmonizer_assets.core.records.label import label_key
    from harmonizer_assets.core.review.answers import Answer
    from harmonizer_assets.core.review.queue import ReviewFilter

    rows = read_truth(truth).rows.to_pylist()
    right = {label_key(row): row["true_label"] for row in rows if row["is_error"]}
    cells = []
    for item in pipeline.review.items(_REVIEWER, ReviewFilter(action="move"), limit=_ANSWERS):
        key = label_key(item)
        verdict = Answer.WRONG if key in right else Answer.RIGHT
        pipeline.review.answer(key, _REVIEWER, verdict, to_label=right.get(key))
        said = f"no, {right[key] or 'no label'}" if key in right else "it is right"
        cells.append((item["word_text"], item["label"], item["to_label"], said))
    heads = (Column("word"), Column("label"), Column("proposed"), Column("the reviewer says"))
    show(listing(heads, cells))
