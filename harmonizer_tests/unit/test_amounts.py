from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.score.amounts import (
    RELATIONS,
    amount_relations,
)
from harmonizer_assets.core.score.features import shape_of
from harmonizer_assets.core.score.money import parse_amount, receipt_amounts
from harmonizer_tests.support.world_receipts import RECEIPTS, arithmetic_evidence, laid_out


@pytest.mark.parametrize(
    ("text", "thousandths"),
    [
        ("12.50", 12_500),
        ("1,234.50", 1_234_500),
        ("1.234,50", 1_234_500),
        ("1'234.50", 1_234_500),
        ("CHF 1\u2019234.50", 1_234_500),
        ("1\u202f234,50", 1_234_500),
        ("1\u2009234,50", 1_234_500),
        ("1\u00a0234,50 \u20ac", 1_234_500),
        ("1,23,456.00", 123_456_000),
        ("0,075", 75),
        ("0.125", 125),
        ("12,50", 12_500),
        ("RM12.50", 12_500),
        ("$ 12.50", 12_500),
        ("US$12.50", 12_500),
        ("Rs.12.50", 12_500),
        ("*12.50", 12_500),
        ("5,50Kč", 5_500),
        ("\u20ac3,20", 3_200),
        ("-5.00", 5_000),
        ("\u22125.00", 5_000),
        ("(5.00)", 5_000),
        ("5.00-", 5_000),
        ("12.50SR", 12_500),
        ("\uff11\uff12\uff0e\uff15\uff10", 12_500),
        ("\uff11\uff0c\uff12\uff13\uff14\uff0e\uff15\uff10", 1_234_500),
        (" 0.00 ", 0),
    ],
)
def test_amounts_are_read_however_they_are_printed(text, thousandths):
    assert parse_amount(text) == thousandths


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("\u00a51,234", 1_234),
        ("\uffe5500", 500),
        ("\uffe5\uff11\uff0c\uff12\uff13\uff14", 1_234),
        ("1,234\u5186", 1_234),
        ("\u20a91,000", 1_000),
        ("Rp12.500", 12_500),
        ("Rs.500", 500),
        ("\u20b91,23,456", 123_456),
        ("12.-", 12),
        ("12,\u2013", 12),
    ],
)
def test_whole_amounts_are_read_beside_their_currency(text, amount):
    assert parse_amount(text) == 1_000 * amount


@pytest.mark.parametrize(
    "text",
    [
        *("", "12", "12.5", "14:05", "12.505", "TOTAL", "2024-03-07", "1.2.50x9"),
        *("12.50%", "6%", "01.02", "00.50", "14.05.2024", "A4", "No.5", "ABC123", "1,234"),
        "123456789012.00",
    ],
)
def test_what_is_no_amount_is_none(text):
    assert parse_amount(text) is None


@given(
    st.integers(0, 999_999_999_99),
    st.sampled_from([(",", "."), (".", ","), ("'", "."), ("\u202f", ","), ("\u00a0", ",")]),
    st.sampled_from(
        ["{}", "${}", "RM{}", "({})", "-{}", "{}-", "*{}", "US${}", "Rs.{}", "{} \u20ac"]
    ),
)
def test_every_amount_survives_printing_and_reading(hundredths, separators, form):
    thousands, decimal = separators
    whole, cents = divmod(hundredths, 100)
    for printed in (f"{whole}", f"{whole:,}".replace(",", thousands)):
        assert parse_amount(form.format(f"{printed}{decimal}{cents:02}")) == 10 * hundredths


@given(st.lists(st.text(max_size=12), max_size=20))
def test_any_text_is_an_amount_or_not(texts):
    rows = np.arange(len(texts))
    found = receipt_amounts(np.zeros(len(texts), dtype=np.int64), rows, texts)
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


# Receipts of the world


@pytest.mark.parametrize(
    ("receipt", "amounts", "with_evidence"),
    [
        ("European", 7, 6),
        ("Swiss", 6, 6),
        ("Indian", 6, 6),
        ("Japanese", 8, 8),
        ("Indonesian", 6, 6),
    ],
)
def test_amounts_of_the_world_get_evidence_from_arithmetic(receipt, amounts, with_evidence):
    row, texts = laid_out(RECEIPTS[receipt])
    found = arithmetic_evidence(np.zeros_like(row), row, texts)
    assert found == (amounts, with_evidence)


def test_plain_numbers_are_amounts_only_where_a_receipt_prints_no_decimals():
    with_decimals = dict(relations(["Coffee", "120"], ["Tea", "130"], ["Total", "2.50"]))
    assert with_decimals["120"] == set()
    whole = dict(relations(["a", "¥120"], ["b", "130"], ["Total", "¥250"], ["Tel", "1301", "x"]))
    assert whole["130"] == {"part_of_sum"}
    assert whole["1301"] == set()


def test_percentages_and_dates_do_not_have_the_shape_of_money():
    assert [shape_of(text) for text in ("12.50", "¥1,234", "12.50%", "01.02")] == [
        *("money", "money"),
        *("percent", "time"),
    ]
