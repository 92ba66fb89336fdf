from __future__ import annotations

import unicodedata

import pytest
from dagster import MultiPartitionKey
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.records.merchant import UNKNOWN_MERCHANT, merchant_key
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.defs.partitions import from_dagster, to_dagster


@pytest.mark.parametrize("name", [None, "", "   ", "\n\t"])
def test_a_missing_name_is_the_unknown_merchant(name):
    assert merchant_key(name) == UNKNOWN_MERCHANT


def test_a_merchant_called_unknown_is_not_the_unknown_merchant():
    assert merchant_key("unknown") != UNKNOWN_MERCHANT


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Trader Joe's", "trader-joe-s"),
        ("O'Reilly | Sons", "o-reilly-sons"),
        ("7/11", "7-11"),
        ("日本", "日本"),
        ("🍕", "merchant"),
        ("Shop...Name", "shop-name"),
    ],
)
def test_a_key_is_readable(name, slug):
    assert merchant_key(name).rpartition("-")[0] == slug


def test_names_with_the_same_slug_have_different_keys():
    assert len({merchant_key(name) for name in ("A&B", "A B", "a-b", "A.B", "A|B")}) == 5


def test_surrounding_space_and_unicode_composition_do_not_make_another_merchant():
    composed, decomposed = "Café", unicodedata.normalize("NFD", "Café")
    assert merchant_key(f" {composed} ") == merchant_key(decomposed)


@given(st.text(max_size=600))
def test_any_name_gives_a_safe_bounded_stable_key(name):
    key = merchant_key(name)
    assert key == merchant_key(name)
    assert 0 < len(key) <= 69
    assert "|" not in key
    assert "..." not in key
    assert not any(unicodedata.category(character) == "Cc" for character in key)


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_different_names_have_different_keys(one, other):
    def identity(name):
        return unicodedata.normalize("NFC", name).strip()

    if identity(one) != identity(other):
        assert merchant_key(one) != merchant_key(other)


@given(st.text(max_size=100))
def test_every_key_survives_the_way_through_a_dagster_partition_key(name):
    partition = PartitionKey("DATE", merchant_key(name))
    dagster_key = to_dagster(partition)
    assert isinstance(dagster_key, MultiPartitionKey)
    assert from_dagster(str(dagster_key)) == partition
