"""Corrections go back to the SQL table that labels came from."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from harmonizer_assets.core.apply.push import push_corrections
from harmonizer_assets.core.apply.targets import TableTarget, configured_targets
from harmonizer_assets.core.apply.undo import Selection, undo
from harmonizer_assets.core.base.errors import SourceError
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import LABEL_KEY, label_key
from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.corrections import applied, correction, labels
from harmonizer_tests.support.receipts import Receipts, shop_receipts, table
from harmonizer_tests.support.sql_tables import NOON, database, insert

ODD = 'O\'Hara | "7/11" 🧾'


@dataclass
class There:
    """The table of labels, and the home that takes labels from it."""

    url: str
    labels: sa.Table
    pipeline: Pipeline

    def execute(self, statement):
        with sa.create_engine(self.url, poolclass=sa.NullPool).begin() as connection:
            result = connection.execute(statement)
            return result.mappings().all() if result.returns_rows else []

    def rows(self, *left_out: str):
        """The rows in their order, without the time of their last change."""
        rows = [
            {name: value for name, value in row.items() if name not in ("updated_at", *left_out)}
            for row in self.execute(sa.select(self.labels))
        ]
        return sorted(rows, key=lambda row: tuple(str(row[name]) for name in LABEL_KEY))

    def row(self, key):
        found = self.execute(sa.select(self.labels).where(self.where(key)))
        return found[0] if found else None

    def where(self, key):
        return sa.and_(
            *(self.labels.c[name] == value for name, value in zip(LABEL_KEY, key, strict=True))
        )

    def change(self, key, **values):
        self.execute(sa.update(self.labels).where(self.where(key)).values(values))


def made(home, monkeypatch, url, schema=None, *more, receipts: Receipts | None = None) -> There:
    metadata = database(url, schema, *more)
    insert(url, metadata, receipts or shop_receipts([ODD, "Beta Cafe"], each=2))
    monkeypatch.setenv("HARMONIZER_TABLE_URL", url)
    prefix = f"{schema}." if schema else ""
    home.settings_file.write_text(
        f'[arrivals.tables]\nwords = "{prefix}the words"\nlabels = "{prefix}label\'s"\n'
    )
    pipeline = Pipeline(home)
    pipeline.ingest()
    [found] = (one for one in metadata.sorted_tables if one.name == "label's")
    return There(url, found, pipeline)


@pytest.fixture(params=["sqlite", "postgresql"])
def there(request, home, tmp_path, monkeypatch):
    if request.param == "sqlite":
        return made(home, monkeypatch, f"sqlite:///{tmp_path / 'labels.db'}")
    return made(home, monkeypatch, request.getfixturevalue("postgres_url"), "o'dd schema")


@pytest.fixture
def in_sqlite(home, tmp_path, monkeypatch):
    return made(home, monkeypatch, f"sqlite:///{tmp_path / 'labels.db'}")


def pending(pipeline: Pipeline):
    return next(row for row in labels(pipeline) if row["validation_status"] == "PENDING")


def said(pipeline: Pipeline):
    """What the home's labels say, whichever batch said it last."""
    return table(pipeline, "labels", "batch_id", "batch_time")


def push(there: There, *, commit: bool = True):
    [target] = configured_targets(there.pipeline.settings.arrivals)
    return push_corrections(there.pipeline.warehouse, target, commit=commit)


def undo_all(there: There) -> None:
    undo(there.pipeline.warehouse, Selection(actor="ann"), actor="ann", commit=True)


