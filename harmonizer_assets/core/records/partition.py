"""Partitions: label type x merchant."""

from __future__ import annotations

from typing import NamedTuple


class PartitionKey(NamedTuple):
    """Identifies one partition."""

    label_type: str
    merchant_key: str
