"""Texts that a spreadsheet would run, in CSV files."""

from __future__ import annotations

import re

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.base.formulas import (
    MARKER,
    NUMBER,
    REPLACEMENT,
    START,
    escaped,
    restored,
    restored_names,
    unescaped,
)

CHARACTERS = "=+-@\uff1d\uff0b'; \t\r\n|,a1.%" + '"'
texts = st.text() | st.text(CHARACTERS)


@given(texts)
def test_what_is_escaped_comes_back(text):
    assert unescaped(escaped(text)) == text


@given(texts)
def test_no_cell_starts_a_formula_whatever_separator_the_spreadsheet_uses(text):
    shown = escaped(text)
    for cell in re.split(r"[;\t\r\n]", shown):
        start = cell.lstrip(" ")[:1]
        assert start not in {*"=+-@\uff1d\uff0b\uff0d\uff20"} or re.fullmatch(NUMBER, shown)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2))
def test_amounts_stay_numbers(amount):
    assert escaped(f"{amount:f}") == f"{amount:f}"
    assert escaped(f"{amount:+,f}") == f"{amount:+,f}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(1+1)", "'@SUM(1+1)"),
        ("-1+1", "'-1+1"),
        ("-2+3+cmd|' /C calc'!A0", "'-2+3+cmd|' /C calc'!A0"),
        ("  =1", "  '=1"),
        ("x;=1", "x;'=1"),
        ("x\t=1", "x\t'=1"),
        ("'=1", "''=1"),
        ("\uff1dSUM(1)", "'\uff1dSUM(1)"),
        ("-12.50", "-12.50"),
        ("+1,234.50", "+1,234.50"),
        ("-5%", "-5%"),
        ("'quoted'", "'quoted'"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_formulas_get_an_apostrophe_and_nothing_else_does(text, shown):
    assert escaped(text) == shown


@given(st.lists(texts.filter(lambda text: "\x00" not in text), min_size=1))
def test_the_database_escapes_alike(texts):
    with duckdb.connect() as con:
        for text in texts:
            query = "SELECT regexp_replace($1, $2, $3, 'g'), regexp_full_match($1, $4)"
            found = con.execute(query, [text, START, REPLACEMENT, NUMBER]).fetchone()
            assert found is not None
            assert (text if found[1] else found[0]) == escaped(text)


def test_only_files_that_say_so_are_unescaped():
    assert restored({"text": "'=1"}) == {"text": "'=1"}
    assert restored({"text": "'=1", "'=x": "1", MARKER: "true"}) == {"text": "=1", "=x": "1"}
    assert restored_names(["text", "'=x"]) == ["text", "'=x"]
    assert restored_names(["text", "'=x", MARKER]) == ["text", "=x"]
