"""Dagster partitions: label type (from the taxonomy) x merchant (grows as labels arrive)."""

from __future__ import annotations

from collections.abc import Iterable

from dagster import (
    DagsterInstance,
    DynamicPartitionsDefinition,
    MultiPartitionKey,
    MultiPartitionsDefinition,
    StaticPartitionsDefinition,
)
from sqlalchemy.exc import IntegrityError

from harmonizer_assets.core.home import Home
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.taxonomy import Taxonomy

LABEL_TYPE = "label_type"
MERCHANT = "merchant"

merchants = DynamicPartitionsDefinition(name="merchants")
label_type_by_merchant = MultiPartitionsDefinition(
    {
        LABEL_TYPE: StaticPartitionsDefinition(list(Taxonomy.of_home(Home.resolve()).names)),
        MERCHANT: merchants,
    }
)


def to_dagster(partition: PartitionKey) -> MultiPartitionKey:
    """The Dagster key of a partition."""
    return MultiPartitionKey({LABEL_TYPE: partition.label_type, MERCHANT: partition.merchant_key})


def from_dagster(key: str) -> PartitionKey:
    """The partition that a Dagster key names; neither part holds a `|`."""
    label_type, _, merchant_key = key.partition("|")
    return PartitionKey(label_type, merchant_key)


def add_merchants(instance: DagsterInstance, merchant_keys: Iterable[str]) -> list[str]:
    """Add the merchants that the instance does not know yet; which those are."""
    wanted = set(merchant_keys)
    new = _unknown(instance, wanted)
    while new:
        try:
            instance.add_dynamic_partitions(str(merchants.name), new)
            break
        except IntegrityError:
            # Dagster looks, then inserts: another run added some of them in between.
            left = _unknown(instance, wanted)
            if left == new:
                raise
            new = left
    return new


def _unknown(instance: DagsterInstance, wanted: set[str]) -> list[str]:
    return sorted(wanted.difference(instance.get_dynamic_partitions(str(merchants.name))))
