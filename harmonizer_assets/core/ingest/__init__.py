"""Ingest: batches of words and labels from the inbox, buckets and tables into the warehouse."""

from harmonizer_assets.core.ingest.arrivals import Arrivals
from harmonizer_assets.core.ingest.batches import Ingest
from harmonizer_assets.core.ingest.inbox import Inbox, InboxBatch, submit_batch
from harmonizer_assets.core.ingest.readers import read_table
from harmonizer_assets.core.ingest.staging import STAGE
from harmonizer_assets.core.records.reports import BatchReport, IngestReport

__all__ = [
    "STAGE",
    "Arrivals",
    "BatchReport",
    "Inbox",
    "InboxBatch",
    "Ingest",
    "IngestReport",
    "read_table",
    "submit_batch",
]
