"""Dagster partitions: label type (from the taxonomy) x merchant (grows as labels arrive)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dagster import (
    AssetExecutionContext,
    DagsterInstance,
    DynamicPartitionsDefinition,
    MultiPartitionKey,
    MultiPartitionsDefinition,
    StaticPartitionsDefinition,
)
from sqlalchemy.exc import IntegrityError

from harmonizer_assets.core.records.partition import PartitionKey

LABEL_TYPE: Final = "label_type"
MERCHANT: Final = "merchant"
MERCHANTS: Final = "merchants"
"""Name of the dynamic partitions of merchant keys."""


def label_type_by_merchant(label_types: Sequence[str]) -> MultiPartitionsDefinition:
    """Define the partitions of a home with these label types."""
    return MultiPartitionsDefinition(
        {
            LABEL_TYPE: StaticPartitionsDefinition(list(label_types)),
            MERCHANT: DynamicPartitionsDefinition(name=MERCHANTS),
        }
    )


def to_dagster(partition: PartitionKey) -> MultiPartitionKey:
    """Make the Dagster key of a partition."""
    return MultiPartitionKey({LABEL_TYPE: partition.label_type, MERCHANT: partition.merchant_key})


def from_dagster(key: str) -> PartitionKey:
    """Return the partition of a Dagster key; neither part holds a `|`."""
    label_type, _, merchant_key = key.partition("|")
    return PartitionKey(label_type, merchant_key)


def requested(context: AssetExecutionContext) -> list[PartitionKey] | None:
    """Return the partitions that a run was launched for; None for a launch without any."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return None
    return [from_dagster(key) for key in context.partition_keys]


def add_merchants(instance: DagsterInstance, merchant_keys: Iterable[str]) -> list[str]:
    """Add the merchants that the instance does not have yet; return them."""
    wanted = set(merchant_keys)
    new = _unknown(instance, wanted)
    while new:
        try:
            instance.add_dynamic_partitions(MERCHANTS, new)
            break
        except IntegrityError:
            # Dagster looks, then inserts: another run added some of them in between.
            left = _unknown(instance, wanted)
            if left == new:
                raise
            new = left
    return new


def remove_merchants(instance: DagsterInstance, merchant_keys: Iterable[str]) -> list[str]:
    """Remove merchants that hold no labels any more; return those that the instance had."""
    known = sorted(set(merchant_keys).intersection(instance.get_dynamic_partitions(MERCHANTS)))
    for key in known:
        instance.delete_dynamic_partition(MERCHANTS, key)
    return known


def _unknown(instance: DagsterInstance, wanted: set[str]) -> list[str]:
    return sorted(wanted.difference(instance.get_dynamic_partitions(MERCHANTS)))
