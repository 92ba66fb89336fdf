"""Quality: how well wrong labels are found, and how well probabilities are calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.score.thresholds import upper_bound

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CONFIDENCE: Final = 0.95
"""Confidence of the bounds on error rates."""
BINS: Final = 10
CURVE_POINTS: Final = 200
_AT: Final = 100


@dataclass(frozen=True)
class Decisions:
    """Decisions on n labels beside the truth.

    Attributes:
        wrong: shape (n,), whether the label is wrong.
        score: shape (n,), outlier score.
        flagged: shape (n,), whether it was decided to be an outlier.
        unresolved: shape (n,), whether it was left undecided.
        accepted, rejected: shape (n,), whether its score decided it without a question.
        asked: shape (n,), whether a model would be asked; of those that no score decides, only some
            are where there is no guarantee.
        validated: shape (n,), whether its status is VALID.
        true_label, suggested: shape (n,), names of label types, or None.
    """

    wrong: Mask
    score: Floats
    flagged: Mask
    unresolved: Mask
    accepted: Mask
    rejected: Mask
    asked: Mask
    validated: Mask
    true_label: npt.NDArray[np.object_]
    suggested: npt.NDArray[np.object_]

    def only(self, chosen: Mask) -> Decisions:
        """Select the decisions of some labels."""
        return Decisions(**{part.name: getattr(self, part.name)[chosen] for part in fields(self)})


@dataclass(frozen=True)
class Quality:
    """How well errors were found among some labels. Rates of nothing are None.

    Attributes:
        labels: labels with known truth.
        errors: how many of them are wrong.
        flagged: how many were decided to be outliers.
        found: how many wrong ones were.
        unresolved: labels left undecided; they count as not flagged.
        precision: found / flagged.
        recall: found / errors.
        f1: harmonic mean of the two.
        auprc: area under the precision-recall curve of `outlier_score`, as average precision.
        auroc: area under the receiver operating characteristic.
        precision_at_errors: precision among as many of the highest scores as there are errors.
        precision_at_100: among the 100 highest; None with fewer labels.
        best_f1: F1 at the best threshold on the score, chosen with the truth.
        ece: expected calibration error of the score as P(wrong), over ten bins of equal width, on
            labels that are not validated (Naeini et al. 2015).
        brier: mean squared difference of score and truth, on the same labels (Brier 1950).
        asked: labels that a model would be asked about.
        asked_share: asked / labels.
        accepted_wrong_share: share of wrong ones among the labels accepted without a question.
        accepted_wrong_bound: its upper bound at 95 % confidence (Clopper and Pearson 1934).
        rejected_right_share: share of right ones among the labels rejected without a question.
        rejected_right_bound: its upper bound.
        suggestion_accuracy: share of the found errors with a known true type whose suggested label
            is that type.
    """

    labels: int
    errors: int
    flagged: int
    found: int
    unresolved: int
    precision: float | None
    recall: float | None
    f1: float | None
    auprc: float | None
    auroc: float | None
    precision_at_errors: float | None
    precision_at_100: float | None
    best_f1: float | None
    ece: float | None
    brier: float | None
    asked: int
    asked_share: float | None
    accepted_wrong_share: float | None
    accepted_wrong_bound: float | None
    rejected_right_share: float | None
    rejected_right_bound: float | None
    suggestion_accuracy: float | None


@dataclass(frozen=True)
class MissingQuality:
    """How well missing labels were found among words that carry none. Rates of nothing are None.

    Attributes:
        missing: words that lack a label, by the truth.
        listed: words that were proposed for one.
        found: how many of them lack one.
        precision: found / listed; a label that the truth does not know to be missing counts against
            it.
        recall: found / missing.
        average_precision: of the score, over all words without a label; those not listed rank last
            and count as not found.
        right_type: share of the found ones for which the right type was proposed.
        decided: words whose missing label was decided; `decided_precision`: share that lack one.
    """

    missing: int
    listed: int
    found: int
    precision: float | None
    recall: float | None
    average_precision: float | None
    right_type: float | None
    decided: int
    decided_precision: float | None


@dataclass(frozen=True)
class ReliabilityBin:
    """Labels whose stated probability of being wrong lies in one bin.

    Attributes:
        low, high: bounds of the bin.
        labels: how many there are.
        stated: mean stated probability; `wrong`: share that is wrong. None without labels.
    """

    low: float
    high: float
    labels: int
    stated: float | None
    wrong: float | None


@dataclass(frozen=True)
class Curves:
    """Points of curves, at most `CURVE_POINTS` each.

    Attributes:
        recall, precision: of the ranking by score, by falling threshold.
        asked_share, asked_recall: share of the labels asked about when the most doubtful are asked
            first, and the share of the errors that is then known: by the answers, taken as right,
            or by a score of 0.5 and above.
    """

    recall: Sequence[float]
    precision: Sequence[float]
    asked_share: Sequence[float]
    asked_recall: Sequence[float]


def measure(decisions: Decisions) -> Quality:
    """Measure the quality of decisions."""
    # Importing scikit-learn takes longer than most commands.
    from sklearn.metrics import average_precision_score, roc_auc_score

    wrong, score = decisions.wrong, decisions.score
    labels, errors = len(wrong), int(wrong.sum())
    found = wrong & decisions.flagged
    precision = _rate(found, decisions.flagged)
    recall = _rate(found, wrong)
    ranked = 0 < errors < labels
    order = np.argsort(-score, kind="stable")
    unvalidated = decisions.only(~decisions.validated)
    typed = found & np.array([label is not None for label in decisions.true_label], dtype=bool)
    return Quality(
        labels=labels,
        errors=errors,
        flagged=int(decisions.flagged.sum()),
        found=int(found.sum()),
        unresolved=int(decisions.unresolved.sum()),
        precision=precision,
        recall=recall,
        f1=_f1(precision, recall),
        auprc=float(average_precision_score(wrong, score)) if ranked else None,
        auroc=float(roc_auc_score(wrong, score)) if ranked else None,
        precision_at_errors=float(wrong[order[:errors]].mean()) if errors else None,
        precision_at_100=float(wrong[order[:_AT]].mean()) if labels >= _AT else None,
        best_f1=_best_f1(wrong, score) if ranked else None,
        ece=_ece(unvalidated),
        brier=(
            float(np.mean((unvalidated.score - unvalidated.wrong) ** 2))
            if len(unvalidated.wrong)
            else None
        ),
        asked=int(decisions.asked.sum()),
        asked_share=float(decisions.asked.mean()) if labels else None,
        accepted_wrong_share=_rate(wrong & decisions.accepted, decisions.accepted),
        accepted_wrong_bound=_bound(wrong & decisions.accepted, decisions.accepted),
        rejected_right_share=_rate(~wrong & decisions.rejected, decisions.rejected),
        rejected_right_bound=_bound(~wrong & decisions.rejected, decisions.rejected),
        suggestion_accuracy=_rate(typed & (decisions.suggested == decisions.true_label), typed),
    )


def measure_groups(
    decisions: Decisions, groups: npt.NDArray[np.object_], order: Sequence[str] | None = None
) -> dict[str, Quality]:
    """Measure each group of labels; `groups` has shape (n,) and names them."""
    names = np.unique(groups.astype(str)) if order is None else order
    return {
        str(name): measure(decisions.only(groups == name))
        for name in names
        if (groups == name).any()
    }


def reliability(decisions: Decisions) -> list[ReliabilityBin]:
    """Compare stated and true shares of wrong labels among those that are not validated."""
    unvalidated = decisions.only(~decisions.validated)
    bins = np.minimum((unvalidated.score * BINS).astype(int), BINS - 1)
    table = []
    for number in range(BINS):
        inside = bins == number
        some = bool(inside.any())
        table.append(
            ReliabilityBin(
                number / BINS,
                (number + 1) / BINS,
                int(inside.sum()),
                float(unvalidated.score[inside].mean()) if some else None,
                float(unvalidated.wrong[inside].mean()) if some else None,
            )
        )
    return table


def curves(decisions: Decisions) -> Curves:
    """Compute points to draw the ranking's curves from."""
    from sklearn.metrics import precision_recall_curve

    wrong, score = decisions.wrong, decisions.score
    if not wrong.any():
        return Curves([], [], [], [])
    precision, recall, _ = precision_recall_curve(wrong, score)
    # Most doubtful first: what stands nearest to even odds gains most from a question.
    doubtful = np.argsort(-np.minimum(score, 1 - score), kind="stable")
    decided_right = np.where(score >= 0.5, wrong, False)
    asked_first = np.concatenate([[0], np.cumsum((wrong & ~decided_right)[doubtful])])
    share = np.arange(len(wrong) + 1) / len(wrong)
    known = (decided_right.sum() + asked_first) / wrong.sum()
    at = np.unique(np.linspace(0, len(precision) - 1, CURVE_POINTS).astype(int))
    asked_at = np.unique(np.linspace(0, len(share) - 1, CURVE_POINTS).astype(int))
    return Curves(
        recall[at].tolist(),
        precision[at].tolist(),
        share[asked_at].tolist(),
        known[asked_at].tolist(),
    )


