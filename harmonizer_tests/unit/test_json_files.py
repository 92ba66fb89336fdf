"""JSON of others, which may be larger than memory and nested deeper than is safe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.files import MAX_DEPTH, json_array
from harmonizer_assets.core.importers.json_text import replaced

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('[]{}"\\,:'))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


@given(st.lists(VALUES, max_size=5))
def test_values_of_an_array_come_as_they_are(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "array.json"
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    assert list(json_array(path)) == values


@pytest.mark.parametrize("padding", [0, 65_530, 65_535, 65_536, 131_071])
@pytest.mark.parametrize("text", ['"]]]]]]"', '"\\"]]]"', '"\\\\"', '"[[["'])
def test_no_text_hides_how_deeply_a_file_is_nested(tmp_path, padding, text):
    path = tmp_path / "deep.json"
    around = "[" + " " * padding + (text + ",") * 200
    path.write_text(around + "[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1) + "]")
    assert len(list(json_array(path))) == 201
    path.write_text(around + "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH + "]")
    with pytest.raises(InputError, match="nested too deeply"):
        list(json_array(path))


def paths_of(value: object, path: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for name, one in inner if isinstance(value, dict | list) else ():
        found.append((*path, name))
        found += paths_of(one, (*path, name)) if isinstance(one, dict | list) else []
    return found


@given(VALUES, st.integers(0, 3), st.data())
def test_a_value_is_replaced_and_nothing_else(value, indent, data):
    if not isinstance(value, dict | list) or not value:
        return
    text = json.dumps(value, indent=indent or None, ensure_ascii=False)
    path = data.draw(st.sampled_from(paths_of(value)))
    changed = json.loads(replaced(text, {path: "NEW"}))
    inner, wanted = changed, value
    for part in path[:-1]:
        inner, wanted = inner[part], wanted[part]
    assert inner[path[-1]] == "NEW"
    inner[path[-1]] = wanted[path[-1]]
    assert changed == value


def test_nothing_is_changed_where_nothing_is_to_be(tmp_path: Path):
    text = ' { "a" :\t[ 1.50 , "\\u00e4" ] }\n'
    assert replaced(text, {}) == text
