"""Certainty is stated only where there is evidence; else a label is unresolved, with the reason."""

from __future__ import annotations

import pytest

from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.score.fitting import MIN_LABELS
from harmonizer_assets.core.score.registry import NO_MODEL
from harmonizer_assets.core.score.unknown import (
    NEW_TYPE,
    NO_SIMILAR_WORD,
    NO_WITNESS,
    NO_WORD,
    ONE_TYPE,
)
from harmonizer_assets.web.metadata import model_metadata
from harmonizer_tests.support.receipts import Receipts, harmonize, shop_receipts, table

ALL_WRONG = (
    *("TAX", "DATE", "DATE", "DATE", "PRODUCT_NAME", "PRODUCT_NAME"),
    *("PHONE_NUMBER", "TIME", "PHONE_NUMBER", "TIME", "ADDRESS_LINE", "ADDRESS_LINE"),
)
"""A wrong type for each of the twelve labels of `Receipts.add_receipt`."""


def labelled(*words, status="PENDING"):
    """One receipt of text and label, a word to a line."""
    receipts = Receipts()
    for line_id, (text, label) in enumerate(words, start=1):
        key = {"image_id": "image", "receipt_id": 1, "line_id": line_id, "word_id": 1}
        place = {"x": 0.1, "y": line_id / 20, "width": 0.1, "height": 0.03}
        receipts.words.append({**key, "text": text, **place})
        receipts.labels.append(
            {**key, "label": label, "validation_status": status, "merchant_name": "Alpha Mart"}
        )
    return receipts


def relabelled(receipts, types, status=None):
    for number, label in enumerate(receipts.labels):
        label["label"] = types[number % len(types)]
        label["validation_status"] = status or label["validation_status"]
    return receipts


def receipts_of(count, merchant, status="PENDING"):
    receipts = Receipts()
    for number in range(count):
        receipts.add_receipt(f"{merchant}-{number}", merchant, status=status)
    return receipts


def together(*parts):
    whole = Receipts()
    for part in parts:
        whole.words += part.words
        whole.labels += part.labels
        whole.wrong += part.wrong
    return whole


def decided(pipeline, tmp_path, receipts):
    receipts.submit(pipeline, tmp_path / "files")
    harmonize(pipeline)
    return table(pipeline, "label_decisions")


def assert_unresolved(rows, reason):
    assert rows
    assert {(row["is_outlier"], row["decided_by"]) for row in rows} == {(None, "unresolved")}
    assert {row["confidence"] for row in rows} == {None}
    assert {row["outlier_score"] for row in rows} == {0.5}
    assert {row["reasoning"] for row in rows} == {reason}
    assert {row["suggested_label"] for row in rows} == {None}


def test_one_label_alone_is_unresolved(pipeline, tmp_path):
    rows = decided(pipeline, tmp_path, labelled(("Monday", "GRAND_TOTAL")))
    assert_unresolved(rows, NO_SIMILAR_WORD)
    assert [row["reasoning"] for row in table(pipeline, "outliers")] == [NO_SIMILAR_WORD]


def test_labels_that_nobody_has_validated_do_not_make_each_other_right(pipeline, tmp_path):
    words = [("Monday", "GRAND_TOTAL"), ("banana", "GRAND_TOTAL")] * 3
    assert_unresolved(decided(pipeline, tmp_path, labelled(*words)), NO_WITNESS)


def test_a_merchant_whose_labels_are_all_wrong_in_the_same_way_is_unresolved(pipeline, tmp_path):
    receipts = relabelled(receipts_of(3, "Wrong"), ALL_WRONG)
    assert_unresolved(decided(pipeline, tmp_path, receipts), NO_WITNESS)


def test_of_two_labels_that_contradict_each_other_none_is_known_to_be_wrong(pipeline, tmp_path):
    rows = decided(pipeline, tmp_path, labelled(("14:05", "DATE"), ("14:05", "TIME")))
    assert_unresolved(rows, NO_WITNESS)


def test_a_clear_majority_outvotes_the_one_that_differs_and_stays_unresolved(pipeline, tmp_path):
    receipts = receipts_of(6, "Alpha")
    [different] = [
        label
        for label in receipts.labels
        if (label["image_id"], label["label"]) == ("Alpha-0", "TIME")
    ]
    different["label"] = "DISCOUNT"
    rows = decided(pipeline, tmp_path, receipts)
    assert [row["label"] for row in rows if row["is_outlier"]] == ["DISCOUNT"]
    assert_unresolved([row for row in rows if not row["is_outlier"]], NO_WITNESS)


def test_validated_labels_tell_right_from_wrong_on_similar_words(pipeline, tmp_path):
    known = receipts_of(2, "Alpha", status="VALID")
    new = receipts_of(1, "Beta")
    new.labels[4]["label"] = "TAX"
    rows = decided(pipeline, tmp_path, together(known, new))
    beta = {
        (row["word_text"], row["label"]): row["is_outlier"]
        for row in rows
        if row["merchant_name"] == "Beta"
    }
    assert beta.pop(("2024-03-07", "TAX")) is True
    assert True not in beta.values()
    assert list(beta.values()).count(False) >= 6