def rounded(quality: Mapping[str, float | int | None]) -> dict[str, float | int | None]:
    """Round figures to six decimals, more than are significant."""
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in quality.items()
    }


def _rate(part: Mask, whole: Mask) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None


def _bound(part: Mask, whole: Mask) -> float | None:
    return upper_bound(int(part.sum()), int(whole.sum()), CONFIDENCE) if whole.any() else None


def _f1(precision: float | None, recall: float | None) -> float | None:
    if precision is None or recall is None:
        return None
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _best_f1(wrong: Mask, score: Floats) -> float:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(wrong, score)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def _ece(decisions: Decisions) -> float | None:
    n = len(decisions.wrong)
    if not n:
        return None
    return float(
        sum(
            each.labels / n * abs(each.stated - each.wrong)
            for each in reliability(decisions)
            if each.stated is not None and each.wrong is not None
        )
    )


def measure_missing(
    score: Floats, lacks: Mask, right_type: Mask, decided: Mask, missing: int
) -> MissingQuality:
    """Measure what was found of the labels that are missing.

    Args:
        score: shape (n,), of the words that were proposed for a label.
        lacks: shape (n,), whether the word lacks one.
        right_type: shape (n,), whether it lacks the one that was proposed.
        decided: shape (n,), whether that was decided.
        missing: words that lack one, proposed or not.
    """
    from sklearn.metrics import average_precision_score

    found = int(lacks.sum())
    recall = found / missing if missing else None
    listed_precision = float(average_precision_score(lacks, score)) if found else 0.0
    return MissingQuality(
        missing,
        len(score),
        found,
        found / len(score) if len(score) else None,
        recall,
        None if recall is None else listed_precision * recall,
        float(right_type.sum()) / found if found else None,
        int(decided.sum()),
        float(lacks[decided].mean()) if decided.any() else None,
    )
