"""Lineage of assets: code versions, upstream assets, columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dagster import AssetKey, MetadataValue, TableColumnDep, TableColumnLineage

from harmonizer_assets.core.decide.missing import VERSION as MISSING_LABELS_VERSION
from harmonizer_assets.core.decide.stage import OUTLIERS_VERSION
from harmonizer_assets.core.index.documents import DOCUMENT_VERSION
from harmonizer_assets.core.judge.llm import PROMPT_VERSION
from harmonizer_assets.core.records.label import LABEL_KEY
from harmonizer_assets.core.records.reports import AssetName
from harmonizer_assets.core.score.registry import MODEL_VERSION
from harmonizer_assets.core.score.scoring import SCORER_VERSION

CODE_VERSIONS: Final[Mapping[str, str]] = {
    "words": "2",
    "labels": "1",
    "quarantine": "2",
    "word_embeddings": DOCUMENT_VERSION,
    "suspicion_model": MODEL_VERSION,
    "similarity_matches": SCORER_VERSION,
    "llm_verdicts": PROMPT_VERSION,
    "outliers": OUTLIERS_VERSION,
    "merchant_alarms": "1",
    "receipt_alarms": "1",
    "label_patterns": "1",
    "missing_labels": MISSING_LABELS_VERSION,
    "validation_queue": "1",
    "llm_usage": "1",
    "llm_plan": "1",
    "llm_batch_jobs": "1",
    "harmonization_report": "1",
    "detection_quality": "1",
    "corrections": "1",
    "home_retention": "1",
}
"""A changed prompt invalidates verdicts and what is made of them; the scores stay."""

UPSTREAM: Final[Mapping[str, Sequence[str]]] = {
    "words": (),
    "labels": (),
    "quarantine": (),
    "word_embeddings": ("words", "labels"),
    "suspicion_model": ("word_embeddings",),
    "similarity_matches": ("word_embeddings", "suspicion_model"),
    "llm_verdicts": ("similarity_matches",),
    "outliers": ("llm_verdicts",),
    "merchant_alarms": ("similarity_matches",),
    "receipt_alarms": ("outliers",),
    "label_patterns": ("outliers",),
    "missing_labels": ("similarity_matches",),
    "validation_queue": ("outliers",),
    "llm_usage": ("llm_verdicts",),
    "llm_plan": ("similarity_matches",),
    "llm_batch_jobs": ("similarity_matches",),
    "harmonization_report": (*("outliers", "label_patterns", "receipt_alarms", "missing_labels"),),
    "detection_quality": ("outliers",),
    "corrections": ("outliers",),
    "home_retention": (),
}

_COLUMNS: Final[Mapping[AssetName, Mapping[str, Sequence[str]]]] = {
    "similarity_matches": {
        **{name: [f"labels.{name}"] for name in LABEL_KEY},
        "label_type": ["labels.label"],
        "merchant_key": ["labels.merchant_key"],
        "outlier_score": ["labels.validation_status", "words.text"],
        "triage": ["labels.validation_status", "words.text"],
    },
    "llm_verdicts": {
        "label_type": ["similarity_matches.label_type"],
        "merchant_key": ["similarity_matches.merchant_key"],
        "word_text": ["words.text"],
    },
    "outliers": {
        **{name: [f"similarity_matches.{name}"] for name in LABEL_KEY},
        "label_type": ["similarity_matches.label_type"],
        "merchant_key": ["similarity_matches.merchant_key"],
        "merchant_name": ["labels.merchant_name"],
        "word_text": ["words.text"],
        "validation_status": ["labels.validation_status"],
        "outlier_score": ["similarity_matches.outlier_score"],
        "is_outlier": ["similarity_matches.triage", "llm_verdicts.is_outlier"],
        "suggested_label": [
            "similarity_matches.competing_label",
            "llm_verdicts.suggested_label",
        ],
        "confidence": ["similarity_matches.outlier_score", "llm_verdicts.confidence"],
        "reasoning": ["similarity_matches.outlier_score", "llm_verdicts.reasoning"],
    },
}


def column_lineage(asset: AssetName) -> dict[str, Any]:
    """Return the column lineage of an asset, as metadata of a materialization."""
    lineage = TableColumnLineage(
        {
            column: [
                TableColumnDep(AssetKey(source.partition(".")[0]), source.partition(".")[2])
                for source in sources
            ]
            for column, sources in _COLUMNS[asset].items()
        }
    )
    return {"dagster/column_lineage": MetadataValue.column_lineage(lineage)}