def test_a_validated_label_alone_is_valid_because_a_person_said_so(pipeline, tmp_path):
    [row] = decided(pipeline, tmp_path, labelled(("Monday", "GRAND_TOTAL"), status="VALID"))
    assert row["is_outlier"] is False
    assert row["confidence"] == pytest.approx(0.99, abs=0.01)


def test_the_classic_rule_rejects_no_label_that_has_nothing_to_compare_with(home, tmp_path):
    classic = Settings.model_validate({"similarity": {"scorer": "count_rule"}})
    rows = decided(Pipeline(home, classic), tmp_path, labelled(("Monday", "GRAND_TOTAL")))
    assert_unresolved(rows, NO_SIMILAR_WORD)


def test_a_label_whose_word_has_not_arrived_is_unresolved(pipeline, tmp_path):
    receipts = labelled(("Monday", "GRAND_TOTAL"))
    receipts.words.clear()
    assert_unresolved(decided(pipeline, tmp_path, receipts), NO_WORD)


def test_any_number_of_labels_without_a_word_are_unresolved(pipeline, tmp_path):
    receipts = receipts_of(MIN_LABELS // 12 + 1, "Alpha")
    receipts.words = receipts.words[:1]
    rows = decided(pipeline, tmp_path, receipts)
    assert len(rows) > MIN_LABELS
    assert_unresolved([row for row in rows if row["word_text"] is None], NO_WORD)
    assert pipeline.score.in_force() == (NO_MODEL, None)


# With enough labels for a model


def test_a_model_that_has_seen_one_label_type_only_knows_nothing(pipeline, tmp_path):
    receipts = relabelled(receipts_of(18, "Alpha"), ["GRAND_TOTAL"])
    rows = decided(pipeline, tmp_path, receipts)
    assert pipeline.registry.version() != NO_MODEL
    assert_unresolved(rows, ONE_TYPE)
    assert {row["evidence"] for row in table(pipeline, "outliers")} == {"[]"}


def test_one_label_type_is_told_from_words_without_one_where_the_taxonomy_has_no_other(
    home, tmp_path
):
    (home.root / "taxonomy.yaml").write_text("label_types:\n  PRICE: an amount of money\n")
    pipeline = Pipeline(home)
    receipts = receipts_of(60, "Alpha")
    receipts.labels = [
        label | {"label": "PRICE"}
        for label in receipts.labels
        if label["label"] in {"LINE_TOTAL", "SUBTOTAL", "GRAND_TOTAL"}
    ]
    decided(pipeline, tmp_path, receipts)
    assert pipeline.tables.counts().valid == len(receipts.labels)


def test_a_label_type_that_no_other_receipt_has_is_not_wrong_for_being_new(pipeline, tmp_path):
    receipts = shop_receipts(("Alpha Mart", "Beta Cafe", "Gamma", "Delta"), each=8)
    new = labelled(("*~*~*", "COUPON"), ("*~*~*~*", "COUPON"))
    rows = decided(pipeline, tmp_path, together(receipts, new))
    assert_unresolved([row for row in rows if row["label"] == "COUPON"], NEW_TYPE)


def test_a_merchant_whose_labels_are_all_wrong_is_found_by_those_of_others(pipeline, tmp_path):
    others = relabelled(
        receipts_of(18, "Alpha"), [label["label"] for label in receipts_of(1, "x").labels]
    )
    wrong = relabelled(receipts_of(1, "Wrong"), ALL_WRONG)
    rows = decided(pipeline, tmp_path, together(others, wrong))
    found = [row["is_outlier"] for row in rows if row["merchant_name"] == "Wrong"]
    assert False not in found
    assert found.count(True) >= 9


# What the run says


def test_a_run_with_too_few_labels_for_a_model_says_so(pipeline, tmp_path):
    decided(pipeline, tmp_path, labelled(("Monday", "GRAND_TOTAL")))
    why = pipeline.score.guarantee()
    assert why == (
        "no guarantee: too few labels to fit a model on (1, and 200 are needed), so that similar "
        "words alone decide"
    )
    assert model_metadata(pipeline, NO_MODEL)["reason"] == why
    assert why in pipeline.publication.write_report().read_text(encoding="utf-8")


def test_what_nothing_is_known_about_is_for_a_person_unless_its_question_failed(pipeline, tmp_path):
    decided(pipeline, tmp_path, labelled(("banana", "GRAND_TOTAL")))
    assert [row["action"] for row in table(pipeline, "proposals")] == ["ask"]
    pipeline.warehouse.write(
        lambda con: con.execute("UPDATE judgements SET reasoning = 'not judged: no more money'")
    )
    assert table(pipeline, "proposals") == []
