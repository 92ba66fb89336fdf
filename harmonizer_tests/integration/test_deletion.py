from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.judge.llm.memory.journal import Journal
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.account import Account
from harmonizer_assets.core.store.deletions import Scope
from harmonizer_assets.core.units.spread import unit_store
from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.labels import scored_copy
from harmonizer_tests.support.modes import modes_count
from harmonizer_tests.support.receipts import (
    LABEL_COLUMNS,
    OFFLINE,
    WORD_COLUMNS,
    Receipts,
    score,
    shop_receipts,
    table,
    write_csv,
)

IMAGE = "private"
TEXTS = ("Zwetschgendatschi", "Quittenbrand")
"""Texts of the deleted receipt that stand nowhere else."""


def with_private_receipt() -> Receipts:
    """Shops' receipts, and one with texts of its own, of which one label is wrong."""
    receipts = shop_receipts()
    mine = Receipts()
    mine.add_receipt(IMAGE, "Alpha Mart", wrong_total="DATE")
    for word, text in zip((mine.words[6], mine.words[13]), TEXTS, strict=True):
        word["text"] = text
    receipts.words += mine.words
    receipts.labels += mine.labels
    return receipts


@pytest.fixture
def receipts() -> Receipts:
    return with_private_receipt()


@pytest.fixture
def full(home, receipts) -> Pipeline:
    """A home that has run, whose batch lies in the inbox's `.done`."""

    def make(fresh: Home) -> None:
        receipts.write(fresh.inbox / "monday")
        Pipeline(fresh).run(OFFLINE)

    copy_home(home, "with a private receipt", make)
    return Pipeline(home)


@pytest.fixture
def arrived(home, receipts) -> Pipeline:
    """A home with the same receipts, ingested and no more."""

    def make(fresh: Home) -> None:
        receipts.submit(Pipeline(fresh), fresh.scratch / "files")
        Pipeline(fresh).ingest()

    copy_home(home, "with a private receipt, ingested", make)
    return Pipeline(home)


def files_with(folder: Path, text: str) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and text.encode() in path.read_bytes()
    ]


def mark(folder: Path, columns: tuple[str, ...], row: dict) -> Path:
    path = folder / ("words.csv" if "text" in columns else "labels.csv")
    return write_csv(path, (*columns, "deleted"), [{**row, "deleted": "true"}])


def test_nothing_in_the_home_quotes_a_deleted_image(full):
    before = len(table(full, "words"))
    for text in TEXTS:
        assert files_with(full.home.root, text)
    deleted, erased = full.deletion.delete(Scope(IMAGE))
    assert (deleted.words, deleted.labels) == (16, 12)
    assert erased is not None
    for text in TEXTS:
        assert files_with(full.home.root, text) == []
    assert len(table(full, "words")) == before - 16
    full.run(OFFLINE)
    for text in TEXTS:
        assert files_with(full.home.root, text) == []
    counts = full.tables.counts()
    assert counts.labels == counts.valid + counts.outliers + counts.unresolved
    for name in ("labels", "similarity_matches", "outliers", "judgements", "word_documents"):
        assert IMAGE not in {row["image_id"] for row in table(full, name)}


def test_models_that_have_learnt_from_what_is_deleted_go_where_that_is_asked_for(home):
    pipeline = scored_copy(home, label_types=2, words=130)
    [before] = home.models.iterdir()
    image = table(pipeline, "labels")[0]["image_id"]
    pipeline.deletion.delete(Scope(image))
    assert [*home.models.iterdir()] == [before]
    pipeline.deletion.delete(Scope(table(pipeline, "labels")[0]["image_id"]), models=True)
    assert [*home.models.iterdir()] == []
    score(pipeline)
    [after] = home.models.iterdir()
    assert after.stem == pipeline.registry.version() != before.stem


def test_a_home_after_a_deletion_equals_one_that_never_had_it(full, tmp_path):
    full.deletion.delete(Scope(IMAGE))
    # Scores of other merchants are left as they were computed, until they are computed again.
    full.run(replace(OFFLINE, refresh=True))
    other = Pipeline(type(full.home)(tmp_path / "other").ensure())
    shop_receipts().submit(other, tmp_path)
    other.run(OFFLINE)
    for name in ("words", "labels"):
        leave_out = ("batch_id", "batch_time")
        assert table(full, name, *leave_out) == table(other, name, *leave_out)
    for name in ("documents", "word_documents", "similarity_matches", "outliers"):
        assert table(full, name) == table(other, name)
    assert full.indexing.vectors.ids() == other.indexing.vectors.ids()


def test_copies_and_reports_that_name_a_deleted_image_go_although_its_texts_are_common(full):
    assert files_with(full.home.inbox, "image-0-3")
    assert files_with(full.home.reports, "image-0-3")
    full.deletion.delete(Scope("image-0-3"))
    assert files_with(full.home.inbox, "image-0-3") == []
    assert files_with(full.home.reports, "image-0-3") == []


