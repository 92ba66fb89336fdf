"""Corrections change labels as a whole, are on record, and can be taken back and made again."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from harmonizer_assets.core.apply import rows
from harmonizer_assets.core.apply.apply import Brake
from harmonizer_assets.core.apply.history import label_history, operations
from harmonizer_assets.core.apply.undo import Selection, redo, undo
from harmonizer_assets.core.base.errors import InputError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import label_key
from harmonizer_assets.core.records.reports import BatchReport
from harmonizer_assets.core.store.deletions import Scope
from harmonizer_assets.core.store.export import export_table
from harmonizer_tests.support.corrections import applied, correction, label, labels
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import harmonize, shop_receipts, table


@pytest.fixture
def pipeline(home) -> Pipeline:
    """Two receipts of each of two shops, ingested; all labels but two are VALID."""
    return ingested(home)


def ingested(home: Home) -> Pipeline:
    def make(fresh: Home) -> None:
        pipeline = Pipeline(fresh)
        shop_receipts(each=2).submit(pipeline, fresh.scratch / "first")
        pipeline.ingest()

    copy_home(home, "two receipts of two shops, ingested", make)
    return Pipeline(home)


@pytest.fixture
def wrong(pipeline):
    """A total that is labelled DATE, and PENDING."""
    return next(row for row in labels(pipeline) if row["validation_status"] == "PENDING")


@pytest.fixture
def right(pipeline):
    """Labels of other receipts, all VALID."""
    return [row for row in labels(pipeline) if row["image_id"] == "image-0-0"]


def send(
    pipeline: Pipeline, folder: Path, row: dict[str, Any], age: dt.timedelta | None = None
) -> BatchReport:
    """Ingest one label, with the words of all; by default as a batch of now."""
    receipts = shop_receipts(each=2)
    receipts.labels = [{name: row[name] for name in receipts.labels[0]}]
    words, sent = receipts.write(folder)
    time = None if age is None else dt.datetime.now(dt.UTC) - age
    submit_batch(pipeline.home, words, sent, time=time)
    [report] = pipeline.ingest().batches
    return report


def test_a_moved_label_is_retired_and_the_right_one_takes_its_place(pipeline, wrong):
    report = applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    assert report.actions == {"move": 1}
    old = label(pipeline, label_key(wrong))
    new = label(pipeline, label_key(wrong)._replace(label="GRAND_TOTAL"))
    assert old == {
        **wrong,
        "validation_status": "INVALID",
        "batch_id": report.operation_id,
        "batch_time": old["batch_time"],
    }
    assert (new["validation_status"], new["merchant_name"], new["merchant_key"]) == (
        "VALID",
        wrong["merchant_name"],
        wrong["merchant_key"],
    )
    assert json.loads(new["extra"]) == {
        "label_proposed_by": "ann",
        "label_consolidated_from": "DATE",
        "reasoning": "it's wrong",
        "timestamp_added": new["batch_time"].isoformat(),
    }


def test_a_label_without_a_person_stays_pending_so_that_no_model_learns_from_itself(
    pipeline, wrong
):
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL", source="policy", actor="certain"))
    new = label(pipeline, label_key(wrong)._replace(label="GRAND_TOTAL"))
    assert new["validation_status"] == "PENDING"


@pytest.mark.parametrize(
    ("action", "status"),
    [("mark_invalid", "INVALID"), ("confirm", "VALID"), ("ask", "NEEDS_REVIEW")],
)
def test_other_actions_change_the_status_alone(pipeline, wrong, action, status):
    before = labels(pipeline)
    applied(pipeline, correction(wrong, action))
    assert label(pipeline, label_key(wrong))["validation_status"] == status
    assert len(labels(pipeline)) == len(before)


def test_a_dry_run_reports_the_same_and_changes_nothing(pipeline, wrong):
    before = labels(pipeline)
    dry = applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"), commit=False)
    assert labels(pipeline) == before
    assert table(pipeline, "label_operations") == []
    done = applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    assert (dry.actions, dry.partitions) == (done.actions, done.partitions)
    assert dry.operation_id == ""
    assert done.operation_id.startswith("apply-")


def test_what_is_applied_twice_is_done_once(pipeline, wrong):
    wanted = correction(wrong, "move", "GRAND_TOTAL")
    applied(pipeline, wanted)
    after = labels(pipeline)
    again = applied(pipeline, wanted)
    assert (again.corrections, again.refused, again.unchanged) == ([], [], 1)
    assert labels(pipeline) == after
    assert len(table(pipeline, "label_operations")) == 1


def test_a_label_that_has_changed_since_is_refused_and_listed(pipeline, wrong, tmp_path):
    wanted = correction(wrong, "move", "GRAND_TOTAL")
    send(pipeline, tmp_path / "second", {**wrong, "validation_status": "NEEDS_REVIEW"})
    before = labels(pipeline)
    report = applied(pipeline, wanted)
    assert [one.reason for one in report.refused] == [
        "the label has changed since it was decided on: it is NEEDS_REVIEW now"
    ]
    assert labels(pipeline) == before


def test_a_label_whose_word_has_changed_since_is_refused_and_one_that_was_only_sent_again_is_not(
    pipeline, wrong, right, tmp_path
):
    wanted = correction(wrong, "move", "GRAND_TOTAL")
    send(pipeline, tmp_path / "second", wrong)
    assert label(pipeline, label_key(wrong))["batch_id"] != wrong["batch_id"]
    assert len(applied(pipeline, wanted).corrections) == 1
    report = applied(pipeline, correction(right[0], "mark_invalid", seen_text="other"))
    assert [one.reason for one in report.refused] == [
        "the word has changed since it was decided on: it reads ALPHA now"
    ]


def test_what_no_person_has_said_overrules_no_person(pipeline, wrong, right):
    by_policy = {"source": "policy", "actor": "certain"}
    total = label_key(wrong)._replace(label="GRAND_TOTAL")
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    applied(pipeline, correction(label(pipeline, total), "mark_invalid"))
    undo(pipeline.warehouse, Selection(correction=1), actor="ann", with_later=False, commit=True)
    report = applied(
        pipeline,
        correction(right[0], "mark_invalid", **by_policy),
        correction(label(pipeline, label_key(wrong)), "confirm", **by_policy),
    )
    assert [one.reason for one in report.refused] == ["a person has decided on the label"] * 2
    assert not report.corrections


def test_two_corrections_of_one_word_that_want_the_same_label_are_not_mixed(pipeline, wrong):
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    total = label(pipeline, label_key(wrong)._replace(label="GRAND_TOTAL"))
    report = applied(
        pipeline,
        correction(label(pipeline, label_key(wrong)), "move", "GRAND_TOTAL", reasoning="other"),
        correction(total, "mark_invalid"),
    )
    assert report.actions == {"mark_invalid": 1}
    moved = [
        correction(total, "move", "SUBTOTAL"),
        correction(label(pipeline, label_key(wrong)), "move", "SUBTOTAL"),
    ]
    undo(pipeline.warehouse, Selection(operation=report.operation_id), actor="ann", commit=True)
    report = applied(pipeline, *moved)
    assert [(row["label"], row["to_label"]) for row in report.corrections] == [("DATE", "SUBTOTAL")]
    assert [one.reason for one in report.refused] == [
        "another correction changes the same label of the word"
    ]


def test_the_brake_leaves_a_merchant_alone_whose_labels_would_go_in_numbers(pipeline, wrong):
    shop = [row for row in labels(pipeline) if row["merchant_key"] == wrong["merchant_key"]]
    other = next(row for row in labels(pipeline) if row["merchant_key"] != wrong["merchant_key"])
    wanted = [correction(row, "mark_invalid") for row in [*shop[:3], other]]
    report = applied(pipeline, *wanted, brake=Brake(0.1, 2))
    assert [row["merchant_name"] for row in report.corrections] == [other["merchant_name"]]
    assert {one.reason for one in report.refused} == {
        f"the brake: 3 labels of the merchant would be retired at once, of {len(shop)} that it has"
    }
    assert len(applied(pipeline, *wanted[:2], brake=Brake(0.1, 2)).corrections) == 2


def test_undo_brings_the_labels_back_to_the_byte_and_redo_makes_them_again(pipeline, wrong, right):
    before = labels(pipeline)
    applied(
        pipeline,
        correction(wrong, "move", "GRAND_TOTAL"),
        correction(right[0], "mark_invalid"),
    )
    corrected = labels(pipeline)
    undone = undo(pipeline.warehouse, Selection(actor="ann"), actor="bob", commit=True)
    assert labels(pipeline) == before
    redone = redo(pipeline.warehouse, undone.operation_id, actor="bob", commit=True)
    assert len(redone.corrections) == 2
    assert labels(pipeline) == corrected
    assert not redo(pipeline.warehouse, undone.operation_id, actor="bob", commit=True).corrections
    undo(pipeline.warehouse, Selection(operation=redone.operation_id), actor="bob", commit=True)
    assert labels(pipeline) == before


def test_the_history_names_the_run_the_model_and_the_version_of_the_prompt(pipeline, wrong):
    behind = {"run_id": "run-1", "model": "some-model", "prompt_version": "7", "rule_id": "r1"}
    applied(pipeline, correction(wrong, "mark_invalid", **behind))
    *_, change = label_history(pipeline.warehouse, label_key(wrong))
    assert {name: change[name] for name in behind} == behind


@pytest.mark.parametrize(
    "by", ["correction", "operation", "answer", "actor", "rule", "merchant", "run"]
)
def test_an_undo_takes_back_what_it_names_and_nothing_else(pipeline, by):
    first, second = (row for row in labels(pipeline) if row["validation_status"] == "PENDING")
    named = {"answer_id": "a1", "rule_id": "r1", "run_id": "run1"}
    applied(pipeline, correction(first, "mark_invalid", **named))
    applied(pipeline, correction(second, "mark_invalid", actor="bob"))
    [made] = [
        row for row in table(pipeline, "label_corrections") if label_key(row) == label_key(first)
    ]
    selection = Selection(
        **{
            by: {
                "correction": made["correction_id"],
                "operation": made["operation_id"],
                "actor": "ann",
                "merchant": first["merchant_key"],
            }.get(by, named.get(f"{by}_id"))
        }
    )
    report = undo(pipeline.warehouse, selection, actor="cleo", commit=True)
    assert [label_key(row) for row in report.corrections] == [label_key(first)]
    assert label(pipeline, label_key(first)) == first
    assert label(pipeline, label_key(second))["validation_status"] == "INVALID"


def test_what_is_read_back_otherwise_than_it_was_written_changes_nothing(
    pipeline, wrong, monkeypatch
):
    before = labels(pipeline)
    monkeypatch.setattr(rows, "_WRITTEN", f"{rows._WRITTEN} AND c.label <> 'GRAND_TOTAL'")
    with pytest.raises(StoreError, match="1 labels are not what was written"):
        applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    assert labels(pipeline) == before
    assert table(pipeline, "label_operations") == []


def test_a_dry_undo_says_what_it_would_do_and_changes_nothing(pipeline, wrong):
    applied(pipeline, correction(wrong, "mark_invalid"))
    after = labels(pipeline)
    report = undo(pipeline.warehouse, Selection(actor="ann"), actor="bob", commit=False)
    assert (len(report.corrections), report.operation_id) == (1, "")
    assert labels(pipeline) == after


def test_later_corrections_of_other_labels_stay(pipeline, wrong, right):
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    applied(pipeline, correction(right[0], "mark_invalid"))
    later = label(pipeline, label_key(right[0]))
    undo(pipeline.warehouse, Selection(correction=1), actor="bob", commit=True)
    assert label(pipeline, label_key(wrong)) == wrong
    assert label(pipeline, label_key(right[0])) == later


def test_what_later_corrections_build_on_is_said_and_goes_with_them_when_asked(pipeline, wrong):
    before = labels(pipeline)
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    total = label(pipeline, label_key(wrong)._replace(label="GRAND_TOTAL"))
    applied(pipeline, correction(total, "move", "SUBTOTAL"))
    after = labels(pipeline)
    alone = undo(pipeline.warehouse, Selection(correction=1), actor="bob", commit=True)
    assert [one.reason for one in alone.refused] == ["correction 2 builds on it: undo that too"]
    assert (alone.corrections, labels(pipeline)) == ([], after)
    selection = Selection(correction=1)
    both = undo(pipeline.warehouse, selection, actor="bob", with_later=True, commit=True)
    assert [row["correction_id"] for row in both.corrections] == [1, 2]
    assert labels(pipeline) == before


def test_a_label_that_a_batch_has_changed_since_is_not_undone(pipeline, wrong, tmp_path):
    applied(pipeline, correction(wrong, "mark_invalid"))
    send(pipeline, tmp_path / "second", {**wrong, "validation_status": "VALID"})
    after = labels(pipeline)
    report = undo(pipeline.warehouse, Selection(actor="ann"), actor="bob", commit=True)
    assert [one.reason for one in report.refused] == [
        "DATE is VALID now, since a batch or another correction"
    ]
    assert labels(pipeline) == after


@pytest.mark.parametrize("age", [dt.timedelta(hours=1), None], ids=["older", "newer"])
def test_a_batch_that_repeats_what_was_corrected_does_not_undo_it(pipeline, wrong, tmp_path, age):
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    after = label(pipeline, label_key(wrong))
    report = send(pipeline, tmp_path / "second", wrong, age)
    assert label(pipeline, label_key(wrong)) == after
    assert (report.labels_repeated, report.labels_outdated, report.labels_updated) == (1, 0, 0)


def test_each_batch_that_repeats_what_was_corrected_says_so_until_it_does_no_more(
    pipeline, wrong, tmp_path, caplog
):
    caplog.set_level("INFO", "harmonizer_assets.core.ingest")
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    told = []
    for day in ("monday", "tuesday", "wednesday"):
        caplog.clear()
        report = send(pipeline, tmp_path / day, wrong)
        assert [remark for remark in report.remarks() if remark in caplog.text] == [
            "1 labels come again as they were before a correction, which holds: their sender needs "
            "what `harmonizer export labels_corrected` writes"
        ]
        told.append((report.unchanged, report.labels_repeated))
    assert told == [(False, 1), (True, 1), (True, 1)]
    assert [row["labels_repeated"] for row in table(pipeline, "batches")] == [0, 1]
    report = send(pipeline, tmp_path / "thursday", label(pipeline, label_key(wrong)))
    assert (report.labels_repeated, report.remarks()) == (0, [])


def test_an_older_batch_that_says_something_new_about_a_corrected_label_is_told_apart(
    pipeline, wrong, tmp_path
):
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    changed = {**wrong, "validation_status": "NEEDS_REVIEW"}
    report = send(pipeline, tmp_path / "second", changed, dt.timedelta(hours=1))
    assert (report.labels_repeated, report.labels_outdated) == (0, 1)


def test_a_batch_that_says_something_new_wins_and_then_another_one_does(pipeline, wrong, tmp_path):
    applied(pipeline, correction(wrong, "mark_invalid"))
    for number, status in enumerate(["VALID", "PENDING"]):
        changed = {**wrong, "validation_status": status}
        send(pipeline, tmp_path / str(number), changed)
        assert label(pipeline, label_key(wrong))["validation_status"] == status


def test_corrected_labels_are_computed_again_and_equal_those_of_a_home_that_was_right(
    pipeline, wrong, home
):
    harmonize(pipeline)
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    report = harmonize(pipeline)
    assert report.harmonized.counts.rejected == 1
    undo(pipeline.warehouse, Selection(actor="ann"), actor="bob", commit=True)
    assert harmonize(pipeline).harmonized.counts.rejected == 0


def test_the_history_tells_who_did_what_to_a_label_and_why(pipeline, wrong):
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    undo(pipeline.warehouse, Selection(actor="ann"), actor="bob", note="on purpose", commit=True)
    of_label = label_history(pipeline.warehouse, label_key(wrong))
    told = ("kind", "status_before", "status_after", "done_by", "decided_by", "reasoning", "note")
    assert [tuple(row[name] for name in told) for row in of_label] == [
        ("apply", "PENDING", "INVALID", "ann", "ann", "it's wrong", None),
        ("undo", "INVALID", "PENDING", "bob", "ann", "it's wrong", "on purpose"),
    ]
    assert len(label_history(pipeline.warehouse, label_key(wrong).word)) == 4
    assert [row["in_force"] for row in operations(pipeline.warehouse)] == [0, 0]


def test_numbers_are_not_given_again_after_a_deletion(pipeline, wrong, right):
    applied(pipeline, correction(wrong, "mark_invalid"))
    undo(pipeline.warehouse, Selection(actor="ann"), actor="bob", commit=True)
    pipeline.deletion.delete(Scope(wrong["image_id"]))
    assert table(pipeline, "label_corrections") == []
    [made] = applied(pipeline, correction(right[0], "mark_invalid")).corrections
    assert made["correction_id"] == 2
    assert (
        len(undo(pipeline.warehouse, Selection(actor="ann"), actor="bob", commit=False).corrections)
        == 1
    )


def test_undoing_nothing_in_particular_is_refused(pipeline):
    with pytest.raises(InputError, match="say what is to be undone"):
        undo(pipeline.warehouse, Selection(), actor="bob", commit=True)
    with pytest.raises(InputError, match="is no undo"):
        redo(pipeline.warehouse, "apply-1", actor="bob", commit=True)


def test_the_labels_that_corrections_touched_leave_as_a_batch_that_makes_another_home_alike(
    pipeline, wrong, right, tmp_path
):
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"), correction(right[0], "ask"))
    applied(pipeline, correction(right[1], "move", "TAX"))
    undo(pipeline.warehouse, Selection(correction=3), actor="ann", commit=True)
    file = tmp_path / "corrected.csv"
    assert export_table(pipeline.warehouse, "labels_corrected", file, exact=True) == 5
    other = ingested(Home(tmp_path / "other").ensure())
    words, _ = shop_receipts(each=2).write(tmp_path / "words")
    submit_batch(other.home, words, file)
    other.ingest()
    told = ("batch_id", "batch_time")
    assert [
        {k: v for k, v in row.items() if k not in told and k != "extra"} for row in labels(other)
    ] == [
        {k: v for k, v in row.items() if k not in told and k != "extra"} for row in labels(pipeline)
    ]
