from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.index.layout import read_layout
from harmonizer_assets.core.score.features import (
    GROUPS,
    extract_features,
    group_ranges,
    neighbour_labels,
    shape_of,
)
from harmonizer_assets.core.score.pages import read_page

TYPES = ("DATE", "TIME", "TAX", "GRAND_TOTAL")


def page_of(rows, labels=(), *, positions=True, split_lines=False):
    """A page of one receipt: rows of texts, and (text, label, status) of some of them."""
    con = duckdb.connect()
    con.execute(
        "CREATE TABLE words (image_id VARCHAR, receipt_id BIGINT, line_id BIGINT, word_id BIGINT, "
        "text VARCHAR, x DOUBLE, y DOUBLE, width DOUBLE, height DOUBLE)"
    )
    con.execute(
        "CREATE TABLE labels_as_evidence (image_id VARCHAR, receipt_id BIGINT, line_id BIGINT, "
        "word_id BIGINT, label VARCHAR, validation_status VARCHAR)"
    )
    key_of = {}
    line = 0
    for number, row in enumerate(rows, start=1):
        for at, text in enumerate(row, start=1):
            line = line + 1 if split_lines else number
            box = [at / 10, number / 20, 0.05, 0.02] if positions else [None] * 4
            con.execute(
                "INSERT INTO words VALUES ('i', 1, $1, $2, $3, $4, $5, $6, $7)",
                [line, at, text, *box],
            )
            key_of[text] = (line, at)
    for text, label, status in labels:
        con.execute(
            "INSERT INTO labels_as_evidence VALUES ('i', 1, $1, $2, $3, $4)",
            [*key_of[text], label, status],
        )
    receipts = pa.table({"image_id": ["i"], "receipt_id": pa.array([1], pa.int64())})
    return con, receipts, read_page(con, receipts, TYPES)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("12.50", "money"),
        ("RM1,234.50", "money"),
        ("2024-03-07", "date"),
        ("07 Mar 2024", "date"),
        ("14:05", "time"),
        ("2:05PM", "time"),
        ("03-8076 9009", "phone"),
        ("6%", "percent"),
        ("3x", "count"),
        ("www.shop.com", "web"),
        ("A12-B", "code"),
        ("Total:", "caption"),
        ("TOTAL", "capitals"),
        ("Coffee", "word"),
        ("***", "other"),
        ("", "other"),
    ],
)
def test_texts_have_shapes(text, shape):
    assert shape_of(text) == shape


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_every_text_has_a_shape(text):
    assert shape_of(text)


def test_words_that_ocr_has_split_into_lines_are_put_on_one_row():
    con, receipts, _ = page_of([["TOTAL", "12.50"], ["Thank", "you"]], split_lines=True)
    layout = read_layout(con, receipts)
    assert layout["text"].to_pylist() == ["TOTAL", "12.50", "Thank", "you"]
    assert layout["row"].to_pylist() == [0, 0, 1, 1]


def test_without_positions_the_line_is_the_row():
    _, _, page = page_of([["TOTAL", "12.50"], ["Thank", "you"]], positions=False)
    assert page.row.tolist() == [0, 0, 1, 1]
    assert np.isnan(page.x).all()
    assert extract_features(page, np.arange(4)).shape[0] == 4


def test_a_label_is_no_feature_of_its_own_word():
    rows = [["a", "b"], ["c", "d"]]
    with_label = page_of(rows, [("b", "TAX", "VALID")])[2]
    without = page_of(rows)[2]
    changed = abs(
        extract_features(with_label, np.arange(4)) - extract_features(without, np.arange(4))
    )
    per_word = np.asarray(changed.sum(axis=1)).ravel()
    assert per_word[1] == 0
    assert (per_word[[0, 2, 3]] > 0).all()


def test_labels_of_its_own_row_are_no_feature_of_a_word_in_the_group_of_labels_around():
    rows = [["a", "b", "c"], ["d"]]

    def groups(labels):
        features = extract_features(page_of(rows, labels)[2], np.array([1])).toarray()[0]
        ranges = group_ranges(len(TYPES))
        return {name: features[slice(*ranges[name])] for name in ("neighbours", "around")}

    nothing, on_row = groups([]), groups([("a", "TAX", "VALID"), ("c", "TAX", "VALID")])
    off_row = groups([("d", "TAX", "VALID")])
    assert (on_row["around"] == nothing["around"]).all()
    assert (on_row["neighbours"] != nothing["neighbours"]).any()
    assert (off_row["neighbours"] == nothing["neighbours"]).all()
    assert (off_row["around"] != nothing["around"]).any()


def test_neighbours_count_by_side_row_and_trust():
    page = page_of(
        [["a", "b", "c"], ["d", "e", "f"]],
        [
            ("a", "DATE", "VALID"),
            ("c", "TIME", "PENDING"),
            ("e", "TAX", "INVALID"),
            ("d", "TAX", "VALID"),
        ],
    )[2]
    found = neighbour_labels(page, np.array([1])).toarray().reshape(6, len(TYPES))
    left, right, row, above, below, receipt = found
    assert left.tolist() == [1, 0, 0, 0]
    assert right.tolist() == [0, 0.25, 0, 0]
    assert row.tolist() == [0, 0, 0, 0]
    assert above.tolist() == [0, 0, 0, 0]
    assert below.tolist() == [0, 0, 1, 0]
    assert receipt.tolist() == pytest.approx([0, 0, np.log(2), 0])


def test_every_group_has_its_own_columns_and_can_be_left_out():
    page = page_of(
        [["Subtotal", "10.00"], ["Tax", "0.60"], ["Total", "10.60"]],
        [("10.00", "TAX", "VALID"), ("0.60", "TAX", "VALID")],
    )[2]
    words = np.arange(page.n_words)
    whole = extract_features(page, words)
    for group, (start, end) in group_ranges(len(TYPES)).items():
        assert whole[:, start:end].nnz > 0, group
        left_out = extract_features(page, words, without=(group,))
        assert left_out.shape == whole.shape
        assert left_out[:, start:end].nnz == 0
        kept = np.r_[0:start, end : whole.shape[1]]
        assert (left_out[:, kept] != whole[:, kept]).nnz == 0
    assert tuple(group_ranges(len(TYPES))) == GROUPS


def test_the_caption_on_the_row_is_a_feature_and_its_digits_are_not():
    rows = [["Date", "2024-03-07"], ["Date", "2023-11-30"], ["Tel", "2024-03-08"]]
    page = page_of(rows)[2]
    start, end = group_ranges(len(TYPES))["row"]
    row = extract_features(page, np.array([1, 3, 5]))[:, start:end].toarray()
    assert np.abs(row[0] - row[2]).sum() > np.abs(row[0] - row[1]).sum()


texts = st.lists(
    st.lists(
        st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=8),
        min_size=1,
        max_size=5,
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(texts, st.booleans())
def test_any_texts_give_finite_features_and_the_same_ones_again(rows, positions):
    rows = [[text.replace("\x00", "") or "-" for text in row] for row in rows]
    page = page_of(rows, positions=positions)[2]
    words = np.arange(page.n_words)
    first = extract_features(page, words)
    assert np.isfinite(first.data).all()
    assert (first != extract_features(page, words)).nnz == 0
    # A word's features do not depend on which other words are asked about.
    assert (first[-1] != extract_features(page, words[-1:])[0]).nnz == 0
