"""Where labels arrive from besides the inbox: buckets and tables.

A source copies what is new into the inbox and notes only then that it has taken it. Whatever
happens between the two, the same is copied again, which changes nothing: ingest knows a batch by
its content, and a row that is there already stays as it is.
"""

from harmonizer_assets.core.sources.base import Source
from harmonizer_assets.core.sources.s3 import S3Source
from harmonizer_assets.core.sources.tables import TABLE_URL_VARIABLE, TableSource

__all__ = ["TABLE_URL_VARIABLE", "S3Source", "Source", "TableSource"]