def test_a_correction_retires_a_row_inserts_one_and_comes_back_as_it_is(there):
    pipeline, wrong = there.pipeline, pending(there.pipeline)
    applied(pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    before = there.rows()
    assert push(there, commit=False).pushed == 1
    assert there.rows() == before
    assert push(there).pushed == 1
    old, new = label_key(wrong), label_key(wrong)._replace(label="GRAND_TOTAL")
    assert there.row(old)["validation_status"] == "INVALID"
    assert there.row(new)["validation_status"] == "VALID"
    assert there.row(new)["merchant_name"] == wrong["merchant_name"]
    assert push(there).pushed == 0
    ours = said(pipeline)
    assert pipeline.ingest().pulled == 1
    assert said(pipeline) == ours


def test_a_correction_that_came_back_without_who_made_it_can_be_undone(there):
    before, ours = there.rows(), said(there.pipeline)
    applied(there.pipeline, correction(pending(there.pipeline), "move", "GRAND_TOTAL"))
    push(there)
    # The clock is set back before what was pushed is undone.
    there.pipeline.warehouse.write(
        lambda con: con.execute(
            "UPDATE pushed_corrections SET pushed_at = pushed_at + INTERVAL 1 DAY"
        )
    )
    there.pipeline.ingest()
    undo_all(there)
    assert push(there).undone == 1
    assert there.rows() == before
    there.pipeline.ingest()
    assert said(there.pipeline) == ours
    assert (push(there).pushed, push(there).undone) == (0, 0)


def test_a_label_that_was_added_is_inserted_and_goes_with_undo(there):
    before = there.rows()
    wrong = pending(there.pipeline)
    added = {**correction(wrong, "add"), "label": "COUPON", "seen_status": None}
    applied(there.pipeline, added)
    assert push(there).pushed == 1
    assert there.row(label_key(added))["validation_status"] == "VALID"
    undo_all(there)
    assert push(there).undone == 1
    assert there.rows() == before


@pytest.mark.parametrize("changed", ["another status", "gone", "the new label is there"])
def test_a_label_that_has_changed_there_is_left_alone_and_listed(in_sqlite, changed):
    wrong = pending(in_sqlite.pipeline)
    key = label_key(wrong)
    applied(in_sqlite.pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    if changed == "another status":
        in_sqlite.change(key, validation_status="VALID")
    elif changed == "gone":
        in_sqlite.execute(sa.delete(in_sqlite.labels).where(in_sqlite.where(key)))
    else:
        new = {**in_sqlite.row(key), "label": "GRAND_TOTAL", "validation_status": "PENDING"}
        in_sqlite.execute(sa.insert(in_sqlite.labels).values(new))
    before = in_sqlite.rows()
    report = push(in_sqlite)
    assert [one.reason for one in report.refused] == ["the label is another one there by now"]
    assert report.pushed == 0
    assert in_sqlite.rows() == before


def test_a_label_that_two_rows_hold_is_left_alone(in_sqlite):
    wrong = pending(in_sqlite.pipeline)
    in_sqlite.execute(sa.insert(in_sqlite.labels).values(dict(in_sqlite.row(label_key(wrong)))))
    before = in_sqlite.rows()
    applied(in_sqlite.pipeline, correction(wrong, "mark_invalid"))
    assert len(push(in_sqlite).refused) == 1
    assert in_sqlite.rows() == before


def test_a_push_that_was_killed_before_it_was_recorded_is_not_taken_for_a_change(there):
    applied(there.pipeline, correction(pending(there.pipeline), "move", "GRAND_TOTAL"))
    push(there)
    there.pipeline.warehouse.write(lambda con: con.execute("DELETE FROM pushed_corrections"))
    after = there.rows()
    report = push(there)
    assert (report.pushed, report.refused) == (1, [])
    assert there.rows() == after


def test_what_was_pushed_before_an_error_is_recorded(in_sqlite):
    rows = [row for row in labels(in_sqlite.pipeline) if row["validation_status"] == "PENDING"]
    applied(in_sqlite.pipeline, *(correction(row, "mark_invalid") for row in rows[:2]))
    last = label_key(rows[1])
    in_sqlite.execute(
        sa.text(
            'CREATE TRIGGER broken BEFORE UPDATE ON "label\'s" '
            f"WHEN new.image_id = '{last.image_id}' AND new.line_id = {last.line_id} "
            f"AND new.word_id = {last.word_id} "
            "BEGIN SELECT raise(ABORT, 'not this one'); END"
        )
    )
    with pytest.raises(SourceError, match=r"table label's: a label cannot be written \("):
        push(in_sqlite)
    assert len(table(in_sqlite.pipeline, "pushed_corrections")) == 1
    assert in_sqlite.row(label_key(rows[0]))["validation_status"] == "INVALID"
    assert in_sqlite.row(last)["validation_status"] == "PENDING"


def test_columns_for_who_and_why_are_filled_where_the_table_has_them(home, monkeypatch, tmp_path):
    there = made(
        home,
        monkeypatch,
        f"sqlite:///{tmp_path / 'labels.db'}",
        None,
        sa.Column("label_proposed_by", sa.String),
        sa.Column("reasoning", sa.String),
        sa.Column("timestamp_added", sa.DateTime),
    )
    wrong = pending(there.pipeline)
    applied(there.pipeline, correction(wrong, "move", "GRAND_TOTAL"))
    push(there)
    new = there.row(label_key(wrong)._replace(label="GRAND_TOTAL"))
    assert (new["label_proposed_by"], new["reasoning"]) == ("ann", "it's wrong")
    assert isinstance(new["timestamp_added"], dt.datetime)
    ours = said(there.pipeline)
    there.pipeline.ingest()
    assert said(there.pipeline) == ours


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        (sa.DateTime, NOON.replace(tzinfo=None)),
        (sa.Date, NOON.date()),
        (sa.Integer, 41),
        (sa.Numeric(20, 2), 41),
    ],
)
def test_what_is_pushed_is_later_than_all_rows_whatever_counts_changes(
    home, monkeypatch, tmp_path, kind, first
):
    there = made(
        home,
        monkeypatch,
        f"sqlite:///{tmp_path / 'labels.db'}",
        None,
        sa.Column("version", kind, default=first),
    )
    home.settings_file.write_text(
        '[arrivals.tables]\nlabels = "label\'s"\nchanged_at = "version"\noverlap_seconds = 0\n'
    )
    there.pipeline = Pipeline(home)
    there.pipeline.ingest()
    wrong = pending(there.pipeline)
    applied(there.pipeline, correction(wrong, "mark_invalid"))
    push(there)
    assert there.row(label_key(wrong))["version"] > first
    assert there.pipeline.arrivals.waiting()[0] is not None


def test_a_table_that_cannot_be_written_is_said_without_the_password(in_sqlite, monkeypatch):
    applied(in_sqlite.pipeline, correction(pending(in_sqlite.pipeline), "mark_invalid"))
    settings = in_sqlite.pipeline.settings.arrivals.tables
    url = "postgresql://me:very-secret@127.0.0.1:9/labels"
    with pytest.raises(SourceError) as error:
        push_corrections(in_sqlite.pipeline.warehouse, TableTarget(settings, url), commit=True)
    assert "table label's" in str(error.value)
    assert "very-secret" not in str(error.value)
    assert table(in_sqlite.pipeline, "pushed_corrections") == []


def test_the_command_pushes_to_the_table_that_the_settings_name(in_sqlite, home):
    wrong = pending(in_sqlite.pipeline)
    applied(in_sqlite.pipeline, correction(wrong, "mark_invalid"))
    assert "1 corrections would be pushed to table label's" in cli("push", home=home.root).stdout
    assert "1 corrections pushed" in cli("push", "--commit", home=home.root).stdout
    assert in_sqlite.row(label_key(wrong))["validation_status"] == "INVALID"
    home.settings_file.write_text('[arrivals.tables]\nwords = "the words"\n')
    assert "no table to push to" in shown_error(cli("push", home=home.root))
