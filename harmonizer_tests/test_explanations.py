from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.explanations import (
    MOST_PIECES,
    Counts,
    Facts,
    Line,
    explain,
    reasoning,
)
from harmonizer_assets.core.suspicion import EVIDENCE_GROUPS
from harmonizer_tests.receipts import harmonize, shop_receipts, table

MERCHANTS = ("Alpha Mart", 'Beta "Cafe" [red]', "Gamma's | Deli", "Δelta 🛒")
EVERY_GROUP = dict.fromkeys(EVIDENCE_GROUPS, 1.0)


def facts(**known):
    basics = {
        "text": "14:05",
        "label_type": "DATE",
        "competing": "TIME",
        "no_label": False,
        "status": "PENDING",
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
        ({"around": ["TIME"]}, "neighbours", "the rows around it are labelled TIME"),
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


def test_a_caption_is_said_to_carry_no_label():
    known = facts(text="TOTAL", no_label=True, mask="total", unlabelled=(40, 2), shape="capitals")
    said = reasoning(known, explain(known))
    assert said == (
        "'TOTAL' looks like a word that carries no label: words like 'total' carry no label "
        "40 times and one twice"
    )


def test_what_a_judge_has_said_comes_first_and_a_rejected_status_last():
    known = facts(status="INVALID", mask_counts=Counts(0, 2))
    said = reasoning(known, explain(known), "it is a clock time")
    assert said.startswith("it is a clock time. '14:05' looks like TIME rather than DATE: ")
    assert said.endswith("; its status is INVALID already")


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


@pytest.fixture
def explained(harmonizer, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=8)
    receipts.submit(harmonizer, tmp_path / "files")
    harmonize(harmonizer)
    return harmonizer


def test_every_outlier_says_why_with_its_line_and_examples(explained):
    rows = table(explained, "outliers")
    assert rows
    for row in rows:
        assert row["label"] == "DATE"
        assert f"'{row['word_text']}' looks like GRAND_TOTAL rather than DATE: " in row["reasoning"]
        assert row["line"] == f"TOTAL [{row['word_text']}]"
        evidence = json.loads(row["evidence"])
        assert 1 <= len(evidence) <= MOST_PIECES
        assert {piece["group"] for piece in evidence} <= {*EVIDENCE_GROUPS}
        weights = [piece["weight"] for piece in evidence]
        assert weights == sorted(weights, reverse=True)


def test_examples_are_on_other_receipts_and_carry_what_they_stand_for(explained):
    for row in table(explained, "outliers"):
        examples = json.loads(row["examples"])
        assert [example["label"] for example in examples["for"]] == ["DATE"] * 2
        assert [example["label"] for example in examples["against"]] == ["GRAND_TOTAL"] * 2
        for example in examples["for"] + examples["against"]:
            assert example["image_id"] != row["image_id"]
            assert example["validation_status"] == "VALID"
        against = examples["against"][0]
        assert against["merchant_name"] == row["merchant_name"]
        assert against["line"].startswith("TOTAL [")


def test_the_counts_in_sentences_are_those_of_the_tables(explained):
    counted = explained.warehouse.query(
        """
        SELECT count(*) AS n FROM labels l
        JOIN word_documents USING (image_id, receipt_id, line_id, word_id)
        JOIN documents USING (document_id)
        WHERE left_context = '^ total' OR left_context LIKE '% total' OR left_context = 'total'
        """
    ).to_pylist()[0]["n"]
    totals = explained.warehouse.query(
        "SELECT count(*) AS n FROM labels WHERE label = 'GRAND_TOTAL'"
    ).to_pylist()[0]["n"]
    wrong = counted - totals
    sentences = [
        piece["sentence"]
        for row in table(explained, "outliers")
        for piece in json.loads(row["evidence"])
        if piece["group"] == "row"
    ]
    assert sentences
    for sentence in sentences:
        assert sentence == (
            f"after 'total', words are labelled GRAND_TOTAL {totals} times and DATE "
            f"{wrong - 1} times"
        )


def test_without_positions_labels_are_explained_too(harmonizer, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=8)
    for word in receipts.words:
        word.update(x="", y="", width="", height="")
    receipts.submit(harmonizer, tmp_path / "files")
    harmonize(harmonizer)
    rows = table(harmonizer, "outliers")
    assert rows
    assert all(row["line"].startswith("TOTAL [") for row in rows)


def test_explanations_are_exported(explained, tmp_path):
    explained.warehouse.export("outliers", tmp_path / "outliers.csv")
    explained.warehouse.export("outliers", tmp_path / "outliers.ndjson")
    with (tmp_path / "outliers.csv").open(newline="", encoding="utf-8") as file:
        from_csv = list(csv.DictReader(file))
    lines = (tmp_path / "outliers.ndjson").read_text(encoding="utf-8").splitlines()
    from_json = [json.loads(line) for line in lines]
    assert {row["merchant_name"] for row in from_csv} == {*MERCHANTS}
    assert [row["reasoning"] for row in from_csv] == [row["reasoning"] for row in from_json]
    assert all(json.loads(row["examples"])["for"] for row in from_csv)


def test_labels_of_a_home_without_a_model_keep_their_reason(harmonizer, tmp_path):
    shop_receipts(each=4).submit(harmonizer, tmp_path / "files")
    harmonize(harmonizer)
    for row in table(harmonizer, "outliers"):
        assert "GRAND_TOTAL" in row["reasoning"]
        assert json.loads(row["evidence"]) == []
        assert row["line"].startswith("TOTAL [")
