"""Triage: choose which labels the score decides, with a guarantee, and which a judge decides.

Accepting: among the labels whose P(wrong) is at most the threshold, at most `alpha` are wrong. The
thresholds are tried from the strictest on (fixed sequence testing, so no correction for trying
many; Angelopoulos et al. 2021, "Learn then Test"), each with exact binomial bounds (Clopper and
Pearson 1934) on how many right and how many wrong labels it accepts.

Rejecting: a validated label rejected by the same rule would be a mistake, so validated labels are
the null sample of a conformal test, and the Benjamini-Hochberg procedure on its p-values keeps the
expected share of right ones among the rejected below `alpha` (Bates et al. 2023, "Testing for
outliers with conformal p-values").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.base.settings import TriageSettings

Floats = npt.NDArray[np.float64]

_STEPS: Final = 200
_CLEARLY: Final = 3.0
"""Standard errors that are no chance any more."""


@dataclass(frozen=True)
class Thresholds:
    """The probabilities of being wrong between which a label is asked about.

    Attributes:
        accept: labels up to this P(wrong) are accepted; negative accepts none.
        reject: labels from this P(wrong) on are rejected; above 1 rejects none.
        validated: validated labels that the thresholds were chosen from.
        accepted_wrong_bound: upper bound, at the stated confidence, on the share of wrong labels
            among the accepted; None without a guarantee.
        rejected_right_level: bound on the expected share of right labels among the rejected; None
            where none is rejected.
        reason: why there is no guarantee; empty where there is one.
        ask: of the labels between the two, those up to this P(wrong) are not asked about, since
            without a guarantee they would be too many; negative where all are.
    """

    accept: float
    reject: float
    validated: int
    accepted_wrong_bound: float | None
    rejected_right_level: float | None
    reason: str = ""
    ask: float = -1.0


def choose_thresholds(
    right: Floats, wrong: Floats, unknown: Floats, wrong_share: float, settings: TriageSettings
) -> Thresholds:
    """Choose thresholds from labels that are known to be right or wrong.

    Args:
        right: shape (m,), P(wrong) of validated labels, by a model that has not seen them.
        wrong: shape (k,), the same of labels known to be wrong.
        unknown: shape (n,), the same of the labels to be decided.
        wrong_share: estimated share of wrong ones among the latter.
        settings: alpha, confidence, and the bounds that no threshold passes.
    """
    reason = _why_no_guarantee(right, wrong, unknown, settings.least_validated)
    if reason:
        accept, reject, bound = settings.alpha / 10, 2.0, None
    else:
        accept, bound = _accept(np.sort(right), np.sort(wrong), wrong_share, settings)
        reject = max(_reject(np.sort(right), unknown, settings), accept)
        if bound is None:
            reason = "no threshold keeps the guarantee: no label is accepted without a question"
    ask = -1.0 if bound is not None else _ask(unknown, accept, reject, settings.ask_at_most)
    if ask >= 0:
        reason += f", and only the most suspicious {settings.ask_at_most:.0%} are asked about"
    return Thresholds(
        accept,
        reject,
        len(right),
        bound,
        settings.alpha if reject <= 1 else None,
        reason,
        ask,
    )


def _why_no_guarantee(right: Floats, wrong: Floats, unknown: Floats, enough: int) -> str:
    """Say why labels that are known to be right or wrong give no guarantee; empty where they do."""
    if min(len(right), len(wrong)) < enough:
        return (
            f"{len(right)} validated labels are too few for a guarantee ({enough} are needed): "
            "only the clearest labels are accepted without a question"
        )
    if len(unknown) and not _is_fair(right, unknown):
        return (
            "the validated labels look more suspicious than the others, as those do that people "
            "are asked about first: validate some at random for a guarantee"
        )
    return ""


def _is_fair(right: Floats, unknown: Floats) -> bool:
    """Say whether validated labels can be a fair sample of the right ones among the others.

    Wrong labels are more suspicious than right ones, so that at least half of the others lie above
    the median of a fair sample. Labels as suspicious as the median count half, since equal words
    are equally suspicious.
    """
    median = np.quantile(right, 0.5, method="lower")
    below, expected = (
        (np.mean(values < median) + np.mean(values <= median)) / 2 for values in (unknown, right)
    )
    error = np.sqrt(0.25 / len(right) + 0.25 / len(unknown))
    return bool(below <= expected + _CLEARLY * error)


def upper_bound(hits: int, trials: int, confidence: float) -> float:
    """Compute the one-sided Clopper-Pearson upper bound on a rate."""
    # Importing scipy.stats takes longer than a run that finds nothing to do.
    from scipy.stats import beta

    return 1.0 if hits >= trials else float(beta.ppf(confidence, hits + 1, trials - hits))


def _accept(
    right: Floats, wrong: Floats, wrong_share: float, settings: TriageSettings
) -> tuple[float, float | None]:
    each = 1.0 - (1.0 - settings.confidence) / 2
    accepted, guaranteed = -1.0, None
    for threshold in np.geomspace(settings.alpha / 1000, settings.accept_at_most, _STEPS):
        right_in = int(np.searchsorted(right, threshold, side="right"))
        wrong_in = int(np.searchsorted(wrong, threshold, side="right"))
        most_wrong = wrong_share * upper_bound(wrong_in, len(wrong), each)
        least_right = (1 - wrong_share) * (1 - upper_bound(len(right) - right_in, len(right), each))
        share = most_wrong / max(most_wrong + least_right, 1e-12)
        if share <= settings.alpha:
            accepted, guaranteed = float(threshold), share
        elif guaranteed is not None:
            break
    return accepted, guaranteed


def _ask(unknown: Floats, accept: float, reject: float, most: float) -> float:
    """Find the P(wrong) above which labels are asked about; negative where all are."""
    between = np.sort(unknown[(unknown > accept) & (unknown < reject)])
    left = len(between) - int(most * len(unknown))
    return float(between[left - 1]) if left > 0 else -1.0


def _reject(right: Floats, unknown: Floats, settings: TriageSettings) -> float:
    """Find the least P(wrong) that is rejected; above 1 where none is."""
    as_suspicious = len(right) - np.searchsorted(right, unknown)
    p_values = (1 + as_suspicious) / (len(right) + 1)
    order = np.argsort(p_values, kind="stable")
    allowed = settings.alpha * np.arange(1, len(unknown) + 1) / max(len(unknown), 1)
    passing = np.flatnonzero(p_values[order] <= allowed)
    if len(passing) == 0 or passing[-1] + 1 < settings.least_rejected:
        return 2.0
    return max(float(unknown[order[: passing[-1] + 1]].min()), settings.reject_at_least)
