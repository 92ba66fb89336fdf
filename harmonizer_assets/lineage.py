"""What assets are made of: code versions, upstream assets, columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dagster import AssetKey, MetadataValue, TableColumnDep, TableColumnLineage

from harmonizer_assets.core.documents import DOCUMENT_VERSION
from harmonizer_assets.core.harmonizer import AssetName
from harmonizer_assets.core.llm.wire import PROMPT_VERSION
from harmonizer_assets.core.models import MODEL_VERSION
from harmonizer_assets.core.outliers import OUTLIERS_VERSION
from harmonizer_assets.core.scoring import SCORER_VERSION

CODE_VERSIONS: Final[Mapping[str, str]] = {
    "words": "1",
    "labels": "1",
    "quarantine": "1",
    "word_embeddings": DOCUMENT_VERSION,
    "suspicion_model": MODEL_VERSION,
    "similarity_matches": SCORER_VERSION,
    "llm_verdicts": PROMPT_VERSION,
    "outliers": OUTLIERS_VERSION,
    "merchant_alarms": "1",
    "receipt_alarms": "1",
    "label_patterns": "1",
    "llm_usage": "1",
    "llm_plan": "1",
    "harmonization_report": "1",
    "detection_quality": "1",
}
"""A changed prompt outdates verdicts and what is made of them; the scores stay."""

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
    "llm_usage": ("llm_verdicts",),
    "llm_plan": ("similarity_matches",),
    "harmonization_report": ("outliers", "label_patterns", "receipt_alarms"),
    "detection_quality": ("outliers",),
}

_KEY: Final = ("image_id", "receipt_id", "line_id", "word_id", "label")

_COLUMNS: Final[Mapping[AssetName, Mapping[str, Sequence[str]]]] = {
    "similarity_matches": {
        **{name: [f"labels.{name}"] for name in _KEY},
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
        **{name: [f"similarity_matches.{name}"] for name in _KEY},
        "label_type": ["similarity_matches.label_type"],
        "merchant_key": ["similarity_matches.merchant_key"],
        "merchant_name": ["labels.merchant_name"],
        "word_text": ["words.text"],
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
    """Which columns the columns of an asset come from, as metadata of a materialization."""
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
