"""What a reviewer is shown around a label, and what the queue says of it."""

from __future__ import annotations

import pytest

from harmonizer_assets.core.records.box import Box
from harmonizer_assets.core.review.answers import Answer
from harmonizer_assets.core.review.queue import ReviewFilter
from harmonizer_tests.support.review_homes import MIXED, SCRIPT, keys, queue, review_home


@pytest.fixture
def pipeline(home):
    return review_home(home)


def test_the_receipt_is_shown_in_rows_with_the_word_marked(pipeline):
    key = keys(queue(pipeline, label="TIME"))[0]
    context = pipeline.review.context(key)
    rows = [[word.text for word in row] for row in context.rows]
    assert rows[3:] == [
        ["Coffee", "3.50"],
        ["Sandwich", "9.00"],
        ["SUBTOTAL", "16.50"],
        ["TOTAL", "16.50"],
        [SCRIPT, MIXED],
    ]
    assert [word.is_marked for word in context.rows[6]] == [False, True]
    assert [word.labels for word in context.rows[5]] == [(), ["SUBTOTAL"]]
    assert context.box == Box(pytest.approx(0.6), 0.7, 0.1, 0.03)
    assert context.image_uri is None


def test_all_labels_of_the_word_are_shown_and_rejected_ones_only_there(pipeline):
    key = keys(queue(pipeline, label="TIME"))[0]
    pipeline.review.answer(key, "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    pipeline.apply("ann", commit=True)
    context = pipeline.review.context(key)
    assert {row["label"]: row["validation_status"] for row in context.labels} == {
        "GRAND_TOTAL": "VALID",
        "TIME": "INVALID",
    }
    assert [word.labels for word in context.rows[6]] == [(), ["GRAND_TOTAL"]]


def test_a_word_without_a_position_has_no_box_and_one_that_is_gone_no_context(pipeline):
    key = keys(queue(pipeline, label="TIME"))[0]
    pipeline.warehouse.write(lambda con: con.execute("UPDATE words SET x = NULL"))
    assert pipeline.review.context(key).box is None
    assert pipeline.review.context(key._replace(word_id=99)) is None


def test_a_label_that_nobody_doubts_has_no_grounds(pipeline):
    key = keys(queue(pipeline, label="TIME"))[0]
    assert pipeline.review.grounds(key).pieces
    assert set(pipeline.review.grounds(key).examples) == {"for", "against"}
    assert pipeline.review.grounds(key._replace(label="DATE")).pieces == ()


def test_one_label_is_read_as_the_list_has_it_also_when_it_is_answered(pipeline):
    [listed] = pipeline.review.items("ann", ReviewFilter(label_type="TIME"))
    key = keys([listed])[0]
    assert pipeline.review.item("ann", key) == listed
    pipeline.review.answer(key, "ann", Answer.SKIP)
    fewer = {name: listed[name] - 1 for name in ("n_open", "n_listed")}
    assert pipeline.review.item("ann", key) == {**listed, **fewer}
    assert pipeline.review.item("ann", key._replace(label="TAX")) is None


def test_the_next_item_is_the_first_of_the_list_with_the_progress(pipeline):
    review, first = pipeline.review, keys(queue(pipeline, label="TIME"))[0]
    review.answer(first, "bob", Answer.RIGHT)
    review.answer(first, "eve", Answer.WRONG)
    for chosen in (None, ReviewFilter(label_type="TIME"), ReviewFilter(action="move")):
        [listed] = review.items("ann", chosen, limit=1)
        assert review.next("ann", chosen) == (listed, review.progress("ann", chosen))
    for _ in queue(pipeline):
        [listed] = review.items("ann", limit=1)
        assert review.next("ann") == (listed, review.progress("ann"))
        review.answer(keys([listed])[0], "ann", Answer.SKIP)
    assert review.next("ann") == (None, review.progress("ann"))
    assert review.progress("ann").open == 0


def test_the_opinions_about_a_label_are_the_last_of_each_person(pipeline):
    first, second, _ = keys(queue(pipeline, label="TIME"))
    for name, verdict in (("bob", "right"), ("eve", "wrong"), ("bob", "wrong"), ("ann", "skip")):
        pipeline.review.answer(first, name, Answer(verdict))
    pipeline.review.answer(second, "ann", Answer.RIGHT)
    said = [(row["reviewer"], row["verdict"]) for row in pipeline.review.opinions(first)]
    assert said == [("eve", "wrong"), ("bob", "wrong")]


def test_open_labels_are_counted_by_what_they_can_be_filtered_by(pipeline):
    def counted():
        return {
            row["label_type"] or row["merchant_name"] or row["action"]: row["n"]
            for row in pipeline.review.counts("ann")
        }

    counts = counted()
    # The three of the blind sample are not counted by what is proposed for them.
    assert (counts["TIME"], counts["DATE"], counts["move"]) == (3, 3, 3)
    assert {counts[row["merchant_name"]] for row in queue(pipeline)} == {2}
    pipeline.review.answer(keys(queue(pipeline, label="TIME"))[0], "ann", Answer.SKIP)
    assert counted()["TIME"] == 2


def test_a_filter_by_action_or_kind_leaves_the_blind_sample_out(pipeline):
    [kind] = {row["kind_id"] for row in queue(pipeline, label="DATE")}
    shown = pipeline.review.items("ann", ReviewFilter(action="move"))
    assert {row["label"] for row in shown} == {"TIME"}
    assert pipeline.review.items("ann", ReviewFilter(kind_id=kind)) == []
    assert pipeline.review.progress("ann", ReviewFilter(action="move")).open == 3
