from __future__ import annotations

import sys
from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.base.sql import text_list, texts_in

TEXTS = f"SELECT value FROM {texts_in('$1')}"
"""What is bound to it comes back."""


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        yield con


@given(texts=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_a_list_of_texts_arrives_as_it_is(con, texts):
    assert [text for (text,) in con.execute(TEXTS, [text_list(texts)]).fetchall()] == texts


class Lookups:
    """A finder that finds nothing and remembers what was looked for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name, path=None, target=None):
        self.names.append(name)


def test_no_module_is_looked_for_at_every_text(monkeypatch):
    lookups = Lookups()
    monkeypatch.setattr(sys, "meta_path", [lookups, *sys.meta_path])
    with duckdb.connect() as con:
        con.execute(TEXTS, [text_list(map(str, range(1_000)))]).fetchall()
    assert len(lookups.names) < 100
