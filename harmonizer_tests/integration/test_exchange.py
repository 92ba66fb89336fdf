"""What people say in other tools becomes answers once, and nothing that is newer is overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from harmonizer_assets.core.apply.undo import Selection, undo
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LabelKey, label_key
from harmonizer_assets.core.review.answers import Answer
from harmonizer_assets.core.review.exchange.exporting import exported_records
from harmonizer_assets.core.review.exchange.formats import FORMATS
from harmonizer_assets.core.review.exchange.importing import ImportReport
from harmonizer_assets.core.review.queue import ReviewFilter
from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.corrections import label, labels
from harmonizer_tests.support.exchange import carried_key, edited_json
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import harmonize, shop_receipts, table

MOVED = ReviewFilter(label_type="DATE", action="move")
SHOPS = ("Alpha Mart", "Beta Cafe", "Gamma Deli", "Delta Store")
Rows = list[dict[str, Any]]


@pytest.fixture
def pipeline(home, tmp_path) -> Pipeline:
    """Four shops with six receipts each; the total of the last one is labelled DATE."""
    return reviewed(home, tmp_path, "rules: []\n")


def reviewed(home: Home, tmp_path: Path, policy: str) -> Pipeline:
    def make(fresh: Home) -> None:
        fresh.review_policy.write_text(policy)
        pipeline = Pipeline(fresh)
        shop_receipts(SHOPS, each=6).submit(pipeline, tmp_path / "files")
        harmonize(pipeline)

    copy_home(home, ("exchange", policy), make)
    return Pipeline(home)


def exported(pipeline: Pipeline, path: Path, name: str = "ndjson") -> Path:
    """The four totals that are labelled DATE, in a file."""
    pipeline.review.export(path, name, MOVED)
    return path


def answer(path: Path, *verdicts: str, by: str | None = None, **more: str) -> Path:
    """Answer about the first rows of a table."""

    def change(rows: Rows) -> None:
        for row, verdict in zip(rows, verdicts, strict=False):
            row |= {"answer": verdict, "answer_by": by, **more}

    return edited_json(path, change)


def taken(pipeline: Pipeline, path: Path, name: str = "ndjson", by: str = "ann") -> ImportReport:
    return pipeline.review.import_answers(path, name, by)


def keys(path: Path) -> list[LabelKey]:
    return [carried_key(json.loads(line)) for line in path.read_text().splitlines()]


def reasons(report: ImportReport) -> list[str]:
    return [one.reason for one in report.refused]


def accepted(tasks: Rows) -> None:
    """Accept what a tool shows, as its users do."""
    for task in tasks:
        if "predictions" in task:
            result = task["predictions"][0]["result"]
            task["annotations"] = [{"id": 1, "completed_by": {"email": "ann"}, "result": result}]
        elif "suggestions" in task:
            value = task["suggestions"]["labels"]["value"]
            task["responses"] = {"labels": [{"value": value, "user_id": "ann"}]}
        elif "options" in task:
            task |= {"answer": "accept", "_annotator_id": "ann"}
        elif "proposed" in task:
            task["label"] = [task["proposed"]]
        else:
            task |= {"answer": "wrong", "answer_label": task["to_label"]}


@pytest.mark.parametrize("name", ["ndjson", "label-studio", "argilla", "doccano", "prodigy"])
def test_export_edit_import_apply_undo_brings_the_labels_back_to_the_byte(pipeline, tmp_path, name):
    before = labels(pipeline)
    path = exported(pipeline, tmp_path / f"file{FORMATS[name].suffix}", name)
    report = taken(pipeline, edited_json(path, accepted), name)
    assert (report.answers, report.refused) == ({"wrong": 4}, [])
    done = pipeline.apply("bob", commit=True)
    assert done.actions == {"move": 4}
    assert {row["actor"] for row in done.corrections} == {"ann"}
    undo(pipeline.warehouse, Selection(actor="ann"), actor="bob", commit=True)
    assert labels(pipeline) == before


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("csv", "(FORMAT csv, HEADER)"),
        ("parquet", "(FORMAT parquet)"),
    ],
)
def test_what_is_answered_in_a_table_is_applied_and_taken_back_to_the_byte(
    pipeline, tmp_path, name, written
):
    before = labels(pipeline)
    path = exported(pipeline, tmp_path / f"file{FORMATS[name].suffix}", name)
    reader = f"read_csv('{path}', all_varchar = true)" if name == "csv" else f"'{path}'"
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE rows AS FROM {reader}")
        con.execute("UPDATE rows SET answer = 'wrong', answer_label = to_label")
        con.execute(f"COPY rows TO '{path}' {written}")
    report = taken(pipeline, path, name)
    assert (report.answers, report.refused) == ({"wrong": 4}, [])
    assert pipeline.apply("bob", commit=True).actions == {"move": 4}
    undo(pipeline.warehouse, Selection(actor="ann"), actor="bob", commit=True)
    assert labels(pipeline) == before


def test_the_same_import_twice_changes_nothing_not_even_after_apply_undo_and_withdrawal(
    pipeline, tmp_path
):
    path = answer(exported(pipeline, tmp_path / "a.ndjson"), "right", "wrong", "skip", by="cleo")
    first = taken(pipeline, path)
    assert (first.answers, first.unanswered) == ({"right": 1, "wrong": 1, "skip": 1}, 1)
    stored = table(pipeline, "review_answers")
    assert {row["reviewer"] for row in stored} == {"cleo"}
    again = taken(pipeline, path)
    assert (again.answers, again.known, again.refused) == ({}, 3, [])
    done = pipeline.apply("ann", commit=True)
    assert taken(pipeline, path).known == 3
    undo(pipeline.warehouse, Selection(operation=done.operation_id), actor="ann", commit=True)
    assert taken(pipeline, path).known == 3
    pipeline.review.withdraw(stored[0]["answer_id"], "cleo")
    last = taken(pipeline, path)
    assert (last.known, len(last.refused)) == (2, 1)
    assert "imported before" in last.refused[0].reason
    assert table(pipeline, "review_answers") == stored


def test_two_annotators_are_two_reviewers_and_where_they_disagree_nothing_is_done(
    pipeline, tmp_path
):
    path = exported(pipeline, tmp_path / "a.json", "label-studio")

    def annotate(tasks: Rows) -> None:
        accepted(tasks)
        [task] = tasks[:1]
        other = json.loads(json.dumps(task["annotations"][0]))
        other |= {"id": 2, "completed_by": {"email": "bob"}}
        [chosen] = [part for part in other["result"] if part["type"] == "labels"]
        chosen["value"]["labels"] = ["DATE"]
        task["annotations"].append(other)

    report = taken(pipeline, edited_json(path, annotate), "label-studio")
    assert report.answers == {"wrong": 4, "right": 1}
    [disputed] = pipeline.review.disagreements()
    assert {one["reviewer"] for one in disputed["answers"]} == {"ann", "bob"}
    assert len(pipeline.apply("ann").corrections) == 3


def test_two_answers_of_one_person_about_one_label_are_listed_unless_the_tool_says_which_is_later(
    pipeline, tmp_path
):
    path = exported(pipeline, tmp_path / "a.jsonl", "prodigy")

    def contradict(tasks: Rows) -> None:
        accepted(tasks)
        tasks[:] = [tasks[0], {**tasks[0], "accept": ["DATE"]}]

    report = taken(pipeline, edited_json(path, contradict), "prodigy")
    assert report.answers == {}
    assert "line 1 and line 2 say different things" in reasons(report)[0]

    def date(tasks: Rows) -> None:
        tasks[0]["_timestamp"], tasks[1]["_timestamp"] = 200, 100

    assert taken(pipeline, edited_json(path, date), "prodigy").answers == {"wrong": 1}


def test_labels_that_are_newer_than_the_export_are_listed_and_never_overwritten(pipeline, tmp_path):
    path = answer(exported(pipeline, tmp_path / "a.ndjson"), "wrong", "wrong")
    newer, other = keys(path)[:2]
    pipeline.review.answer(newer, "bob", Answer.RIGHT)
    pipeline.apply("bob", commit=True)
    harmonize(pipeline)
    report = taken(pipeline, path)
    assert report.answers == {"wrong": 1}
    assert reasons(report) == ["the label has changed since the export: it is VALID now"]
    assert report.refused[0].label == "/".join(map(str, newer))
    pipeline.apply("ann", commit=True)
    assert label(pipeline, newer)["validation_status"] == "VALID"
    assert label(pipeline, other)["validation_status"] == "INVALID"


def test_a_batch_that_only_sends_the_labels_again_is_no_conflict_and_a_new_text_is_one(
    pipeline, tmp_path
):
    path = answer(exported(pipeline, tmp_path / "a.ndjson"), "wrong", "wrong")
    pipeline.warehouse.write(lambda con: con.execute("UPDATE labels SET batch_id = 'again'"))
    pipeline.warehouse.write(
        lambda con: con.execute(
            "UPDATE words SET text = '9.99' WHERE image_id = $1", [keys(path)[0].image_id]
        )
    )
    report = taken(pipeline, path)
    assert report.answers == {"wrong": 1}
    assert reasons(report) == ["the word has changed since the export: it reads 9.99 now"]


def test_an_answer_that_was_given_here_since_the_export_is_not_replaced(pipeline, tmp_path):
    path = answer(exported(pipeline, tmp_path / "a.ndjson"), "wrong", "wrong")
    pipeline.review.answer(keys(path)[0], "ann", Answer.RIGHT)
    # The clock was set back after the export.
    pipeline.warehouse.write(
        lambda con: con.execute(
            "UPDATE review_answers SET answered_at = answered_at - INTERVAL 1 DAY"
        )
    )
    report = taken(pipeline, path)
    assert report.answers == {"wrong": 1}
    assert reasons(report) == ["ann has answered here since the export"]


def test_who_changes_their_mind_in_the_tool_is_heard(pipeline, tmp_path):
    path = answer(exported(pipeline, tmp_path / "a.ndjson"), "wrong")
    taken(pipeline, path)
    assert taken(pipeline, answer(path, "right")).answers == {"right": 1}
    assert pipeline.apply("ann").actions == {"confirm": 1}
    assert "imported before" in reasons(taken(pipeline, answer(path, "wrong")))[0]


def test_a_label_that_people_add_is_added_to_the_word_and_goes_again_with_undo(pipeline, tmp_path):
    before = labels(pipeline)
    path = answer(exported(pipeline, tmp_path / "a.ndjson"), "add", answer_label="SUBTOTAL")
    assert taken(pipeline, path).answers == {"right": 1, "add": 1}
    done = pipeline.apply("bob", commit=True)
    assert done.actions == {"confirm": 1, "add": 1}
    key = keys(path)[0]
    old, new = label(pipeline, key), label(pipeline, key._replace(label="SUBTOTAL"))
    assert (new["validation_status"], new["merchant_key"], new["merchant_name"]) == (
        "VALID",
        old["merchant_key"],
        old["merchant_name"],
    )
    assert json.loads(new["extra"])["label_proposed_by"] == "ann"
    assert pipeline.apply("bob").corrections == []
    harmonize(pipeline)
    undo(pipeline.warehouse, Selection(operation=done.operation_id), actor="bob", commit=True)
    assert labels(pipeline) == before


def test_a_label_that_has_come_by_another_way_since_it_was_added_is_refused_by_apply(pipeline):
    [first, *_] = exported_records(pipeline.warehouse, MOVED)
    key = first.key._replace(label="SUBTOTAL")
    pipeline.review.answer(key, "ann", Answer.ADD)
    with pytest.raises(InputError, match="no label type"):
        pipeline.review.answer(key._replace(label="NONSENSE'"), "ann", Answer.ADD)
    with pytest.raises(InputError, match="nothing was stored"):
        pipeline.review.answer(first.key, "ann", Answer.ADD)
    with pytest.raises(InputError, match="nothing was stored"):
        pipeline.review.answer(key._replace(word_id=99), "ann", Answer.ADD)
    pipeline.warehouse.write(
        lambda con: con.execute(
            "INSERT INTO labels SELECT * REPLACE ('SUBTOTAL' AS label) FROM labels "
            f"WHERE ({LABEL_COLUMNS}) = ($1, $2, $3, $4, $5)",
            list(first.key),
        )
    )
    report = pipeline.apply("bob")
    assert [one.reason for one in report.refused] == [
        "the word has this label by now: it is PENDING"
    ]
    assert report.corrections == []


def draw(value: dict[str, Any]) -> Callable[[Rows], None]:
    """Draw a region in the first task, beside what it shows."""

    def change(tasks: Rows) -> None:
        accepted(tasks)
        region = {"id": "new", "original_width": 400, "original_height": 1600, "value": value}
        tasks[0]["annotations"][0]["result"].append(region)

    return change


def test_a_region_that_is_drawn_around_a_word_without_a_label_adds_one(pipeline, tmp_path):
    path = exported(pipeline, tmp_path / "a.json", "label-studio")
    # The caption TOTAL stands at x = 0.1, y = 0.7, and is 0.1 wide and 0.03 high.
    turned = {"x": 21, "y": 69, "width": 16, "height": 3, "rotation": 90, "labels": ["COUPON"]}
    edited_json(path, draw(turned))
    report = taken(pipeline, path, "label-studio")
    assert (report.answers, report.refused) == ({"wrong": 4, "add": 1}, [])
    [row] = [row for row in table(pipeline, "review_answers") if row["verdict"] == "add"]
    assert (row["line_id"], row["word_id"], row["label"]) == (7, 1, "COUPON")
    assert pipeline.apply("bob", commit=True).actions == {"move": 4, "add": 1}
    assert taken(pipeline, path, "label-studio").known == 5


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"x": 1, "y": 1, "width": 2, "height": 2, "labels": ["TAX"]}, "where no word is"),
        ({"x": 0, "y": 0, "width": 99, "height": 99, "labels": ["TAX"]}, "draw it around one"),
        ({"x": 10, "y": 70, "width": 9, "height": 3, "labels": ["?"]}, "no label type"),
        (
            {"x": 60, "y": 40, "width": 10, "height": 3, "labels": ["LINE_TOTAL"]},
            "LINE_TOTAL already",
        ),
    ],
)
def test_a_region_that_cannot_be_a_new_label_is_listed(pipeline, tmp_path, value, reason):
    path = exported(pipeline, tmp_path / "a.json", "label-studio")
    edited_json(path, draw(value))
    report = taken(pipeline, path, "label-studio")
    assert report.answers == {"wrong": 4}
    assert [reason in found for found in reasons(report)] == [True]


def test_a_label_of_an_unknown_type_is_listed_and_the_others_are_taken(pipeline, tmp_path):
    path = answer(exported(pipeline, tmp_path / "a.ndjson"), "wrong", answer_label="NONSENSE'")
    answer(path, *["wrong"] * 2, answer_label="TIME")
    edited_json(path, lambda rows: rows[0].update(answer_label="NONSENSE'"))
    report = taken(pipeline, path)
    assert report.answers == {"wrong": 1}
    assert reasons(report) == ["\"NONSENSE'\" is no label type of the home's taxonomy"]


def test_nothing_is_stored_of_a_file_that_is_refused(pipeline, tmp_path):
    path = answer(exported(pipeline, tmp_path / "a.ndjson"), "wrong", "wrong", "wrong", "wrong")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"a\.ndjson: line 4"):
        taken(pipeline, path)
    with pytest.raises(InputError, match="needs a reviewer"):
        taken(pipeline, exported(pipeline, tmp_path / "b.ndjson"), by=" ")
    assert table(pipeline, "review_answers") == []


def test_labels_that_are_gone_are_listed(pipeline, tmp_path):
    path = answer(exported(pipeline, tmp_path / "a.ndjson"), "wrong")
    first = keys(path)[0]
    pipeline.warehouse.write(
        lambda con: con.execute("DELETE FROM labels WHERE image_id = $1", [first.image_id])
    )
    assert reasons(taken(pipeline, path)) == ["the label is not there any more"]


def test_a_blind_sample_is_exported_without_what_is_proposed_and_counts_when_it_is_answered(
    home, tmp_path
):
    policy = "blind_share: 1.0\nrules: [{name: all, tier: automatic, agreement: 0.3}]\n"
    pipeline = reviewed(home, tmp_path, policy)
    [first, *_] = pipeline.review.items("ann")
    pipeline.review.answer(label_key(first), "bob", Answer.RIGHT)
    # A part of the queue by what is proposed would tell what is proposed.
    assert exported_records(pipeline.warehouse, MOVED) == []
    path = tmp_path / "a.ndjson"
    pipeline.review.export(path, "ndjson", ReviewFilter(label_type="DATE"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    hidden = ("action", "to_label", "score", "reasoning", "kind_id", "answers")
    assert {row[name] for row in rows for name in hidden} == {None}
    answer(path, "wrong", "wrong", "wrong", answer_label="GRAND_TOTAL")
    assert taken(pipeline, path).answers == {"wrong": 3}
    assert pipeline.review.tiers()["all"].answers == 4


def test_what_was_said_is_exported_with_the_label_and_its_line_and_box(pipeline):
    [first, *_] = exported_records(pipeline.warehouse, MOVED)
    pipeline.review.answer(first.key, "a'nn", Answer.WRONG, to_label="TAX", note="=1+1")
    [second, *_] = exported_records(pipeline.warehouse, MOVED)
    assert [vars(one) for one in second.answers] == [
        {"reviewer": "a'nn", "verdict": "wrong", "to_label": "TAX", "note": "=1+1"}
    ]
    assert second.box is not None
    assert second.text in (second.line or "")


def test_the_commands_write_take_in_and_tell(pipeline, home, tmp_path):
    path = tmp_path / "tasks.json"
    done = cli("exchange", "export", path, "--format", "label-studio", home=home.root)
    assert "labels written to" in done.stdout
    assert '<Label value="DATE"/>' in (tmp_path / "tasks.config.xml").read_text()
    again = ("exchange", "export", path, "--format", "label-studio")
    assert "--overwrite" in shown_error(cli(*again, home=home.root))
    one = cli(*again, "--overwrite", "--limit", 1, "--label-type", "DATE", home=home.root)
    assert "1 label written" in one.stdout
    some = cli(*again, "--overwrite", "--merchant", "Alpha Mart", home=home.root)
    assert "label written" in some.stdout
    suffix = cli("exchange", "export", tmp_path / "x.txt", "--format", "csv", home=home.root)
    assert "end with .csv" in shown_error(suffix)
    edited_json(path, accepted)
    edited_json(path, lambda tasks: tasks[0]["annotations"][0].pop("completed_by"))
    found = tmp_path / "report.json"
    arguments = ("exchange", "import", path, "--format", "label-studio", "--as", "dan")
    told = cli(*arguments, "--json", found, home=home.root).stdout
    assert "answer imported" in told
    assert json.loads(found.read_text())["answers"] == {"wrong": 1}
    assert {row["reviewer"] for row in table(pipeline, "review_answers")} == {"dan"}
    assert "1 were imported before" in cli(*arguments, home=home.root).stdout
    missing = cli("exchange", "import", tmp_path / "no.csv", "--format", "csv", home=home.root)
    assert "no such file" in shown_error(missing)


def test_a_home_from_before_gets_the_new_column_and_keeps_its_answers(pipeline):
    key = exported_records(pipeline.warehouse, MOVED)[0].key
    pipeline.review.answer(key, "ann", Answer.RIGHT)

    def back(con: Any) -> None:
        con.execute("DROP VIEW standing_answers")
        con.execute("ALTER TABLE review_answers DROP COLUMN import_id")
        con.execute("CREATE VIEW standing_answers AS FROM review_answers")
        con.execute("DELETE FROM schema_migrations WHERE name = '0025_imported_answers'")

    pipeline.warehouse.write(back)
    later = Pipeline(pipeline.home)
    assert later.review.last_answer("ann")["import_id"] is None
