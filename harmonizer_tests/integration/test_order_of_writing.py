"""What is written later counts as later, also where the clock was set back between two writes."""

from __future__ import annotations

import datetime as dt
import os
import uuid
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harmonizer_assets.core.base.settings import DynamoSettings
from harmonizer_assets.core.ingest.inbox import Inbox, submit_batch
from harmonizer_assets.core.ingest.sources.dynamodb import DynamoSource
from harmonizer_assets.core.judge.llm.memory.cache import store_answers
from harmonizer_assets.core.judge.llm.memory.carried import Carried, find_carried
from harmonizer_assets.core.judge.llm.wire.prompt import PROMPT_VERSION
from harmonizer_assets.core.judge.verdicts import PartitionVerdicts, unresolved, write_verdicts
from harmonizer_assets.core.measure.history import read, record_evaluation
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import LABEL_KEY, LabelKey, Question
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.report.drift import drift
from harmonizer_assets.core.report.page import KEPT, publish_report
from harmonizer_assets.core.score.unknown import NO_WORD
from harmonizer_assets.core.store.extra import with_extra_columns
from harmonizer_tests.support.receipts import shop_receipts, table, write_csv

KEY = LabelKey("i", 1, 1, 1, "DATE")
PAGE = "<title>Harmonization report</title>"


def set_the_clock_back(pipeline: Pipeline, table_name: str, column: str) -> None:
    """Have what is written from now on bear earlier times than what was written so far."""
    pipeline.warehouse.write(
        lambda con: con.execute(f"UPDATE {table_name} SET {column} = {column} + INTERVAL 1 DAY")
    )


def buy(pipeline: Pipeline, model: str, **changed: Any) -> None:
    row = {
        "verdict_key": f"{model} {changed}",
        "model": model,
        "prompt_version": PROMPT_VERSION,
        "label_type": "DATE",
        "merchant_key": "alpha",
        "word_text": "12.50",
        "is_outlier": True,
        "created_at": dt.datetime.now(dt.UTC).isoformat(),
    }
    pipeline.warehouse.write(lambda con: store_answers(con, [{**row, **changed}]))


def test_the_model_whose_answers_came_last_is_compared_with_the_one_before(pipeline):
    for model in ("first", "second"):
        buy(pipeline, model)
        set_the_clock_back(pipeline, "llm_verdicts", "created_at")
    found = drift(pipeline.warehouse)
    assert (found.now, found.before) == (f"second / {PROMPT_VERSION}", f"first / {PROMPT_VERSION}")


def test_of_two_carried_answers_the_later_one_decides(pipeline):
    carried = []
    for old in ("b", "a", "c"):
        buy(pipeline, "m", verdict_key=old, reasoning=old)
        set_the_clock_back(pipeline, "llm_verdicts", "created_at")
        question = Question(KEY, "alpha", None, "12.50", 0.5, 0.5, None, 0.0, carried_answer=old)
        carried.append(Carried(question, "in other words"))
    found = pipeline.warehouse.read(lambda con: find_carried(con, carried, "m"))
    assert found["in other words"][0] == "c"


def test_a_label_without_its_word_is_told_why_the_word_was_quarantined_last(pipeline, tmp_path):
    header = "image_id,receipt_id,line_id,word_id,text,x,y,width,height\n"
    for name, row in (("a", "i,1,1,1,5,left,0,0,0"), ("b", "i,1,1,1,5,0,top,0,0")):
        words = tmp_path / f"{name}.csv"
        words.write_text(header + row + "\n")
        submit_batch(pipeline.home, words, None)
        pipeline.ingest()
        set_the_clock_back(pipeline, "quarantine", "quarantined_at")
    made = PartitionVerdicts(PartitionKey("DATE", "alpha"), unresolved([KEY], NO_WORD))
    pipeline.warehouse.write(lambda con: write_verdicts(con, [made]))
    [row] = table(pipeline, "judgements")
    assert "b.csv" in row["reasoning"]


def test_an_extra_column_is_exported_with_the_type_that_it_had_last(pipeline, tmp_path):
    for number, kind in enumerate((pa.int32(), pa.int8(), pa.int16())):
        ids = {name: pa.array([number + 1]) for name in ("receipt_id", "line_id", "word_id")}
        columns = {"image_id": ["i"], **ids, "text": ["5"], "shelf": pa.array([7], kind)}
        words = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table(columns), words)
        submit_batch(pipeline.home, words, None)
        pipeline.ingest()
        set_the_clock_back(pipeline, "batches", "ingested_at")
    exported = pipeline.warehouse.read(
        lambda con: con.execute(with_extra_columns(con, "words", "typed")).to_arrow_table()
    )
    assert exported.schema.field("shelf").type == pa.int16()


def test_evaluations_are_listed_in_the_order_in_which_they_were_made(pipeline, tmp_path):
    receipts = shop_receipts(["Alpha Mart"], 1)
    receipts.submit(pipeline, tmp_path)
    pipeline.ingest()
    names = [*LABEL_KEY, "is_error"]
    rows = [{name: label.get(name, False) for name in names} for label in receipts.labels]
    truth = write_csv(tmp_path / "truth.csv", names, rows)
    for run_id in ("1", "2", "3"):
        made = record_evaluation(pipeline.warehouse, truth, run_id=run_id)
        set_the_clock_back(pipeline, "quality_history", "evaluated_at")
    history = read(pipeline.warehouse, made.truth_sha256)
    assert [row["run_id"] for row in history] == ["1", "2", "3"]


def test_the_report_that_was_just_written_is_kept(home):
    for _ in range(KEPT):
        ahead = publish_report(home, PAGE, str(uuid.uuid4()))
        os.utime(ahead, (4e9, 4e9))
    assert publish_report(home, PAGE, str(uuid.uuid4())).exists()


def test_a_table_that_was_read_in_the_future_is_due(pipeline):
    settings = DynamoSettings(table="t", every_seconds=3600)
    source = DynamoSource(settings, pipeline.home, pipeline.warehouse)
    pipeline.warehouse.write(
        lambda con: con.execute(
            "INSERT INTO taken_arrivals VALUES ($1, 'table', '1', now())", [source.name]
        )
    )
    assert source.waiting() is None
    set_the_clock_back(pipeline, "taken_arrivals", "taken_at")
    assert source.waiting() is not None


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_folder_of_another_time_is_refused_where_it_has_no_file_to_read(home, hours):
    folder = home.inbox / "day"
    folder.mkdir()
    (folder / "words.xlsx").touch()
    time = dt.datetime.now().timestamp() + hours * 3600
    for path in (folder / "words.xlsx", folder):
        os.utime(path, (time, time))
    [batch] = Inbox(home).pending()
    assert batch.problem is not None
