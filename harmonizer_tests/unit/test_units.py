from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.stages.stage import Chunk
from harmonizer_assets.core.units.compute import Compute
from harmonizer_assets.core.units.cut import by_merchants, unit_chunks
from harmonizer_assets.core.units.unit import Bundle, is_name, name_of

TABLE = pa.table(
    {
        "text": ["Trader Joe's | 🥐", None, ""],
        "number": pa.array([1, None, 3], pa.int64()),
        "share": [math.nan, 0.1 + 0.2, -0.0],
        "nothing": pa.nulls(3),
    }
)

partitions = st.dictionaries(
    st.builds(PartitionKey, st.sampled_from("ABC"), st.sampled_from("abcdefghij")),
    st.integers(1, 40),
    min_size=1,
)


def test_a_bundle_comes_back_as_it_was_written():
    read = Bundle.from_bytes(Bundle({"rows": TABLE, "none": TABLE[:0]}, {"a": [1.1]}).to_bytes())
    assert read.meta == {"a": [1.1]}
    assert read.tables["rows"].schema == TABLE.schema
    assert str(read.tables["rows"].to_pylist()) == str(TABLE.to_pylist())
    assert read.tables["none"].num_rows == 0


def test_a_unit_is_named_by_its_input_and_carries_its_name():
    def named(number: int, answers: pa.Table = TABLE) -> str:
        bundle = Bundle({"rows": TABLE, "answers": answers}, {"b": number, "a": 0})
        name, content = bundle.named(apart=["answers"])
        assert Bundle.of_unit(name, content).meta["b"] == number
        return name

    assert named(1) == named(1, TABLE[:1]) != named(2)
    assert is_name(named(1))


@pytest.mark.parametrize("apart", [(), ("answers",)])
def test_a_bundle_is_computed_under_its_own_name_only(apart):
    _, content = Bundle({"rows": TABLE, "answers": TABLE}, {}).named(apart)
    with pytest.raises(StoreError, match="that of another one"):
        Compute(lambda _: b"").result(name_of(b"another"), content)


@pytest.mark.parametrize("name", ["", "../secrets", "A" * 64, "a" * 63, "a" * 64 + "\n", None, 7])
def test_what_is_no_hash_is_no_name(name):
    assert not is_name(name)


def flipped(content: bytes) -> bytes:
    """Change one letter of the rows."""
    return content.replace(b"Trader", b"Trbder", 1)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b"", lambda b: b"PAR1" + b[4:90], flipped]
)
def test_a_damaged_bundle_is_refused(damage):
    with pytest.raises(StoreError, match="damaged"):
        Bundle.from_bytes(damage(Bundle({"rows": TABLE}, {}).to_bytes()))


def by_merchant(keys):
    return sorted(keys, key=lambda partition: (partition.merchant_key, partition))


@given(partitions, st.integers(1, 120), st.data())
def test_a_run_that_goes_on_cuts_the_units_that_are_left(counts, labels_per_unit, data):
    whole = [
        chunk.partitions for chunk in unit_chunks(by_merchant(counts), counts, labels_per_unit)
    ]
    left = data.draw(st.sets(st.sampled_from(whole))) if whole else set()
    stale = by_merchant(partition for unit in left for partition in unit)
    again = [chunk.partitions for chunk in unit_chunks(stale, counts, labels_per_unit)]
    assert again == [unit for unit in whole if unit in left]


@given(partitions, st.integers(1, 120))
def test_units_hold_whole_merchants_and_no_more_labels_than_allowed(counts, labels_per_unit):
    units = list(unit_chunks(by_merchant(counts), counts, labels_per_unit))
    assert [p for unit in units for p in unit.partitions] == by_merchant(counts)
    merchants = [merchant for unit in units for merchant in unit.merchants]
    assert len(merchants) == len(set(merchants))
    assert all(
        sum(unit.labels.values()) <= labels_per_unit or len(unit.merchants) == 1 for unit in units
    )


def test_partitions_that_have_lost_their_labels_are_in_a_unit_too():
    gone, held = PartitionKey("A", "gone"), PartitionKey("A", "held")
    units = unit_chunks([gone, held], {held: 5}, 100)
    assert [unit.partitions for unit in units] == [(gone,), (held,)]


@given(partitions)
def test_halves_hold_whole_merchants_and_all_partitions(counts):
    chunk = Chunk(tuple(by_merchant(counts)), counts)
    parts = by_merchants(chunk)
    assert [p for part in parts for p in part.partitions] == by_merchant(counts)
    assert len(parts) == min(2, len(chunk.merchants))
    assert sum(len(part.merchants) for part in parts) == len(chunk.merchants)
