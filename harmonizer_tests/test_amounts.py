from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.amounts import (
    RELATIONS,
    amount_relations,
    parse_amount,
    parse_amounts,
)


@pytest.mark.parametrize(
    ("text", "hundredths"),
    [
        ("12.50", 1250),
        ("1,234.50", 123450),
        ("1.234,50", 123450),
        ("12,50", 1250),
        ("RM12.50", 1250),
        ("$ 12.50", 1250),
        ("€3,20", 320),
        ("-5.00", 500),
        ("(5.00)", 500),
        ("5.00-", 500),
        ("12.50SR", 1250),
        (" 0.00 ", 0),
    ],
)
def test_amounts_are_read_however_they_are_printed(text, hundredths):
    assert parse_amount(text) == hundredths


@pytest.mark.parametrize(
    "text", ["", "12", "12.5", "14:05", "12.505", "TOTAL", "2024-03-07", "1.2.50x9"]
)
def test_what_is_no_amount_is_none(text):
    assert parse_amount(text) is None


@given(st.integers(0, 99_999_99), st.sampled_from(["{}", "${}", "RM{}", "({})", "-{}", "{}-"]))
def test_every_amount_survives_printing_and_reading(hundredths, form):
    printed = form.format(f"{hundredths / 100:.2f}")
    assert parse_amount(printed) == hundredths
    assert parse_amount(form.format(f"{hundredths / 100:,.2f}")) == hundredths


@given(st.lists(st.text(max_size=12), max_size=20))
def test_any_text_is_an_amount_or_not(texts):
    found = parse_amounts(texts)
    assert found.shape == (len(texts),)
    assert (found >= -1).all()


def relations(*rows, receipts=None):
    """Relations of each text on rows of texts, as sets of names, by reading order."""
    texts = [text for row in rows for text in row]
    row = np.array([number for number, row in enumerate(rows) for _ in row], dtype=np.int64)
    receipt = np.array(receipts or [0] * len(rows), dtype=np.int64)[row]
    found = amount_relations(receipt, row, texts)
    return [
        (text, {name for name, is_so in zip(RELATIONS, line, strict=True) if is_so})
        for text, line in zip(texts, found.tolist(), strict=True)
    ]


def test_a_total_is_the_sum_of_subtotal_and_tax():
    found = dict(relations(["Subtotal", "10.00"], ["Tax", "0.60"], ["Total", "10.60"]))
    assert {"largest", "sum_of_two"} <= found["10.60"]
    assert "part_of_sum" in found["10.00"]
    assert "part_of_sum" in found["0.60"]
    assert found["Total"] == set()


def test_the_amounts_of_the_items_add_up_to_the_total():
    found = dict(relations(["a", "3.50"], ["b", "9.00"], ["c", "1.25"], ["total", "13.75"]))
    assert "sum_of_column" in found["13.75"]
    assert "sum_of_column" not in found["1.25"]


def test_a_count_times_a_price_is_the_amount_of_the_line():
    found = dict(relations(["3", "2.50", "7.50"], ["x", "1.00"]))
    assert found["7.50"] >= {"product_on_row"}
    assert found["3"] == {"factor_on_row"}
    assert "factor_on_row" in found["2.50"]
    assert not found["1.00"] & {"product_on_row", "factor_on_row"}


def test_an_amount_on_two_rows_is_repeated_and_on_one_row_twice_is_not():
    found = relations(["total", "5.00"], ["cash", "5.00"], ["2.00", "2.00"])
    assert [("repeated" in names) for text, names in found if text == "5.00"] == [True, True]
    assert [("repeated" in names) for text, names in found if text == "2.00"] == [False, False]


def test_receipts_do_not_add_up_with_each_other():
    rows = [["10.00"], ["0.60"], ["10.60"]]
    apart = dict(relations(*rows, receipts=[0, 1, 2]))
    assert all(names == {"largest"} for names in apart.values())


amounts = st.integers(1, 500).map(lambda value: f"{value / 100:.2f}")


@given(st.lists(st.lists(amounts, min_size=1, max_size=4), min_size=1, max_size=12))
def test_sums_of_two_are_those_that_trying_all_pairs_finds(rows):
    found = relations(*rows)
    values = sorted({round(float(text) * 100) for text, _ in found})
    sums = {a + b for at, a in enumerate(values) for b in values[at + 1 :]}
    for text, names in found:
        assert ("sum_of_two" in names) == (round(float(text) * 100) in sums)
        largest = round(float(text) * 100) == values[-1]
        assert ("largest" in names) == largest
