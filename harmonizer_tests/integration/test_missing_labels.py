"""Words that carry no label and look as if they should: found, and decided only on request."""

from __future__ import annotations

import pytest

from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.decide.missing import reasoning_of
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.measure.evaluation import evaluate
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.store.deletions import Scope
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import (
    LABEL_COLUMNS,
    Receipts,
    harmonize,
    shop_receipts,
    table,
    write_csv,
)

FORGOTTEN = (("image-0-0", "DATE"), ("image-1-2", "GRAND_TOTAL"), ("image-2-5", "TIME"))
WORD = ("image_id", "receipt_id", "line_id", "word_id")


def forgetful_receipts() -> tuple[Receipts, list[dict]]:
    """Receipts of three shops, and the labels that are left out of them."""
    receipts = shop_receipts(("Alpha Mart", "Beta Cafe", "Gamma Deli"), each=8)
    receipts.labels = [
        row
        for row in receipts.labels
        if tuple(row[name] for name in (*WORD, "label")) not in set(map(tuple, receipts.wrong))
    ]
    gone = [row for row in receipts.labels if (row["image_id"], row["label"]) in FORGOTTEN]
    receipts.labels = [row for row in receipts.labels if row not in gone]
    return receipts, gone


@pytest.fixture
def forgetful(home, tmp_path):
    """A harmonized home in which some labels are missing, and those labels."""
    receipts, gone = forgetful_receipts()

    def make(fresh):
        pipeline = Pipeline(fresh)
        receipts.submit(pipeline, tmp_path / "files")
        harmonize(pipeline)

    copy_home(home, "with missing labels", make)
    return Pipeline(home), gone


def with_settings(pipeline: Pipeline, **chosen) -> Pipeline:
    return Pipeline(pipeline.home, Settings.model_validate({"missing_labels": chosen}))


def found_in(pipeline: Pipeline) -> dict[tuple, dict]:
    return {tuple(row[name] for name in WORD): row for row in table(pipeline, "missing_labels")}


def test_forgotten_labels_are_proposed_and_words_that_never_carry_one_are_not(forgetful):
    pipeline, gone = forgetful
    found = found_in(pipeline)
    assert {tuple(row[name] for name in WORD): row["label"] for row in gone}.items() <= {
        key: row["label_type"] for key, row in found.items()
    }.items()
    texts = {row["word_text"] for row in found.values()}
    assert texts.isdisjoint({"Thank", "you", "SUBTOTAL", "TOTAL"})
    for row in found.values():
        assert 0.5 <= row["score"] <= 1
        assert f"carry {row['label_type']}" in row["reasoning"]
        assert f"[{row['word_text']}]" in row["line"]
        assert row["merchant_name"] in {"Alpha Mart", "Beta Cafe", "Gamma Deli"}


def test_missing_labels_are_decided_only_where_the_settings_say_so(forgetful):
    pipeline, _ = forgetful
    assert {row["is_missing"] for row in table(pipeline, "missing_labels")} == {None}
    deciding = with_settings(pipeline, decide=True, decide_from=0.7)
    deciding.publish("again")
    rows = table(deciding, "missing_labels")
    assert any(row["is_missing"] for row in rows)
    for row in rows:
        assert row["is_missing"] == (True if row["score"] >= 0.7 else None)


def test_a_word_that_gets_its_label_is_missing_none_any_more(forgetful, tmp_path):
    pipeline, gone = forgetful
    before = found_in(pipeline)
    arrived = tmp_path / "arrived"
    words = write_csv(arrived / "words.csv", (*WORD, "text"), [])
    labels = write_csv(arrived / "labels.csv", LABEL_COLUMNS, gone[:1])
    submit_batch(pipeline.home, words, labels)
    harmonize(pipeline)
    key = tuple(gone[0][name] for name in WORD)
    assert key in before
    assert key not in found_in(pipeline)


def test_only_merchants_that_have_changed_are_searched_again(forgetful):
    pipeline, _ = forgetful
    pipeline.warehouse.write(
        lambda con: con.execute("UPDATE missing_labels SET reasoning = 'kept'")
    )
    pipeline.warehouse.write(
        lambda con: con.execute(
            "UPDATE words SET text = 'Bye' WHERE image_id = 'image-0-1' AND text = 'you'"
        )
    )
    pipeline.publish("again")
    rows = table(pipeline, "missing_labels")
    assert {row["merchant_name"]: row["reasoning"] == "kept" for row in rows} == {
        "Alpha Mart": False,
        "Beta Cafe": True,
        "Gamma Deli": True,
    }


def test_nothing_is_searched_where_the_settings_say_so(forgetful):
    pipeline, _ = forgetful
    with_settings(pipeline, find=False).publish("again")
    assert table(pipeline, "missing_labels") == []
    assert table(pipeline, "missing_label_searches") == []


def test_what_is_deleted_is_not_proposed(forgetful):
    pipeline, _ = forgetful
    image = "image-1-2"
    assert image in {key[0] for key in found_in(pipeline)}
    pipeline.deletion.delete(Scope(image))
    harmonize(pipeline)
    assert image not in {key[0] for key in found_in(pipeline)}


def test_the_report_and_the_totals_show_missing_labels(forgetful):
    pipeline, _ = forgetful
    n = len(table(pipeline, "missing_labels"))
    assert pipeline.tables.counts().missing_labels == n > 0
    page = (pipeline.home.reports / "latest.html").read_text(encoding="utf-8")
    assert "Words without a label that look as if they should carry one" in page
    assert "[2024-03-07]" in page


def test_an_evaluation_counts_the_missing_labels_that_the_truth_names(forgetful, tmp_path):
    pipeline, gone = forgetful
    columns = (*WORD, "label", "is_error", "missing")
    rows = [{**row, "is_error": "false", "missing": "false"} for row in table(pipeline, "labels")]
    lost = [{**row, "is_error": "false", "missing": "true"} for row in gone]
    lost[0]["label"] = "TAX"
    truth = tmp_path / "truth.csv"
    picked = [{name: row[name] for name in columns} for row in (*rows, *lost)]
    found = evaluate(pipeline.warehouse, write_csv(truth, columns, picked)).missing
    assert found is not None
    listed = len(table(pipeline, "missing_labels"))
    assert (found.missing, found.found, found.listed) == (len(gone), len(gone), listed)
    assert found.recall == 1.0
    assert found.precision == pytest.approx(len(gone) / listed)
    assert found.right_type == pytest.approx(1 - 1 / len(gone))
    assert found.decided == 0


def test_few_labels_make_no_proposals(pipeline, tmp_path):
    shop_receipts(("Alpha Mart",), each=3).submit(pipeline, tmp_path)
    harmonize(pipeline)
    assert table(pipeline, "missing_labels") == []


def test_reasons_name_the_share_equal_texts_and_neighbours():
    assert reasoning_of("DATE", 0.87, ("TIME", "DATE"), 4, 3) == (
        "87% of the words that look like this one carry DATE; "
        "with the same text, 3 of 4 others; the word to the right carries it"
    )
    assert reasoning_of("DATE", 0.999, ("DATE", "DATE"), 0, 0) == (
        "more than 99% of the words that look like this one carry DATE; "
        "the words to the left and right carry it"
    )
