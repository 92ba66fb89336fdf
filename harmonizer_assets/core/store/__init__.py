"""The DuckDB file: transactions, its schema, exports, and the read-only copy."""

from harmonizer_assets.core.store.export import EXPORTABLE, export_table
from harmonizer_assets.core.store.snapshot import publish_snapshot
from harmonizer_assets.core.store.warehouse import (
    Connection,
    Warehouse,
    replace_partitions,
)

__all__ = [
    "EXPORTABLE",
    "Connection",
    "Warehouse",
    "export_table",
    "publish_snapshot",
    "replace_partitions",
]
