"""Labels that a person has rejected are 'already rejected': apart, and not found again."""

from __future__ import annotations

import copy
from collections import Counter

import pytest

from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.report.drift import jumps
from harmonizer_tests.support.chat_server import chat_server
from harmonizer_tests.support.environment import use_endpoint
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import OFFLINE, harmonize, shop_receipts, table

MERCHANTS = ("Alpha Mart", "Beta Cafe", "Gamma's | Deli", "Delta")
SCORERS = ("model", "evidence", "count_rule")


def with_rejected(receipts):
    """Reject every label that is known to be wrong, put the right one beside it, and reject one
    that is right."""
    wrong = {tuple(key) for key in receipts.wrong}
    corrected = []
    for label in receipts.labels:
        key = tuple(label[name] for name in ("image_id", "receipt_id", "line_id", "word_id"))
        if (*key, label["label"]) in wrong:
            label["validation_status"] = "INVALID"
            corrected.append({**label, "label": "GRAND_TOTAL", "validation_status": "VALID"})
    right = next(label for label in receipts.labels if label["label"] == "TIME")
    right["validation_status"] = "INVALID"
    return right, corrected


@pytest.fixture
def rejected(home, tmp_path):
    """A home in which people have rejected four wrong labels and a right one."""
    receipts = shop_receipts(MERCHANTS, each=8)
    right, corrected = with_rejected(receipts)
    receipts.labels.extend(corrected)

    def make(fresh):
        pipeline = Pipeline(fresh)
        receipts.submit(pipeline, tmp_path / "files")
        harmonize(pipeline)

    copy_home(home, "rejected labels", make)
    return Pipeline(home), right


def test_they_are_no_outliers_and_have_counts_of_their_own(rejected):
    pipeline, _ = rejected
    counts = pipeline.tables.counts()
    assert counts.rejected == len(MERCHANTS) + 1
    assert counts.outliers == 0
    assert (
        counts.valid + counts.outliers + counts.unresolved + counts.rejected
        == counts.labels
        == len(table(pipeline, "label_decisions"))
    )
    assert table(pipeline, "outliers") == []
    assert table(pipeline, "findings") == []


def test_a_person_has_decided_them_and_nothing_is_suggested_in_their_place(rejected):
    pipeline, _ = rejected
    rows = [
        row for row in table(pipeline, "label_decisions") if row["validation_status"] == "INVALID"
    ]
    assert {(row["is_outlier"], row["decided_by"], row["suggested_label"]) for row in rows} == {
        (True, "human", None)
    }
    assert {row["reasoning"] for row in rows} == {"a person has rejected it"}


def test_one_that_looks_right_is_a_finding_of_its_own(rejected):
    pipeline, right = rejected
    rows = table(pipeline, "rejected_labels")
    [found] = [row for row in rows if row["looks_right"]]
    assert (found["image_id"], found["label"]) == (right["image_id"], "TIME")
    assert found["reasoning"].startswith(
        "'14:05' is rejected as TIME, but all else that is known about it says TIME (probability"
    )
    assert [row["label"] for row in pipeline.tables.rejected_that_look_right()] == ["TIME"]
    assert {tuple(row["replaced_by"]) for row in rows if not row["looks_right"]} == {
        ("GRAND_TOTAL",)
    }


def test_the_report_shows_them_apart(rejected):
    pipeline, _ = rejected
    page = pipeline.publication.write_report().read_text(encoding="utf-8")
    assert "<b>5</b>rejected already" in page
    assert "<b>0</b>outliers" in page
    assert "Rejected labels that look right" in page
    assert "all else that is known about it says TIME" in page


@pytest.mark.parametrize("scorer", SCORERS)
def test_no_scorer_finds_them_again_or_takes_them_for_valid(home, tmp_path, scorer):
    receipts = shop_receipts(MERCHANTS, each=3)
    with_rejected(receipts)
    pipeline = Pipeline(home, Settings.model_validate({"similarity": {"scorer": scorer}}))
    receipts.submit(pipeline, tmp_path)
    harmonize(pipeline)
    counts = pipeline.tables.counts()
    assert counts.rejected == len(MERCHANTS) + 1
    assert "INVALID" not in {row["validation_status"] for row in table(pipeline, "outliers")}
    scored = table(pipeline, "similarity_matches")
    assert {row["triage"] for row in scored if row["looks_right"] is not None} == {"outlier"}


def test_the_list_of_outliers_shrinks_as_people_reject_and_the_share_has_not_jumped(home, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=4)
    pipeline = Pipeline(home)
    receipts.submit(pipeline, tmp_path / "before")
    pipeline.run(RunOptions(run_id="before"))
    assert pipeline.tables.counts().outliers == len(MERCHANTS)
    answered = copy.deepcopy(receipts)
    for label in answered.labels:
        if label["validation_status"] == "PENDING":
            label["validation_status"] = "INVALID"
    answered.submit(pipeline, tmp_path / "after")
    pipeline.run(RunOptions(run_id="after"))
    assert pipeline.tables.counts().outliers == 0
    assert jumps(pipeline.warehouse, 0.0) == []
    totals = [
        (row["run_id"], row["outliers"], row["rejected"])
        for row in table(pipeline, "run_history")
        if row["label_type"] is None
    ]
    assert sorted(totals) == [("after", 0, 4), ("before", 4, 0)]


def test_no_model_is_asked_about_them_even_if_it_is_asked_about_all_others(
    home, tmp_path, monkeypatch
):
    receipts = shop_receipts(("Alpha Mart",), each=2)
    with_rejected(receipts)
    with chat_server() as server:
        use_endpoint(monkeypatch, server.url)
        pipeline = Pipeline(home, Settings().with_judge(skip_high_confidence=False))
        receipts.submit(pipeline, tmp_path)
        pipeline.run(RunOptions(judge="openai"))
        assert server.requests
    decided = Counter(row["decided_by"] for row in table(pipeline, "label_decisions"))
    assert decided["human"] == 2
    assert len(table(pipeline, "judgements")) == len(receipts.labels) - 2


def test_outliers_say_the_status_of_the_label(home, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=4)
    pipeline = Pipeline(home)
    receipts.submit(pipeline, tmp_path)
    pipeline.run(OFFLINE)
    assert {row["validation_status"] for row in table(pipeline, "outliers")} == {"PENDING"}
