"""The public interface: everything that can be imported from `harmonizer_assets`."""

from __future__ import annotations

from harmonizer_assets.core.base.errors import (
    BudgetReached,
    ConfigurationError,
    HarmonizerError,
    InputError,
    JudgeError,
    PartitionsFailedError,
    RunStoppedError,
    SourceError,
    StoreBusyError,
    StoreError,
    TaxonomyError,
)
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.progress import Progress
from harmonizer_assets.core.base.settings import JudgeOverrides, Settings
from harmonizer_assets.core.harmonize import harmonize_all_labels
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline, Reporter
from harmonizer_assets.core.records.label import LabelKey, WordKey
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import (
    Counts,
    HarmonizeReport,
    IndexReport,
    IngestReport,
    PartitionResult,
    RunReport,
)
from harmonizer_assets.core.records.status import Status
from harmonizer_assets.core.records.taxonomy import LabelType, Taxonomy
from harmonizer_assets.core.store.tables import Tables
from harmonizer_assets.core.store.warehouse import Warehouse

__all__ = [
    "BudgetReached",
    "ConfigurationError",
    "Counts",
    "HarmonizeReport",
    "HarmonizerError",
    "Home",
    "IndexReport",
    "IngestReport",
    "InputError",
    "JudgeError",
    "JudgeOverrides",
    "LabelKey",
    "LabelType",
    "PartitionKey",
    "PartitionResult",
    "PartitionsFailedError",
    "Pipeline",
    "Progress",
    "Reporter",
    "RunOptions",
    "RunReport",
    "RunStoppedError",
    "Settings",
    "SourceError",
    "Status",
    "StoreBusyError",
    "StoreError",
    "Tables",
    "Taxonomy",
    "TaxonomyError",
    "Warehouse",
    "WordKey",
    "harmonize_all_labels",
    "submit_batch",
]
