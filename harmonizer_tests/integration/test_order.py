"""What is said later about a label counts, whatever the clock says."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.apply.undo import Selection, undo
from harmonizer_assets.core.base.clock import is_due, utc_now
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.ingest.inbox import Inbox, submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.store.deletions import Scope
from harmonizer_tests.support.corrections import applied, correction, labels
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import LABEL_COLUMNS, WORD_COLUMNS, write_csv

KEY = {"image_id": "i", "receipt_id": 1, "line_id": 1, "word_id": 1}
RIGHT, SECOND, YEAR = dt.timedelta(0), dt.timedelta(seconds=1), dt.timedelta(days=365)


class Clock:
    """A wall clock that can be set; the files' times are those of the machine's own.

    It moves by a little whenever it is asked, so that no second passes where a machine is slow.
    """

    def __init__(self) -> None:
        self.offset = dt.timedelta(0)
        self._time = dt.datetime.now(dt.UTC)

    def __call__(self) -> dt.datetime:
        self._time += dt.timedelta(milliseconds=1)
        return self._time + self.offset


@pytest.fixture
def clock(monkeypatch) -> Clock:
    fake = Clock()
    for module in list(sys.modules.values()):
        if getattr(module, "utc_now", None) is utc_now:
            monkeypatch.setattr(module, "utc_now", fake)
    return fake


def send(pipeline: Pipeline, folder: Path, status: str, time: dt.datetime | None = None):
    """Ingest the label with a status, as `harmonizer run` does; return the batch's report."""
    submit(pipeline, folder, status, time)
    return pipeline.ingest().batches[-1]


def submit(pipeline: Pipeline, folder: Path, status: str, time: dt.datetime | None = None) -> None:
    submit_batch(pipeline.home, None, file(folder, status), time=time)


def file(folder: Path, status: str) -> Path:
    row = {**KEY, "label": "DATE", "validation_status": status, "merchant_name": "Shop"}
    return write_csv(folder / f"{status}.csv", LABEL_COLUMNS, [row])


def drop(pipeline: Pipeline, folder: Path, status: str, name: str, time: dt.datetime) -> None:
    """Put a folder into the inbox, as people do, with a file of some time."""
    target = pipeline.home.inbox / name
    target.mkdir()
    shutil.copy(file(folder, status), target / "labels.csv")
    os.utime(target / "labels.csv", (time.timestamp(), time.timestamp()))


def status(pipeline: Pipeline) -> str | None:
    found = labels(pipeline)
    return found[0]["validation_status"] if found else None


@pytest.fixture
def pipeline(home, tmp_path) -> Pipeline:
    def make(fresh: Home) -> None:
        word = {**KEY, "text": "Monday", "x": 0.1, "y": 0.1, "width": 0.1, "height": 0.1}
        submit_batch(fresh, write_csv(tmp_path / "w.csv", WORD_COLUMNS, [word]), None)
        send(Pipeline(fresh), tmp_path, "PENDING")

    copy_home(home, "a word and its label", make)
    return Pipeline(home)


