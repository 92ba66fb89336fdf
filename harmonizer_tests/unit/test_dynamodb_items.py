"""Items of the DynamoDB table that this system replaces, read and made."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.records.dynamodb import label_item, label_row, merchant_of, word_row
from harmonizer_assets.core.records.label import LabelKey

keys = st.builds(
    LabelKey,
    st.text(min_size=1),
    st.integers(0, 99_999),
    st.integers(0, 99_999),
    st.integers(0, 99_999),
    st.text(),
)


def test_the_item_of_a_label_has_the_keys_of_every_index():
    key = LabelKey("0a-b1", 1, 7, 2, "GRAND_TOTAL")
    assert label_item(key, "VALID", {"reasoning": "why", "timestamp_added": "now"}) == {
        "PK": "IMAGE#0a-b1",
        "SK": "RECEIPT#00001#LINE#00007#WORD#00002#LABEL#GRAND_TOTAL",
        "TYPE": "RECEIPT_WORD_LABEL",
        "GSI1PK": "LABEL#GRAND_TOTAL_______________________",
        "GSI1SK": "IMAGE#0a-b1#RECEIPT#00001#LINE#00007#WORD#00002",
        "GSI2PK": "RECEIPT",
        "GSI2SK": "IMAGE#0a-b1#RECEIPT#00001#LINE#00007#WORD#00002",
        "GSI3PK": "VALIDATION_STATUS#VALID",
        "GSI3SK": "IMAGE#0a-b1#RECEIPT#00001#LINE#00007#WORD#00002#LABEL#GRAND_TOTAL",
        "GSI4PK": "IMAGE#0a-b1#RECEIPT#00001",
        "GSI4SK": "4_LABEL#00007#00002#GRAND_TOTAL",
        "validation_status": "VALID",
        "reasoning": "why",
        "timestamp_added": "now",
        "label_proposed_by": None,
        "label_consolidated_from": None,
    }


@given(keys)
def test_every_label_is_read_as_it_was_made(key):
    row = label_row(label_item(key, "PENDING", {}))
    assert LabelKey(*(row[name] for name in LabelKey._fields)) == key


def test_a_words_box_is_turned_since_its_y_counts_from_below():
    item = {
        "PK": "IMAGE#a",
        "SK": "RECEIPT#00001#LINE#00002#WORD#00003",
        "text": "9.00",
        "bounding_box": {
            "x": Decimal("0.1"),
            "y": Decimal("0.75"),
            "width": Decimal("0.2"),
            "height": Decimal("0.05"),
        },
    }
    row = word_row(item)
    assert (row["receipt_id"], row["line_id"], row["word_id"]) == (1, 2, 3)
    assert round(row["y"], 9) == 0.2
    assert word_row({**item, "bounding_box": {"x": Decimal(1)}})["y"] is None


def test_the_canonical_name_of_a_merchant_goes_first_unless_it_is_empty():
    item = {"PK": "IMAGE#a", "SK": "RECEIPT#00004#PLACE", "merchant_name": "SPROUTS #12"}
    assert merchant_of(item) == (("a", 4), "SPROUTS #12")
    named = {**item, "canonical_merchant_name": "Sprouts"}
    assert merchant_of(named) == (("a", 4), "Sprouts")
    assert merchant_of({**item, "canonical_merchant_name": ""}) == (("a", 4), "SPROUTS #12")
    assert merchant_of({**item, "merchant_name": None}) is None


@given(st.text(), st.text())
def test_items_of_something_else_are_no_words_and_no_labels(pk, sk):
    for read in (label_row, word_row, merchant_of):
        read({"PK": pk, "SK": sk})
    assert label_row({"PK": "IMAGE#a", "SK": "RECEIPT#00001#PLACE"}) is None