def test_units_of_work_that_hold_deleted_words_go_too(full):
    store = unit_store(full.settings.units, full.home)
    store.add("b" * 64, b"a unit with words")
    store.bury("a" * 64)
    full.deletion.delete(Scope(IMAGE))
    assert [path for path in full.home.units.rglob("*") if path.is_file()] == []


def test_that_something_was_deleted_is_kept_but_not_what_it_was(full):
    full.deletion.delete(Scope(IMAGE))
    [row] = table(full, "deletions", "deleted_at", "holds_until", "turn", "name", "is_clocked")
    assert row == {
        "image_id": IMAGE,
        "receipt_id": None,
        "line_id": None,
        "word_id": None,
        "label": None,
        "source": "command",
    }
    assert table(full, "pending_erasures") == []


def test_what_was_deleted_for_good_stays_away_when_it_is_sent_again(full, receipts, tmp_path):
    full.deletion.delete(Scope(IMAGE))
    receipts.labels[0]["validation_status"] = "INVALID"  # so that it is not the same file
    receipts.submit(full, tmp_path)
    report = full.ingest().batches[0]
    assert (report.words_inserted, report.words_withheld, report.labels_withheld) == (0, 16, 12)
    assert "16 words and 12 labels stay away: they were deleted" in report.remarks()
    assert files_with(full.home.root, TEXTS[0]) == []


def test_what_may_come_again_does(full, receipts, tmp_path):
    before = len(table(full, "words"))
    full.deletion.delete(Scope(IMAGE), for_good=False)
    receipts.submit(full, tmp_path)
    assert full.ingest().batches[0].words_inserted == 16
    assert len(table(full, "words")) == before


def test_a_marked_label_takes_the_place_of_none_and_the_right_one_stays(full, receipts, tmp_path):
    wrong = next(row for row in receipts.labels if row["label"] == "DATE" and row["line_id"] == 7)
    right = {**wrong, "label": "GRAND_TOTAL", "validation_status": "VALID", "deleted": ""}
    path = write_csv(
        tmp_path / "labels.csv",
        (*LABEL_COLUMNS, "deleted"),
        [{**wrong, "deleted": "yes"}, right],
    )
    submit_batch(full.home, None, path)
    report = full.ingest().batches[0]
    assert (report.labels_deleted, report.labels_inserted) == (1, 1)
    assert "0 words and 1 labels deleted" in report.remarks()
    key = {name: wrong[name] for name in LABEL_COLUMNS[:4]}
    rows = [row for row in table(full, "labels") if key.items() <= row.items()]
    assert [row["label"] for row in rows] == ["GRAND_TOTAL"]


def test_a_marked_word_takes_its_labels_and_every_trace_with_it(full, receipts, tmp_path):
    word = next(row for row in receipts.words if row["text"] == TEXTS[1])
    submit_batch(full.home, mark(tmp_path, WORD_COLUMNS, word), None)
    full.run(OFFLINE)
    assert TEXTS[1] not in {row["text"] for row in table(full, "words")}
    (tmp_path / "words.csv").unlink()
    assert files_with(full.home.root, TEXTS[1]) == []


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ({"receipt_id": 1, "line_id": 4}, 2),
        ({"receipt_id": 1}, 16),
        ({}, 16),
        ({"receipt_id": 2}, 0),
    ],
)
def test_a_mark_without_the_last_ids_takes_the_whole_line_receipt_or_image(
    arrived, tmp_path, ids, words
):
    marks = tmp_path / "marks.ndjson"
    row = {**dict.fromkeys(WORD_COLUMNS), "image_id": IMAGE, **ids, "deleted": True}
    marks.write_text(json.dumps(row) + "\n")
    submit_batch(arrived.home, marks, None)
    *_, report = arrived.ingest().batches
    assert (report.words_deleted, report.quarantined) == (words, 0)
    mine = [row for row in table(arrived, "words") if row["image_id"] == IMAGE]
    assert len(mine) == 16 - words
    assert all(row.items() & ids.items() != ids.items() for row in mine) or not words


def test_a_mark_of_labels_without_the_last_ids_takes_those_of_its_type(arrived, tmp_path):
    row = {"image_id": IMAGE, "receipt_id": 1, "label": "DATE"}
    submit_batch(arrived.home, None, mark(tmp_path / "marks", LABEL_COLUMNS, row))
    arrived.ingest()
    left = [row for row in table(arrived, "labels") if row["image_id"] == IMAGE]
    assert len(left) == 10
    assert "DATE" not in {row["label"] for row in left}


def test_ids_that_are_missing_elsewhere_are_a_mistake(pipeline, tmp_path):
    mistakes = [
        ({"line_id": 4, "deleted": "true"}, "receipt_id is missing"),
        ({"receipt_id": 1, "word_id": 1, "deleted": "true"}, "line_id is missing"),
        ({"receipt_id": 1, "line_id": 4}, "word_id is missing"),
        ({"receipt_id": 1, "line_id": 4, "word_id": "x", "deleted": "true"}, "not a whole number"),
    ]
    rows = [{"image_id": IMAGE, "text": "", **ids} for ids, _ in mistakes]
    marks = write_csv(tmp_path / "words.csv", (*WORD_COLUMNS, "deleted"), rows)
    submit_batch(pipeline.home, marks, None)
    assert pipeline.ingest().batches[0].quarantined == len(mistakes)
    found = sorted(table(pipeline, "quarantine"), key=lambda row: row["row_number"])
    for row, (_, reason) in zip(found, mistakes, strict=True):
        assert reason in row["reason"]


