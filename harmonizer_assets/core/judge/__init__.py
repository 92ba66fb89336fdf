"""Judge: verdicts on the labels that the score leaves open."""

from harmonizer_assets.core.judge.offline import OfflineJudge
from harmonizer_assets.core.judge.verdicts import (
    USAGE_METRICS,
    requeue_dead_letters,
    verdict_stage,
)

__all__ = [
    "USAGE_METRICS",
    "OfflineJudge",
    "requeue_dead_letters",
    "verdict_stage",
]
