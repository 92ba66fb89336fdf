"""Asset checks: are the tables complete and consistent?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    multi_asset_check,
)

from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.report.drift import drift, jumps
from harmonizer_assets.defs.resources import HomeResource


@dataclass(frozen=True)
class Check:
    """An asset check, named like the function that makes it.

    Attributes:
        asset: the asset that it is shown with.
        evaluate: makes it.
        description: what is true where it passes.
    """

    asset: str
    evaluate: Callable[[Pipeline], AssetCheckResult]
    description: str

    @property
    def spec(self) -> AssetCheckSpec:
        """Its definition for Dagster."""
        return AssetCheckSpec(
            self.evaluate.__name__, asset=self.asset, description=self.description
        )


def counts_reconcile(pipeline: Pipeline) -> AssetCheckResult:
    """Fail when a label is in no state or in two."""
    counts = pipeline.tables.counts()
    states = {
        "valid": counts.valid,
        "outliers": counts.outliers,
        "unresolved": counts.unresolved,
        "rejected": counts.rejected,
    }
    return AssetCheckResult(
        passed=counts.labels == sum(states.values()),
        severity=AssetCheckSeverity.ERROR,
        metadata={"labels": counts.labels, **states, "dead_letters": counts.dead_letters},
    )


def unresolved_share(pipeline: Pipeline) -> AssetCheckResult:
    """Warn when more labels are unresolved than the settings allow."""
    counts = pipeline.tables.counts()
    share = counts.unresolved / counts.labels if counts.labels else 0.0
    allowed = pipeline.settings.checks.max_unresolved_share
    return AssetCheckResult(
        passed=share <= allowed,
        severity=AssetCheckSeverity.WARN,
        metadata={"unresolved": counts.unresolved, "share": round(share, 4), "allowed": allowed},
    )


def all_partitions_current(pipeline: Pipeline) -> AssetCheckResult:
    """Fail when labels have changed since their partition was scored."""
    waiting = pipeline.partitions.waiting(pipeline.score.definition())
    return AssetCheckResult(
        passed=not waiting,
        severity=AssetCheckSeverity.ERROR,
        metadata={
            "waiting": len(waiting),
            "first": ", ".join("|".join(partition) for partition in waiting[:5]) or "none",
        },
    )


def no_dead_letters(pipeline: Pipeline) -> AssetCheckResult:
    """Fail while questions are in `dead_letters`."""
    dead = pipeline.tables.dead_letters()
    return AssetCheckResult(
        passed=dead == 0, severity=AssetCheckSeverity.ERROR, metadata={"dead_letters": dead}
    )


def no_failed_partitions(pipeline: Pipeline) -> AssetCheckResult:
    """Fail while partitions are in `partition_failures`; the next run tries them again."""
    failed = pipeline.tables.failures()
    return AssetCheckResult(
        passed=not failed,
        severity=AssetCheckSeverity.ERROR,
        metadata={
            "failed": len(failed),
            "first": "; ".join(
                f"{failure.asset} {'|'.join(failure.partition)}: {failure.error}"
                for failure in failed[:5]
            )
            or "none",
        },
    )


def outlier_rate_steady(pipeline: Pipeline) -> AssetCheckResult:
    """Warn of a jump beyond chance: a changed source, a shifted column, a bad model."""
    found = jumps(pipeline.warehouse, pipeline.settings.checks.max_outlier_rate_jump)
    return AssetCheckResult(
        passed=not found,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "jumps": "; ".join(str(jump) for jump in found) or "none",
            "allowed": pipeline.settings.checks.max_outlier_rate_jump,
        },
    )


def verdicts_steady(pipeline: Pipeline) -> AssetCheckResult:
    """Warn when the model or prompt in use judges words otherwise than the one before."""
    found = drift(pipeline.warehouse)
    allowed = pipeline.settings.checks.max_verdict_drift
    return AssetCheckResult(
        passed=found.changed <= allowed,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "words_in_common": found.words,
            "judged_otherwise": round(found.changed, 4),
            "allowed": allowed,
            "now": found.now or "no model has been asked",
            "before": found.before or "none",
        },
    )


def quarantine_is_empty(pipeline: Pipeline) -> AssetCheckResult:
    """Warn when there are quarantined rows."""
    quarantined = pipeline.tables.quarantined()
    return AssetCheckResult(
        passed=quarantined == 0,
        severity=AssetCheckSeverity.WARN,
        metadata={"quarantined": quarantined},
    )


def embeddings_complete(pipeline: Pipeline) -> AssetCheckResult:
    """Fail when labelled words are missing from the tables of the index, or vectors from it."""
    missing = pipeline.tables.unindexed_words() + pipeline.indexing.lost()
    return AssetCheckResult(
        passed=missing == 0, severity=AssetCheckSeverity.ERROR, metadata={"missing": missing}
    )


def no_contradictions(pipeline: Pipeline) -> AssetCheckResult:
    """Warn when validated labels contradict each other."""
    found = pipeline.tables.contradictions()
    return AssetCheckResult(
        passed=not found,
        severity=AssetCheckSeverity.WARN,
        metadata={
            "contradictions": len(found),
            "first": "; ".join(f"{row['sentence']} ({row['merchant_key']})" for row in found[:5])
            or "none",
        },
    )


CHECKS: Final = (
    Check(
        "outliers",
        counts_reconcile,
        "Every label is valid, an outlier, unresolved or rejected: the counts add up.",
    ),
    Check("outliers", unresolved_share, "Not too many labels are left undecided."),
    Check(
        "outliers",
        all_partitions_current,
        "No partition waits to be computed: partial coverage never reads as clean.",
    ),
    Check("llm_verdicts", no_dead_letters, "No question failed after all its attempts."),
    Check("outliers", no_failed_partitions, "No partition failed to be computed."),
    Check(
        "outliers",
        outlier_rate_steady,
        "The share of outliers has not jumped since the last run, in any label type.",
    ),
    Check("llm_verdicts", verdicts_steady, "Another model or prompt judges the same words alike."),
    Check("quarantine", quarantine_is_empty, "No row or file is quarantined."),
    Check("word_embeddings", embeddings_complete, "Every labelled word has its vector."),
    Check(
        "labels",
        no_contradictions,
        "Equal words of a merchant are not validated with different label types.",
    ),
)


@multi_asset_check(specs=[check.spec for check in CHECKS], can_subset=True)
def label_checks(
    context: AssetCheckExecutionContext, home: HomeResource
) -> Iterator[AssetCheckResult]:
    """Make the checks that are selected.

    One step for all: for each step, Dagster lists every partition of the assets that it checks.
    """
    pipeline = home.open()
    for check in CHECKS:
        if check.spec.key in context.selected_asset_check_keys:
            made = check.evaluate(pipeline)
            yield made._replace(asset_key=check.spec.asset_key, check_name=check.spec.name)
