from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.judge.llm.wire.answers import REASONS, MalformedAnswerError
from harmonizer_assets.core.judge.llm.wire.prompt import canonical
from harmonizer_tests.support.asks import TAXONOMY, answers

ANSWERS = answers()
OTHERS = tuple(name for name in TAXONOMY.names if name != "DATE")

texts = st.text(max_size=40)


def entry(item_id: str, verdict: str = "ok", label: str | None = None, why: str | None = None):
    return {"id": item_id, "v": verdict, "label": label, "why": why}


def parse(entries: Any, ids: list[str], by=ANSWERS):
    return by.parse(json.dumps({"verdicts": entries}), ids, "DATE")


ids_of_a_call = st.integers(1, 50).map(lambda n: [str(number) for number in range(1, n + 1)])
valid_parts = st.one_of(
    st.tuples(st.just("ok"), st.none(), st.none()),
    st.tuples(
        st.just("outlier"),
        st.one_of(st.none(), st.sampled_from(TAXONOMY.names)),
        st.one_of(st.none(), st.sampled_from(list(REASONS))),
    ),
)


@given(st.data(), ids_of_a_call, st.randoms())
def test_every_valid_entry_is_taken_whatever_the_order(data, ids, rng):
    parts = {one: data.draw(valid_parts) for one in ids}
    entries = [entry(one, *parts[one]) for one in ids]
    rng.shuffle(entries)
    parsed = parse(entries, ids)
    assert parsed.rejected == {}
    assert set(parsed.entries) == set(ids)
    for one, (verdict, label, why) in parts.items():
        found = parsed.entries[one]
        assert found.is_outlier == (verdict == "outlier")
        # To call a label wrong and to suggest the same one is no suggestion.
        assert found.suggested_label == (None if label == "DATE" else label)
        assert found.reasoning == (REASONS[why] if why else None)


BAD_ENTRIES: dict[str, Any] = {
    "no verdict": {"id": "2", "label": None, "why": None},
    "another verdict": entry("2", "maybe"),
    "a boolean": {**entry("2"), "v": True},
    "a list": {**entry("2"), "v": ["ok"]},
    "a label outside the taxonomy": entry("2", "outlier", "NONSENSE"),
    "a label that is a number": {**entry("2", "outlier"), "label": 7},
    "a label that is an object": {**entry("2", "outlier"), "label": {"DATE": 1}},
    "a reason outside the codes": entry("2", "outlier", "TIME", "because"),
    "a reason that is a list": {**entry("2", "outlier"), "why": ["format"]},
    "an id that is a number": {**entry("2"), "id": 2},
    "an id with a space": entry(" 2"),
    "no id": {"v": "ok", "label": None, "why": None},
    "an id that nobody asked": entry("77"),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_a_bad_entry_is_rejected_and_the_others_are_kept(name):
    parsed = parse([entry("1"), BAD_ENTRIES[name], entry("3")], ["1", "2", "3"])
    assert set(parsed.entries) == {"1", "3"}
    assert set(parsed.rejected) == {"2"}
    assert "word" in parsed.rejected["2"]


def test_a_missing_and_a_doubled_id_are_rejected_with_the_number_of_their_entries():
    parsed = parse([entry("1"), entry("1", "outlier"), entry("2")], ["1", "2", "3"])
    assert set(parsed.entries) == {"2"}
    assert "2 entries" in parsed.rejected["1"]
    assert "no entry" in parsed.rejected["3"]


@given(st.data(), ids_of_a_call)
def test_each_word_is_either_answered_or_rejected(data, ids):
    some_ids = st.one_of(st.sampled_from(ids), st.integers(), texts, st.none())
    anything = st.one_of(st.none(), st.booleans(), st.integers(), texts, st.sampled_from(OTHERS))
    entries = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {"id": some_ids},
                optional={
                    "v": st.one_of(st.sampled_from(["ok", "outlier"]), anything),
                    "label": anything,
                    "why": st.one_of(st.sampled_from(list(REASONS)), anything),
                },
            ),
            max_size=60,
        )
    )
    parsed = parse(entries, ids)
    assert set(parsed.entries) | set(parsed.rejected) == set(ids)
    assert not set(parsed.entries) & set(parsed.rejected)
    for one, found in parsed.entries.items():
        [given_entry] = [made for made in entries if made["id"] == one]
        assert given_entry["v"] in ("ok", "outlier")
        assert found.suggested_label in (None, *TAXONOMY.names)


MALFORMED = (
    "",
    "ok",
    "null",
    "7",
    "[]",
    "{}",
    '"verdicts"',
    '{"verdicts":null}',
    '{"verdicts":{}}',
    '{"verdicts":["ok"]}',
    '{"verdicts":[[]]}',
    '{"verdicts":[{"id":"1","v":"o',
    "```json\n{}\n```",
    '{"verdicts":[]} or {"verdicts":[]}',
    '{"answer":{"verdicts":[]}}',
    '{"verdicts":' + "9" * 10_000 + "}",
    "[" * 100_000,
    '{"verdicts":' * 100_000,
)


WRAPPED = (
    "```json\n{}\n```",
    "```\n{}```",
    "Here are the verdicts: {}",
    "{} I hope that this helps.",
    '<think>They ask for {{"id": "1"}} and "v".</think>\n\n{}',
    "The answer, as {{asked}}:\n{}\n",
)


@pytest.mark.parametrize("around", WRAPPED)
def test_the_one_object_in_a_text_is_the_answer(around):
    content = around.format(json.dumps({"verdicts": [entry("1", "outlier", "TIME")]}))
    assert ANSWERS.parse(content, ["1"], "DATE").entries["1"].suggested_label == "TIME"


@pytest.mark.parametrize("around", WRAPPED)
def test_an_object_in_a_text_is_checked_as_strictly_as_one_alone(around):
    content = around.format(json.dumps({"verdicts": [entry("1", "maybe"), entry("2")]}))
    parsed = ANSWERS.parse(content, ["1", "2"], "DATE")
    assert set(parsed.rejected) == {"1"}


@pytest.mark.parametrize("content", MALFORMED, ids=lambda content: repr(content[:20]))
def test_an_answer_that_is_no_list_of_entries_is_malformed(content):
    with pytest.raises(MalformedAnswerError):
        ANSWERS.parse(content, ["1"], "DATE")


@given(st.text())
def test_any_text_is_an_answer_or_malformed(content):
    try:
        parsed = ANSWERS.parse(content, ["1"], "DATE")
    except MalformedAnswerError:
        return
    assert set(parsed.entries) | set(parsed.rejected) == {"1"}


def test_a_reason_in_the_models_own_words_is_clipped_and_can_be_stored():
    own = answers(explanations="text")
    parsed = parse([entry("1", "outlier", "TIME", "w" * 9_999)], ["1"], own)
    assert len(parsed.entries["1"].reasoning or "") == 500
    content = '{"verdicts":[{"id":"1","v":"outlier","label":null,"why":"half a pair: \\ud800"}]}'
    reasoning = own.parse(content, ["1"], "DATE").entries["1"].reasoning
    assert reasoning == "half a pair: ?"


def test_an_entry_is_short_for_every_answer_pays_for_it():
    assert len(canonical(entry("50"))) <= 60
    longest = max(TAXONOMY.names, key=len)
    for why in REASONS:
        assert len(canonical(entry("50", "outlier", longest, why))) <= 80