@pytest.mark.parametrize("arrival", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (2, 3, 1), (1, 3, 2)])
def test_a_mark_counts_against_earlier_batches_only_in_whatever_order_they_arrive(
    pipeline, receipts, tmp_path, arrival
):
    label = receipts.labels[0]
    for number in arrival:
        status = {1: "PENDING", 2: "PENDING", 3: "VALID"}[number]
        row = {**label, "validation_status": status, "deleted": number == 2}
        path = write_csv(tmp_path / f"{number}.csv", (*LABEL_COLUMNS, "deleted"), [row])
        submit_batch(pipeline.home, None, path, time=dt.datetime(2024, 1, number, tzinfo=dt.UTC))
        pipeline.ingest()
        if set(arrival[: arrival.index(number) + 1]) == {1, 2}:
            assert table(pipeline, "labels") == []
    [row] = table(pipeline, "labels")
    assert row["validation_status"] == "VALID"


def test_a_deletion_that_was_killed_is_finished_by_the_next_run(full, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("harmonizer_assets.core.erase.erase.quoting_files", killed)
        with pytest.raises(KeyboardInterrupt):
            full.deletion.delete(Scope(IMAGE))
    Pipeline(full.home).run(OFFLINE)
    for text in TEXTS:
        assert files_with(full.home.root, text) == []


def test_files_that_may_not_be_read_or_removed_are_named_until_they_are_erased(full):
    failed = full.home.inbox / ".failed"
    refused = [failed / "monday" / "words.csv", failed / "tuesday"]
    for folder in ("monday", "tuesday", "wednesday"):
        path = failed / folder / "words.csv"
        path.parent.mkdir(parents=True)
        path.write_text(TEXTS[0])
    for path in refused:
        path.chmod(0)
    (failed / "wednesday").chmod(0o500)
    with modes_count():
        said = cli("delete", "--image", IMAGE, home=full.home.root)
        done = cli("delete", "--image", IMAGE, "--yes", home=full.home.root)
    names = "inbox/.failed/monday/words.csv, inbox/.failed/tuesday"
    assert f"2 files or folders may not be read and would stay:\n  {names}" in said.stdout.replace(
        "\n  inbox/.failed/tuesday", ", inbox/.failed/tuesday"
    )
    assert done.returncode == 1
    assert shown_error(done) == (
        f"Error: what was deleted may stand in {names}, inbox/.failed/wednesday/words.csv, which "
        "may not be read or removed: remove it, or give yourself the right to; the next run looks "
        "again"
    )
    for path in (*refused, failed / "wednesday"):
        path.chmod(0o700)
    assert table(full, "words") != []
    full.deletion.finish([lambda _: 0])
    assert files_with(full.home.root, TEXTS[0]) == []


def test_answers_journals_dead_letters_and_quarantined_rows_go_too(full, receipts, tmp_path):
    text = TEXTS[1]
    answer = {
        "verdict_key": "bought",
        "model": "m",
        "prompt_version": "1",
        "label_type": "DATE",
        "merchant_key": "somewhere-else",
        "word_text": text,
        "is_outlier": True,
        "suggested_label": None,
        "confidence": None,
        "reasoning": f"{text} is no date",
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "cost_usd": 0.0,
        "created_at": "2024-01-01T00:00:00+00:00",
    }
    Journal(full.home.journals, Account("killed", "killed")).append([answer], {})
    damaged = full.home.journals / "damaged" / "1.ndjson"
    damaged.parent.mkdir()
    damaged.write_text(f'{{"word_text": "{text}"')
    word = next(row for row in receipts.words if row["text"] == text)
    key = {name: word[name] for name in WORD_COLUMNS[:4]}
    full.warehouse.write(
        lambda con: (
            con.execute(
                "INSERT INTO dead_letters VALUES ($1, $2, $3, $4, 'DATE', 'llm_verdicts', $5, 1, "
                "now(), now())",
                ["elsewhere", 1, 1, 1, f"no answer about '{text}'"],
            ),
            con.execute(
                "INSERT INTO llm_batch_items VALUES ('s', 'c', 'i', 'k', 'DATE', 'm', $1, 0.5)",
                [text],
            ),
        )
    )
    broken = write_csv(tmp_path / "w.csv", WORD_COLUMNS, [{**word, "x": "nowhere"}])
    submit_batch(full.home, broken, None)
    assert full.ingest().batches[0].quarantined == 1
    for table_name in ("dead_letters", "llm_batch_items", "quarantine"):
        assert table(full, table_name)
    full.deletion.delete(Scope(**key))
    for table_name in ("dead_letters", "llm_batch_items", "llm_verdicts", "quarantine"):
        assert table(full, table_name) == []
    broken.unlink()
    assert files_with(full.home.root, text) == []
