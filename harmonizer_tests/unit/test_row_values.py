from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.ingest.layouts import LAYOUTS
from harmonizer_assets.core.ingest.readers import make_raw_table
from harmonizer_assets.core.ingest.validate import check_rows


def checked(word_id: str | None, x: str | None) -> tuple[object, ...]:
    """Return word id and x of a row that passes, or the reason of one that does not."""
    with duckdb.connect() as con:
        for layout in LAYOUTS:
            make_raw_table(con, layout)
        con.execute(
            "INSERT INTO raw_words BY NAME SELECT 1 AS row_number, 'a' AS image_id, "
            "'1' AS receipt_id, '1' AS line_id, $1 AS word_id, 'total' AS text, $2 AS x",
            [word_id, x],
        )
        check_rows(con, ["GRAND_TOTAL"], {})
        found = con.execute(
            "SELECT word_id, x FROM checked_words UNION ALL SELECT NULL, NULL LIMIT 1"
        ).fetchone()
        reasons = con.execute("SELECT reason FROM rejected").fetchall()
    return reasons[0] if reasons else found or ()


@pytest.mark.parametrize("written", ["7", " 7 ", "+7", "007", "7.0", "7.", "\u00a07"])
def test_a_whole_number_is_an_id_however_it_is_written(written):
    assert checked(written, None) == (7, None)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("7.5", "word_id is not a whole number: 7.5"),
        ("7e1", "word_id is not a whole number: 7e1"),
        ("9223372036854775808", "word_id is not a whole number: 9223372036854775808"),
        ("-1", "word_id is negative: -1"),
        ("\u2003", "word_id is missing"),
        (None, "word_id is missing"),
    ],
)
def test_what_is_no_id_is_rejected_with_the_reason(written, reason):
    assert checked(written, None) == (reason,)


@pytest.mark.parametrize("written", ["0.5", " 0.5", "\u00a00.5\u2003", "5e-1", ".5"])
def test_a_position_is_a_number_with_any_white_space_around_it(written):
    assert checked("1", written) == (1, 0.5)


@pytest.mark.parametrize("written", ["", "  ", "NA", "n/a", " null", "None"])
def test_a_missing_position_is_written_in_several_ways(written):
    assert checked("1", written) == (1, None)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("left", "x is not a number: left"),
        ("nan", "x is not finite: nan"),
        ("2.01", "x is outside the image: 2.01 (0 to 1 expected)"),
    ],
)
def test_what_is_no_position_is_rejected_with_the_reason(written, reason):
    assert checked("1", written) == (reason,)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_every_id_that_the_column_holds_comes_through(number):
    assert checked(str(number), None) == (number, None)
