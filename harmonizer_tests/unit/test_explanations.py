from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.decide.explain import (
    MOST_PIECES,
    Counts,
    Facts,
    Line,
    explain,
    reasoning,
)
from harmonizer_assets.core.score.classifier import EVIDENCE_GROUPS

EVERY_GROUP = dict.fromkeys(EVIDENCE_GROUPS, 1.0)


def facts(**known):
    basics = {
        "text": "14:05",
        "label_type": "DATE",
        "competing": "TIME",
        "no_label": False,
        "contributions": EVERY_GROUP,
        "shape": "time",
        "mask": "00:00",
    }
    return Facts(**{**basics, **known})


@pytest.mark.parametrize(
    ("known", "group", "sentence"),
    [
        (
            {"shape_share": (0.02, 0.97)},
            "text",
            "it has the form of a time, as 97% of TIME labels have and 2% of DATE labels",
        ),
        (
            {"before": "time:", "before_counts": Counts(1, 1_204)},
            "row",
            "after 'time:', words are labelled TIME 1,204 times and DATE once",
        ),
        (
            {"third": 0, "third_share": (0.1, 0.8)},
            "place",
            "it stands in the upper third of the receipt, as 80% of TIME labels do and 10% of "
            "DATE labels",
        ),
        (
            {"beside": ["TIME", "TAX"]},
            "neighbours",
            "the other labels on its row are TIME and TAX",
        ),
        ({"around": ["TIME"]}, "around", "the rows around it are labelled TIME"),
        (
            {"relations": ["largest", "sum_of_two"]},
            "arithmetic",
            "two other amounts of the receipt add up to it",
        ),
        (
            {"mask_counts": Counts(0, 2)},
            "similar_words",
            "words like '00:00' are labelled TIME twice and DATE never elsewhere",
        ),
    ],
)
def test_each_group_of_evidence_has_its_sentence(known, group, sentence):
    [piece] = explain(facts(**known))
    assert (piece.group, piece.sentence) == (group, sentence)


@pytest.mark.parametrize(
    "known",
    [
        {"shape_share": (0.9, 0.1)},
        {"before": "x", "before_counts": Counts(5, 5)},
        {"third": 1, "third_share": (0.5, 0.5)},
        {"beside": ["DATE", "TIME"]},
        {"mask_counts": Counts(3, 1)},
    ],
)
def test_facts_that_do_not_speak_against_the_label_are_not_said(known):
    assert explain(facts(**known)) == []


def test_the_most_decisive_pieces_come_first_and_are_few():
    weights = {"text": 0.5, "row": 3.0, "place": 0.05, "neighbours": 2.0, "similar_words": 1.0}
    pieces = explain(
        facts(
            contributions=weights,
            shape_share=(0.0, 1.0),
            before="time",
            before_counts=Counts(0, 3),
            third=0,
            third_share=(0.0, 1.0),
            beside=["TIME"],
            mask_counts=Counts(0, 9),
        )
    )
    assert [piece.group for piece in pieces] == ["row", "neighbours", "similar_words"]
    assert len(pieces) == MOST_PIECES


def test_labels_of_other_rows_are_said_also_where_the_own_row_agrees():
    weights = {"neighbours": -2.0, "around": 1.0}
    pieces = explain(facts(contributions=weights, beside=["DATE"], around=["TIME", "TAX"]))
    assert [piece.sentence for piece in pieces] == ["the rows around it are labelled TIME and TAX"]


def test_a_caption_is_said_to_carry_no_label():
    known = facts(text="TOTAL", no_label=True, mask="total", unlabelled=(40, 2), shape="capitals")
    said = reasoning(known, explain(known))
    assert said == (
        "'TOTAL' looks like a word that carries no label: words like 'total' carry no label "
        "40 times and one twice"
    )


def test_what_a_judge_has_said_comes_first():
    known = facts(mask_counts=Counts(0, 2))
    said = reasoning(known, explain(known), "it is a clock time")
    assert said.startswith("it is a clock time. '14:05' looks like TIME rather than DATE: ")


def test_a_line_shows_its_word_marked():
    assert Line(["TOTAL", "RM", "12.50"], 2).to_text() == "TOTAL RM [12.50]"
    assert Line(["only"], 0).to_text() == "[only]"


@given(st.lists(st.text(max_size=80), min_size=1, max_size=40), st.data())
def test_a_line_is_short_printable_and_holds_the_word(words, data):
    marked = data.draw(st.integers(0, len(words) - 1))
    line = Line(words, marked).to_text()
    assert len(line) <= 130
    assert line.isprintable()
    assert "[" in line
