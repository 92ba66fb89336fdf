"""Plots of an evaluation as PNG images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.figure import png
from harmonizer_assets.core.base.files import write_atomically
from harmonizer_assets.core.measure.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCHES: Final = (4.8, 3.6)
_LINE: Final = "#1f5fa8"
_GUIDE: Final = "#9a9a9a"


def draw(evaluation: Evaluation) -> dict[str, bytes]:
    """Draw `precision_recall`, `reliability` and `cost_recall`, each as a PNG image."""
    return {
        "precision_recall": _png(lambda axes: _precision_recall(axes, evaluation)),
        "reliability": _png(lambda axes: _reliability(axes, evaluation)),
        "cost_recall": _png(lambda axes: _cost_recall(axes, evaluation)),
    }


def write_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the plots to a folder, which is created; return the files.

    Raises:
        InputError: the folder cannot be written.
    """
    files = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in draw(evaluation).items():
            file = folder / f"{name}.png"
            write_atomically(file, image)
            files.append(file)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    return files


def _png(paint: Callable[[Axes], None]) -> bytes:
    def painted(figure: Figure) -> None:
        axes = figure.add_subplot()
        paint(axes)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.25)

    return png(_INCHES, painted)


def _precision_recall(axes: Axes, evaluation: Evaluation) -> None:
    axes.plot(evaluation.curves.recall, evaluation.curves.precision, color=_LINE)
    overall = evaluation.overall
    if overall.precision is not None and overall.recall is not None:
        axes.plot([overall.recall], [overall.precision], "o", color="#c0392b", label="as decided")
        axes.legend(loc="lower left", frameon=False)
    area = "-" if overall.auprc is None else f"{overall.auprc:.3f}"
    axes.set_title(f"Wrong labels found, by score (AUPRC {area})", fontsize=10)
    axes.set_xlabel("recall: share of the wrong labels found")
    axes.set_ylabel("precision: share of the found that is wrong")


def _reliability(axes: Axes, evaluation: Evaluation) -> None:
    known = [each for each in evaluation.reliability if each.stated is not None]
    axes.plot([0, 1], [0, 1], "--", color=_GUIDE, linewidth=1)
    most = max((each.labels for each in known), default=1)
    axes.scatter(
        [each.stated or 0.0 for each in known],
        [each.wrong or 0.0 for each in known],
        s=[20 + 180 * (each.labels / most) ** 0.5 for each in known],
        color=_LINE,
        alpha=0.8,
    )
    ece = evaluation.overall.ece
    shown = "-" if ece is None else f"{ece:.4f}"
    axes.set_title(f"Stated and true shares of wrong labels (error {shown})", fontsize=10)
    axes.set_xlabel("stated probability of being wrong")
    axes.set_ylabel("share that is wrong")


def _cost_recall(axes: Axes, evaluation: Evaluation) -> None:
    axes.plot(evaluation.curves.asked_share, evaluation.curves.asked_recall, color=_LINE)
    asked = evaluation.overall.asked_share
    if asked is not None:
        axes.axvline(asked, color=_GUIDE, linestyle="--", linewidth=1, label=f"asked: {asked:.1%}")
        axes.legend(loc="lower right", frameon=False)
    axes.set_title("What asking buys, the most doubtful labels first", fontsize=10)
    axes.set_xlabel("share of the labels asked about (cost)")
    axes.set_ylabel("share of the wrong labels found")
