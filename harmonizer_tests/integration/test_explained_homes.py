from __future__ import annotations

import csv
import json

import pytest

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.decide.explain import MOST_PIECES
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.score.classifier import EVIDENCE_GROUPS
from harmonizer_assets.core.store import export_table
from harmonizer_tests.support.receipts import harmonize, shop_receipts, table

MERCHANTS = ("Alpha Mart", 'Beta "Cafe" [red]', "Gamma's | Deli", "Δelta 🛒")


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    pipeline = Pipeline(Home(folder / "home").ensure())
    shop_receipts(MERCHANTS, each=8).submit(pipeline, folder / "files")
    harmonize(pipeline)
    return pipeline


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


def test_without_positions_labels_are_explained_too(pipeline, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=8)
    for word in receipts.words:
        word.update(x="", y="", width="", height="")
    receipts.submit(pipeline, tmp_path / "files")
    harmonize(pipeline)
    rows = table(pipeline, "outliers")
    assert rows
    assert all(row["line"].startswith("TOTAL [") for row in rows)


def test_explanations_are_exported(explained, tmp_path):
    export_table(explained.warehouse, "outliers", tmp_path / "outliers.csv")
    export_table(explained.warehouse, "outliers", tmp_path / "outliers.ndjson")
    with (tmp_path / "outliers.csv").open(newline="", encoding="utf-8") as file:
        from_csv = list(csv.DictReader(file))
    lines = (tmp_path / "outliers.ndjson").read_text(encoding="utf-8").splitlines()
    from_json = [json.loads(line) for line in lines]
    assert {row["merchant_name"] for row in from_csv} == {*MERCHANTS}
    assert [row["reasoning"] for row in from_csv] == [row["reasoning"] for row in from_json]
    assert all(json.loads(row["examples"])["for"] for row in from_csv)


def test_labels_of_a_home_without_a_model_keep_their_reason(pipeline, tmp_path):
    shop_receipts(each=4).submit(pipeline, tmp_path / "files")
    harmonize(pipeline)
    for row in table(pipeline, "outliers"):
        assert "GRAND_TOTAL" in row["reasoning"]
        assert json.loads(row["evidence"]) == []
        assert row["line"].startswith("TOTAL [")