@pytest.mark.parametrize(
    ("first", "second"), [(RIGHT, -SECOND), (RIGHT, -YEAR), (YEAR, RIGHT), (RIGHT, YEAR)]
)
def test_of_a_batch_and_a_correction_the_later_one_wins(pipeline, tmp_path, clock, first, second):
    clock.offset = first
    applied(pipeline, correction(labels(pipeline)[0], "mark_invalid"))
    assert status(pipeline) == "INVALID"
    clock.offset = second
    send(pipeline, tmp_path, "VALID")
    assert status(pipeline) == "VALID"
    clock.offset = first
    applied(pipeline, correction(labels(pipeline)[0], "ask"))
    assert status(pipeline) == "NEEDS_REVIEW"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "correct", "undo", "delete", "drop"]),
        st.sampled_from(["VALID", "INVALID", "NEEDS_REVIEW"]),
        st.sampled_from([-YEAR, -SECOND, RIGHT, YEAR]),
    ),
    min_size=2,
    max_size=7,
)
ACTIONS = {"VALID": "confirm", "INVALID": "mark_invalid", "NEEDS_REVIEW": "ask"}


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(steps=[("send", "INVALID", -SECOND), ("drop", "VALID", -YEAR), ("send", "INVALID", -YEAR)])
@example(
    steps=[("send", "INVALID", -SECOND), ("drop", "VALID", -YEAR), ("send", "INVALID", -SECOND)]
)
@example(
    steps=[
        ("send", "VALID", RIGHT),
        ("correct", "INVALID", RIGHT),
        ("send", "INVALID", RIGHT),
        ("send", "VALID", RIGHT),
    ]
)
@example(
    steps=[
        ("send", "VALID", RIGHT),
        ("correct", "INVALID", RIGHT),
        ("send", "NEEDS_REVIEW", RIGHT),
        ("correct", "VALID", RIGHT),
        ("send", "NEEDS_REVIEW", RIGHT),
        ("undo", "VALID", RIGHT),
    ]
)
@given(steps=STEPS)
def test_whatever_happens_last_counts_although_the_clock_is_set_between(
    steps, clock, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("steps")
    pipeline = Pipeline(Home(folder / "home").ensure())
    # What the label is, what an undo makes of it, and what the last batch has said about it while
    # none has agreed with the correction since: who repeats that does not know of the correction.
    said, before, corrected = None, None, None
    clock.offset = dt.timedelta(0)
    for number, (what, wanted, offset) in enumerate(steps):
        clock.offset = offset
        if what in ("send", "drop"):
            if what == "send":
                send(pipeline, folder, wanted)
            else:
                drop(pipeline, folder, wanted, f"folder-{number}", clock())
                pipeline.ingest()
            if wanted == said:
                corrected = None
            elif wanted != corrected:
                said, before, corrected = wanted, None, None
        elif what == "correct" and said is not None and said != wanted:
            applied(pipeline, correction(labels(pipeline)[0], ACTIONS[wanted]))
            before, corrected = before or said, corrected or said
            said = wanted
        elif what == "undo" and before is not None:
            undo(pipeline.warehouse, Selection(actor="ann"), actor="bob", commit=True)
            said, before, corrected = before, None, None
        elif what == "delete" and said is not None:
            pipeline.deletion.delete(Scope("i"), for_good=False)
            said, before, corrected = None, None, None
        assert status(pipeline) == said, steps[: number + 1]


@pytest.mark.parametrize("offset", [-YEAR, RIGHT, YEAR])
def test_among_batches_that_declare_a_time_only_those_times_count(home, tmp_path, clock, offset):
    pipeline = Pipeline(home)
    past = utc_now() - 3 * YEAR
    clock.offset = offset
    for name, days, wanted, expected in [
        ("b", 3, "VALID", "VALID"),
        ("c", 1, "INVALID", "VALID"),
        ("a", 3, "NEEDS_REVIEW", "VALID"),
        ("d", 4, "PENDING", "PENDING"),
    ]:
        drop(pipeline, tmp_path, wanted, name, clock())
        manifest = {"time": (past + dt.timedelta(days=days)).isoformat()}
        (pipeline.home.inbox / name / "batch.json").write_text(json.dumps(manifest))
        pipeline.ingest()
        assert status(pipeline) == expected


def test_a_batch_that_comes_again_with_a_later_time_holds_as_of_that_time(home, tmp_path):
    pipeline = Pipeline(home)
    noon = utc_now() - YEAR
    send(pipeline, tmp_path, "PENDING", noon)
    assert send(pipeline, tmp_path, "PENDING", noon + 2 * SECOND).unchanged
    report = send(pipeline, tmp_path, "VALID", noon + SECOND)
    assert (status(pipeline), report.labels_outdated) == ("PENDING", 1)


def test_data_from_before_what_was_corrected_does_not_win_and_data_from_after_does(
    home, tmp_path, clock
):
    pipeline = Pipeline(home)
    noon = utc_now() - YEAR
    send(pipeline, tmp_path, "PENDING", noon)
    clock.offset = YEAR
    word = {**KEY, "text": "Monday", "x": 0.1, "y": 0.1, "width": 0.1, "height": 0.1}
    submit_batch(home, write_csv(tmp_path / "w.csv", WORD_COLUMNS, [word]), None, time=noon)
    pipeline.ingest()
    applied(pipeline, correction(labels(pipeline)[0], "mark_invalid"))
    clock.offset = RIGHT
    report = send(pipeline, tmp_path, "NEEDS_REVIEW", noon - SECOND)
    assert (status(pipeline), report.labels_outdated) == ("INVALID", 1)
    send(pipeline, tmp_path, "VALID", noon + SECOND)
    assert status(pipeline) == "VALID"


def test_data_from_before_a_batch_that_repeats_what_was_corrected_does_not_win(home, tmp_path):
    pipeline = Pipeline(home)
    noon = utc_now() - YEAR
    word = {**KEY, "text": "Monday", "x": 0.1, "y": 0.1, "width": 0.1, "height": 0.1}
    submit_batch(home, write_csv(tmp_path / "w.csv", WORD_COLUMNS, [word]), None, time=noon)
    send(pipeline, tmp_path, "PENDING", noon)
    applied(pipeline, correction(labels(pipeline)[0], "mark_invalid"))
    assert send(pipeline, tmp_path, "PENDING", noon + 3 * SECOND).labels_repeated == 1
    report = send(pipeline, tmp_path, "NEEDS_REVIEW", noon + SECOND)
    assert (status(pipeline), report.labels_outdated) == ("INVALID", 1)
    undo(pipeline.warehouse, Selection(actor="ann"), actor="bob", commit=True)
    assert status(pipeline) == "PENDING"
    report = send(pipeline, tmp_path, "NEEDS_REVIEW", noon + 2 * SECOND)
    assert (status(pipeline), report.labels_outdated) == ("PENDING", 1)
    send(pipeline, tmp_path, "VALID", noon + 4 * SECOND)
    assert status(pipeline) == "VALID"


def test_batches_that_wait_together_follow_each_other_as_they_were_submitted(
    pipeline, tmp_path, clock
):
    for wanted, offset in [("VALID", YEAR), ("INVALID", RIGHT), ("NEEDS_REVIEW", -YEAR)]:
        clock.offset = offset
        submit(pipeline, tmp_path, wanted)
    clock.offset = RIGHT
    assert len(pipeline.ingest().batches) == 3
    assert status(pipeline) == "NEEDS_REVIEW"


def test_a_batch_that_was_submitted_while_the_clock_was_behind_is_later_once_it_is_right(
    pipeline, tmp_path, clock
):
    clock.offset = 5 * SECOND
    send(pipeline, tmp_path, "VALID")
    clock.offset = RIGHT
    submit(pipeline, tmp_path, "INVALID")
    clock.offset = 60 * SECOND
    pipeline.ingest()
    assert status(pipeline) == "INVALID"


@pytest.mark.parametrize("name", ["monday", "tuesday"])
def test_a_folder_that_is_moved_back_into_the_inbox_holds_again_with_its_old_time(
    pipeline, tmp_path, name
):
    drop(pipeline, tmp_path, "VALID", "monday", utc_now() - SECOND)
    pipeline.ingest()
    send(pipeline, tmp_path, "INVALID")
    inbox = Inbox(pipeline.home)
    (pipeline.home.inbox / ".done" / "monday").rename(pipeline.home.inbox / name)
    assert inbox.waiting() is not None
    pipeline.ingest()
    assert status(pipeline) == "VALID"


def test_what_a_killed_run_has_left_in_the_inbox_does_not_come_again(
    pipeline, tmp_path, monkeypatch
):
    drop(pipeline, tmp_path, "NEEDS_REVIEW", "monday", utc_now())
    submit(pipeline, tmp_path, "VALID")
    left = Inbox(pipeline.home).pending()
    with monkeypatch.context() as patch:
        patch.setattr(Inbox, "remove", lambda *_: None)
        pipeline.ingest()
        send(pipeline, tmp_path, "INVALID")
        patch.setattr(Inbox, "pending", lambda _: left)
        assert [batch.unchanged for batch in pipeline.ingest().batches] == [True, True]
    assert status(pipeline) == "INVALID"


@pytest.mark.parametrize(
    ("passed", "expected"),
    [(None, True), (RIGHT, False), (0.9 * SECOND, False), (SECOND, True), (-SECOND, True)],
)
def test_a_time_to_come_does_not_put_off_what_is_done_now_and_then(passed, expected):
    now = utc_now()
    last = None if passed is None else now - passed
    assert is_due(last, SECOND, now) is expected
