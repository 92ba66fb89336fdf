"""Asset checks: is what the tables say complete and consistent?"""

from collections.abc import Sequence

from dagster import AssetCheckResult, AssetChecksDefinition, AssetCheckSeverity, asset_check

from harmonizer_assets.resources import HarmonizerResource


@asset_check(
    asset="outliers",
    description="Every label is valid, an outlier or unresolved: the counts add up.",
)
def counts_reconcile(harmonizer: HarmonizerResource) -> AssetCheckResult:
    """Fail when a label is in no state or in two."""
    counts = harmonizer.open().counts()
    states = {
        "valid": counts.valid,
        "outliers": counts.outliers,
        "unresolved": counts.unresolved,
    }
    return AssetCheckResult(
        passed=counts.labels == sum(states.values()),
        severity=AssetCheckSeverity.ERROR,
        metadata={"labels": counts.labels, **states, "dead_letters": counts.dead_letters},
    )


@asset_check(asset="outliers", description="Not too many labels are left undecided.")
def unresolved_share(harmonizer: HarmonizerResource) -> AssetCheckResult:
    """Warn when more labels are unresolved than the settings allow."""
    opened = harmonizer.open()
    counts = opened.counts()
    share = counts.unresolved / counts.labels if counts.labels else 0.0
    allowed = opened.settings.checks.max_unresolved_share
    return AssetCheckResult(
        passed=share <= allowed,
        severity=AssetCheckSeverity.WARN,
        metadata={"unresolved": counts.unresolved, "share": round(share, 4), "allowed": allowed},
    )


@asset_check(
    asset="outliers",
    description="No partition waits to be computed: partial coverage never reads as clean.",
)
def all_partitions_current(harmonizer: HarmonizerResource) -> AssetCheckResult:
    """Fail when labels have changed since their partition was scored."""
    waiting = harmonizer.open().unscored_partitions()
    return AssetCheckResult(
        passed=not waiting,
        severity=AssetCheckSeverity.ERROR,
        metadata={
            "waiting": len(waiting),
            "first": ", ".join("|".join(partition) for partition in waiting[:5]) or "none",
        },
    )


@asset_check(asset="llm_verdicts", description="No question failed after all its attempts.")
def no_dead_letters(harmonizer: HarmonizerResource) -> AssetCheckResult:
    """Fail while questions are in `dead_letters`."""
    dead = harmonizer.open().counts().dead_letters
    return AssetCheckResult(
        passed=dead == 0, severity=AssetCheckSeverity.ERROR, metadata={"dead_letters": dead}
    )


@asset_check(asset="outliers", description="No partition failed to be computed.")
def no_failed_partitions(harmonizer: HarmonizerResource) -> AssetCheckResult:
    """Fail while partitions are in `partition_failures`; the next run tries them again."""
    failed = harmonizer.open().failed_partitions()
    return AssetCheckResult(
        passed=not failed,
        severity=AssetCheckSeverity.ERROR,
        metadata={
            "failed": len(failed),
            "first": "; ".join(
                f"{row['asset']} {row['label_type']}|{row['merchant_key']}: {row['error']}"
                for row in failed[:5]
            )
            or "none",
        },
    )


@asset_check(
    asset="outliers",
    description="The share of outliers has not jumped since the last run, in any label type.",
)
def outlier_rate_steady(harmonizer: HarmonizerResource) -> AssetCheckResult:
    """Warn of a jump beyond chance: a changed source, a shifted column, a bad model."""
    opened = harmonizer.open()
    found = opened.outlier_rate_jumps()
    return AssetCheckResult(
        passed=not found,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "jumps": "; ".join(str(jump) for jump in found) or "none",
            "allowed": opened.settings.checks.max_outlier_rate_jump,
        },
    )


@asset_check(
    asset="llm_verdicts",
    description="Another model or prompt judges the same words alike.",
)
def verdicts_steady(harmonizer: HarmonizerResource) -> AssetCheckResult:
    """Warn when the model or prompt in use has changed its mind about words judged before."""
    opened = harmonizer.open()
    drift = opened.verdict_drift()
    allowed = opened.settings.checks.max_verdict_drift
    return AssetCheckResult(
        passed=drift.changed <= allowed,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "words_in_common": drift.words,
            "judged_otherwise": round(drift.changed, 4),
            "allowed": allowed,
            "now": drift.now or "no model has been asked",
            "before": drift.before or "none",
        },
    )


@asset_check(asset="quarantine", description="No row or file had to be set aside.")
def quarantine_is_empty(harmonizer: HarmonizerResource) -> AssetCheckResult:
    """Warn when there are quarantined rows."""
    quarantined = harmonizer.open().counts().quarantined
    return AssetCheckResult(
        passed=quarantined == 0,
        severity=AssetCheckSeverity.WARN,
        metadata={"quarantined": quarantined},
    )


@asset_check(asset="word_embeddings", description="Every labelled word has its vector.")
def embeddings_complete(harmonizer: HarmonizerResource) -> AssetCheckResult:
    """Fail when labelled words are missing from the index."""
    missing = harmonizer.open().unindexed_words()
    return AssetCheckResult(
        passed=missing == 0, severity=AssetCheckSeverity.ERROR, metadata={"missing": missing}
    )


@asset_check(
    asset="labels",
    description="Equal words of a merchant are not validated with different label types.",
)
def no_contradictions(harmonizer: HarmonizerResource) -> AssetCheckResult:
    """Warn when validated labels contradict each other."""
    found = harmonizer.open().contradictions()
    return AssetCheckResult(
        passed=not found,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "contradictions": len(found),
            "first": "; ".join(f"{row['sentence']} ({row['merchant_key']})" for row in found[:5])
            or "none",
        },
    )


CHECKS: Sequence[AssetChecksDefinition] = [
    counts_reconcile,
    unresolved_share,
    all_partitions_current,
    no_failed_partitions,
    outlier_rate_steady,
    no_dead_letters,
    verdicts_steady,
    quarantine_is_empty,
    embeddings_complete,
    no_contradictions,
]
