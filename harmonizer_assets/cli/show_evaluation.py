"""Show an evaluation: quality per label type and size of merchant, ranking, calibration, triage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import starmap
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from harmonizer_assets.cli.show import Column, FirstThatFits, facts, listing, show

if TYPE_CHECKING:
    from harmonizer_assets.core.measure.evaluation import Evaluation
    from harmonizer_assets.core.measure.metrics import Quality, ReliabilityBin

_HEADS: Final = {
    "labels": "labels",
    "errors": "errors",
    "flagged": "flagged",
    "found": "found",
    "unresolved": "unresolved",
    "precision": "precision",
    "recall": "recall",
    "f1": "f1",
    "auprc": "auprc",
    "suggestion_accuracy": "suggestion",
}
"""Figures of a `Quality` that are shown, with their heads."""
_SHORT_HEADS: Final = {
    **_HEADS,
    "unresolved": "open",
    "precision": "prec",
    "suggestion_accuracy": "sugg",
}
"""The same for 80 columns."""
_FEWEST: Final = {name: _SHORT_HEADS[name] for name in ("errors", "found", "precision", "recall")}
"""The same for narrower terminals."""


def show_evaluation(evaluation: Evaluation, guarantee: str | None = None) -> None:
    """Show an evaluation, and the guarantee on labels that no judge is asked about."""
    tables = [
        _qualities(evaluation, _HEADS, gap=2),
        _qualities(evaluation, _SHORT_HEADS, gap=1),
        _qualities(evaluation, _FEWEST, gap=1),
    ]
    guaranteed = [] if guarantee is None else [("guarantee", guarantee)]
    show(
        FirstThatFits(tables),
        Text(),
        facts([*_findings(evaluation), *guaranteed]),
        Text("\nStated probability of being wrong, and how many are"),
        _reliability(evaluation.reliability),
    )


def _qualities(evaluation: Evaluation, heads: Mapping[str, str], gap: int) -> Table:
    def row(name: str, quality: Quality) -> list[str]:
        return [name, *(_figure(getattr(quality, figure)) for figure in heads)]

    columns = [Column("label type"), *(Column(head, is_number=True) for head in heads.values())]
    types = sorted(evaluation.per_label_type.items())
    sizes = [*evaluation.per_merchant_size.items(), ("all", evaluation.overall)]
    rows = [*starmap(row, types), ["merchants with"], *starmap(row, sizes)]
    return listing(columns, rows, gap=gap)


def _findings(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    all_ = evaluation.overall
    yield (
        "ranking",
        f"AUROC {_figure(all_.auroc)}, precision at {all_.errors:,} "
        f"{_figure(all_.precision_at_errors)}, at 100 {_figure(all_.precision_at_100)}, best F1 "
        f"{_figure(all_.best_f1)}",
    )
    yield (
        "probabilities",
        f"calibration error {_figure(all_.ece, 4)}, Brier score {_figure(all_.brier, 4)} (labels "
        "that nobody has validated)",
    )
    yield (
        "triage",
        f"{all_.asked:,} labels asked about ({_percent(all_.asked_share)}); of the accepted "
        f"{_percent(all_.accepted_wrong_share)} are wrong (95 % sure: at most "
        f"{_percent(all_.accepted_wrong_bound)}), of the rejected "
        f"{_percent(all_.rejected_right_share)} are right (at most "
        f"{_percent(all_.rejected_right_bound)})",
    )
    if (missing := evaluation.missing) is not None:
        yield (
            "missing labels",
            f"{missing.found:,} of {missing.missing:,} found among {missing.listed:,} listed "
            f"(precision {_figure(missing.precision)}, recall {_figure(missing.recall)}, average "
            f"precision {_figure(missing.average_precision)}), right type "
            f"{_figure(missing.right_type)}",
        )
    yield from ((name, text) for name, count, text in _left_out(evaluation) if count)


def _left_out(evaluation: Evaluation) -> Iterator[tuple[str, int, str]]:
    """Say what the figures do not count, and how much of it there is."""
    count = evaluation.unmatched
    yield "unmatched", count, f"{count:,} labels of the truth file are not in the home"
    count = evaluation.without_truth
    yield "without truth", count, f"{count:,} labels of the home are not in the truth file"
    count = evaluation.doubled
    yield "doubled", count, f"{count:,} rows of the truth file repeat others, and count once"
    count = evaluation.contradicting
    yield "contradicting", count, f"{count:,} rows of the truth file contradict others: none counts"


def _reliability(bins: Sequence[ReliabilityBin]) -> Table:
    heads = ("labels", "stated", "wrong")
    return listing(
        [Column("probability"), *(Column(head, is_number=True) for head in heads)],
        [
            (
                f"{each.low:.1f} to {each.high:.1f}",
                f"{each.labels:,}",
                _figure(each.stated),
                _figure(each.wrong),
            )
            for each in bins
            if each.labels
        ],
    )


def _figure(value: int | float | None, decimals: int = 3) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{decimals}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
