"""Sources of labels besides the inbox: buckets and tables.

A source copies what is new into the inbox and records it afterwards. If the process dies between
the two, the same data is copied again, which changes nothing: ingest identifies a batch by its
content, and equal rows stay as they are.
"""

from harmonizer_assets.core.ingest.sources.base import TABLE_URL_VARIABLE, Source, no_order
from harmonizer_assets.core.ingest.sources.dynamodb import DynamoSource
from harmonizer_assets.core.ingest.sources.s3 import S3Source
from harmonizer_assets.core.ingest.sources.tables import TableSource, open_tables

__all__ = [
    "TABLE_URL_VARIABLE",
    "DynamoSource",
    "S3Source",
    "Source",
    "TableSource",
    "no_order",
    "open_tables",
]
