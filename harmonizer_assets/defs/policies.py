"""Policies over all assets: owners and freshness."""

from __future__ import annotations

import datetime as dt
from typing import Final

from dagster import FreshnessPolicy

OWNERS: Final = ["team:label-quality"]

STALE_AFTER_DAYS: Final = FreshnessPolicy.time_window(
    fail_window=dt.timedelta(days=8), warn_window=dt.timedelta(days=2)
)
"""Days without any materialization: nothing arrives any more, or nothing computes."""

KEEPS_COMING: Final = frozenset(
    {"labels", "similarity_matches", "llm_verdicts", "outliers", "harmonization_report"}
)
"""Assets that are expected to be materialized again and again."""
