"""Bought answers decide whoever runs, as long as they fit their questions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_tests.support.chat_server import ChatServer, chat_server
from harmonizer_tests.support.environment import use_endpoint
from harmonizer_tests.support.labels import scored_copy
from harmonizer_tests.support.receipts import table

# The model guarantees nothing without validated labels, so similar words decide the clear cases.
SETTINGS = Settings.model_validate({"similarity": {"scorer": "evidence"}})
PLAIN = RunOptions()


@pytest.fixture
def server(home: Home, monkeypatch: pytest.MonkeyPatch):
    with chat_server() as state:
        state.decide = lambda text: text[-1] in "13579"
        use_endpoint(monkeypatch, state.url)
        yield state


@pytest.fixture
def shop(home: Home, server: ChatServer) -> Home:
    scored_copy(home, SETTINGS, label_types=3, words=12, wrong=0.2)
    return home


def opened(home: Home, **judge: Any) -> Pipeline:
    return Pipeline(home, SETTINGS.with_judge(**judge))


def bought(home: Home, **judge: Any) -> Pipeline:
    """All labels judged by a model, the clear ones included."""
    pipeline = opened(home, skip_high_confidence=False, **judge)
    pipeline.harmonize(RunOptions(judge="openai"))
    return pipeline


def decisions(pipeline: Pipeline) -> dict[Any, tuple[Any, ...]]:
    keys = ("image_id", "receipt_id", "line_id", "word_id", "label")
    what = ("is_outlier", "suggested_label", "confidence", "reasoning")
    return {
        tuple(row[name] for name in keys): tuple(row[name] for name in what)
        for row in table(pipeline, "label_decisions")
    }


def decided_by(pipeline: Pipeline) -> Counter[str]:
    return Counter(row["decided_by"] for row in table(pipeline, "label_decisions"))


@pytest.mark.parametrize("second_look", [False, True])
def test_a_plain_run_keeps_every_decision_that_was_paid_for(shop, server, monkeypatch, second_look):
    paid = bought(shop, second_look=second_look)
    before, asked = decisions(paid), len(server.requests)
    assert decided_by(paid) == {"llm": 36}
    # Whoever runs next need neither have a key nor know the model.
    for name in ("OPENAI_API_KEY", "HARMONIZER_MODEL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name)
    plain = opened(shop, second_look=second_look)
    plain.harmonize(PLAIN)
    assert decisions(plain) == before
    assert decided_by(plain) == {"cache": 36}
    assert plain.stale(PLAIN) == []
    plain.harmonize(RunOptions(refresh=True))
    assert decisions(plain) == before
    assert len(server.requests) == asked


def test_a_run_that_skips_clear_cases_keeps_the_answers_that_were_bought_about_them(shop, server):
    before = decisions(bought(shop))
    asked = len(server.requests)
    pipeline = opened(shop)
    pipeline.harmonize(RunOptions(judge="openai", run_id="later"))
    assert decisions(pipeline) == before
    assert len(server.requests) == asked
    used = [row for row in table(pipeline, "llm_usage") if row["run_id"] == "later"]
    assert sum(row["cache_hits"] for row in used) == 36
    assert sum(row["skipped_by_similarity"] for row in used) == 0


def test_answers_that_were_bought_about_labels_that_are_not_worth_a_question_are_kept(shop, server):
    before = decisions(bought(shop))
    asked = len(server.requests)
    pipeline = opened(shop)
    pipeline.warehouse.write(
        lambda con: con.execute("UPDATE similarity_matches SET triage = 'unasked'") and None
    )
    pipeline.harmonize(
        RunOptions(judge="openai", run_id="later", refresh=True),
        partitions=pipeline.partitions.held(),
        assets=["llm_verdicts", "outliers"],
    )
    assert decisions(pipeline) == before
    assert len(server.requests) == asked
    used = [row for row in table(pipeline, "llm_usage") if row["run_id"] == "later"]
    assert sum(row["cache_hits"] for row in used) == 36
    assert sum(row["skipped_by_similarity"] for row in used) == 0


def test_going_back_to_the_offline_judge_is_said(shop, server):
    offline = opened(shop)
    offline.harmonize(PLAIN)
    before, ways = decisions(offline), decided_by(offline)
    bought(shop)
    back = opened(shop, keep_bought_answers=False)
    back.harmonize(PLAIN)
    assert decisions(back) == before
    assert decided_by(back) == ways


def test_an_answer_to_another_question_decides_nothing(shop, server):
    bought(shop)
    pipeline = opened(shop)
    pipeline.warehouse.write(
        lambda con: con.execute("UPDATE words SET text = 'QX-' || word_id || line_id") and None
    )
    pipeline.harmonize(PLAIN)
    assert not {"llm", "cache"} & set(decided_by(pipeline))


def test_the_model_that_was_asked_last_decides_although_the_clock_was_set_back(
    shop, server, monkeypatch
):
    first = bought(shop)
    first.warehouse.write(
        lambda con: con.execute("UPDATE llm_verdicts SET created_at = created_at + INTERVAL 1 DAY")
    )
    monkeypatch.setenv("HARMONIZER_MODEL", "gpt-4o")
    server.decide = lambda text: text[-1] in "02468"
    before = decisions(bought(shop))
    monkeypatch.setenv("HARMONIZER_MODEL", "gpt-4o-mini")
    plain = opened(shop)
    plain.harmonize(PLAIN)
    assert decisions(plain) == before


def test_what_a_killed_run_has_paid_for_is_used_by_a_plain_run(shop, server):
    """A killed run leaves a journal, and stored answers whose partitions it had not finished."""
    plain = opened(shop)
    plain.harmonize(PLAIN)
    # Left behind by a run that was killed before it could write anything into the tables.
    paid = _journal_of_a_killed_run(shop)
    assert plain.stale(PLAIN) == []
    plain.harmonize(PLAIN)
    assert decided_by(plain)["cache"] == paid
    assert not list(shop.journals.glob("*.ndjson"))


def _journal_of_a_killed_run(home: Home) -> int:
    """Buy in a copy of the home's tables, and leave the answers in a journal only."""
    import json

    pipeline = opened(home, skip_high_confidence=False)
    before = pipeline.home.database.read_bytes()
    pipeline.harmonize(RunOptions(judge="openai"))
    answers = table(pipeline, "llm_verdicts")
    pipeline.home.database.write_bytes(before)
    rows = [{**row, "created_at": row["created_at"].isoformat()} for row in answers]
    for row in rows:
        del row["number"]  # an answer gets it when it comes into the table
    record = {"run_id": "killed", "answers": rows, "usage": []}
    home.journals.mkdir(exist_ok=True)
    (home.journals / "1.ndjson").write_text(json.dumps(record) + "\n")
    return len(rows)
