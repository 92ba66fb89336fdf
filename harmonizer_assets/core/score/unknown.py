"""What cannot be known about a label, and why: certainty is stated only where there is evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.records.status import WEIGHTS
from harmonizer_assets.core.score.votes import Floats, Votes

if TYPE_CHECKING:
    from harmonizer_assets.core.score.fitting import FittedModel, LabelFeatures

Reasons = npt.NDArray[np.object_]
"""Shape (n,): why nothing can be known about a label; None where something can."""

NO_WORD: Final = "the labelled word has not arrived with any batch"
NO_SIMILAR_WORD: Final = "no labelled word is similar enough to compare with"
NO_WITNESS: Final = (
    "no validated label on a similar word speaks for or against it, and the other labels are too "
    "few to tell"
)
ONE_TYPE: Final = "the labels elsewhere are all of one type: nothing tells it from others"
NEW_TYPE: Final = "no other row that the model has seen has a label of this type"

_LEAST_VOTES: Final = 0.05
"""One VALID label at cosine similarity 0.70."""
_MAJORITY: Final = 3.0
"""Votes against a label, in multiples of those for it and its own, that outvote it."""


def without_similar_words(votes: Votes) -> Reasons:
    """Find the labels on words that no other labelled word is similar to."""
    for_it, against = _sums(votes)
    return np.where(for_it + against < _LEAST_VOTES, NO_SIMILAR_WORD, _nothing(len(for_it)))


def without_witnesses(votes: Votes, odds: Floats, statuses: Sequence[str]) -> Reasons:
    """Find the labels that similar words cannot tell right or wrong.

    A validated label on a similar word tells it, of the same type or of the competing one. Labels
    that no person has looked at may all be wrong in the same way: however many agree, they do not
    make each other right. They can only outvote one that differs.

    Args:
        votes: on n labels.
        odds: shape (n,), of each being wrong, by the votes.
        statuses: of the labels.
    """
    contradicted = (votes.validated_against > 0) | _outvoted(votes, statuses)
    told = np.where(odds > 1.0, contradicted, votes.validated_for > 0)
    alone = without_similar_words(votes)
    return np.where(told | is_unknown(alone), alone, NO_WITNESS)


def unknown_to_model(model: FittedModel, located: LabelFeatures, votes: Votes) -> Reasons:
    """Find the labels that the model cannot tell right or wrong, by what its folds have seen.

    A type that it has never seen is improbable everywhere, however right the label may be; only
    similar words that clearly outvote it speak against it then.
    """
    statuses = located.labels["validation_status"].to_pylist()
    seen = model.suspicion.seen_types(located.folds)
    own = seen[np.arange(len(located.label_type)), located.label_type]
    others = seen.sum(axis=1) - own
    return np.select(
        [(others == 0) & (len(model.label_types) > 1), ~own & ~_outvoted(votes, statuses)],
        [ONE_TYPE, NEW_TYPE],
        _nothing(len(own)),
    )


def is_unknown(reasons: Reasons) -> npt.NDArray[np.bool_]:
    """Say of which labels nothing can be known: shape (n,)."""
    return np.array([reason is not None for reason in reasons.tolist()], dtype=bool)


def _outvoted(votes: Votes, statuses: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Say which labels a clear majority of the votes of similar words contradicts."""
    for_it, against = _sums(votes)
    own = np.array([max(WEIGHTS[status].vote, 0.0) for status in statuses])
    return against >= _MAJORITY * np.maximum(for_it + own, _LEAST_VOTES)


def _sums(votes: Votes) -> tuple[Floats, Floats]:
    return votes.merchant_for + votes.corpus_for, votes.merchant_against + votes.corpus_against


def _nothing(n: int) -> Reasons:
    return np.full(n, None, dtype=object)
