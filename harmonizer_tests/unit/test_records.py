from __future__ import annotations

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.base.sql import literal, quoted
from harmonizer_assets.core.ingest.validate import STATUSES
from harmonizer_assets.core.records.label import (
    LABEL_COLUMNS,
    LABEL_KEY,
    WORD_COLUMNS,
    WORD_KEY,
    LabelKey,
    WordKey,
    label_key,
    label_keys,
    qualified,
    word_key,
    word_keys,
)
from harmonizer_assets.core.records.mask import MASK, MASK_LENGTH, mask_of
from harmonizer_assets.core.records.status import RETIRED, WEIGHTS, Status

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=100)
plain = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\0İΣ"),
    max_size=MASK_LENGTH,
)


# Statuses


def test_every_status_that_ingest_accepts_has_its_weights():
    assert set(STATUSES) == set(Status) == set(WEIGHTS) - {RETIRED}


def test_a_validated_label_is_trusted_most_and_a_rejected_one_least():
    for status in set(Status) - {Status.VALID, Status.INVALID}:
        valid, other, invalid = (WEIGHTS[each] for each in (Status.VALID, status, Status.INVALID))
        assert valid.vote > other.vote > invalid.vote
        assert valid.trust > other.trust > invalid.trust
        assert valid.odds < other.odds < invalid.odds
        assert valid.log_odds < other.log_odds < invalid.log_odds


# Keys


ROW = {"label": "DATE", "word_id": 4, "line_id": 3, "receipt_id": 2, "image_id": "i", "text": "x"}


def test_keys_name_their_columns_in_order():
    assert WORD_KEY == ("image_id", "receipt_id", "line_id", "word_id")
    assert (*WORD_KEY, "label") == LABEL_KEY
    assert WORD_COLUMNS == "image_id, receipt_id, line_id, word_id"
    assert f"{WORD_COLUMNS}, label" == LABEL_COLUMNS
    assert qualified("l", WORD_KEY) == "l.image_id, l.receipt_id, l.line_id, l.word_id"


def test_keys_are_taken_from_rows_and_tables():
    assert word_key(ROW) == WordKey("i", 2, 3, 4) == ("i", 2, 3, 4)
    assert label_key(ROW) == LabelKey("i", 2, 3, 4, "DATE")
    assert label_key(ROW).word == word_key(ROW)
    table = pa.Table.from_pylist([ROW, ROW | {"word_id": 5}])
    assert list(word_keys(table)) == [WordKey("i", 2, 3, 4), WordKey("i", 2, 3, 5)]
    assert list(label_keys(table))[1] == LabelKey("i", 2, 3, 5, "DATE")


# Masks and SQL


@settings(deadline=None)
@given(st.lists(plain, min_size=1, max_size=20))
def test_the_mask_in_sql_and_in_python_are_the_same(words):
    table = pa.table({"text": pa.array(words, pa.string())})
    with duckdb.connect() as con:
        con.register("t", table)
        masks = [mask for (mask,) in con.execute(f"SELECT {MASK} FROM t").fetchall()]
    assert masks == [mask_of(word) for word in words]


def test_amounts_are_alike_once_they_are_masked():
    assert mask_of(" RM 12.50") == mask_of("rm 99.90 ") == "rm 00.00"


@settings(deadline=None)
@given(texts)
def test_a_quoted_text_is_the_text(text):
    with duckdb.connect() as con:
        assert con.execute(f"SELECT {literal(text)}").fetchall() == [(text,)]


@settings(deadline=None)
@given(texts.filter(bool))
def test_a_quoted_name_is_the_name(name):
    with duckdb.connect() as con:
        assert con.execute(f"SELECT 1 AS {quoted(name)}").description[0][0] == name
