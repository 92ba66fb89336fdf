from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.report.drift import Jump, drift, jumps, record
from harmonizer_assets.defs.checks import outlier_rate_steady, verdicts_steady
from harmonizer_tests.support.receipts import shop_receipts, table

NOON = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)


def remember(pipeline, *runs: dict[str | None, tuple[int, int]]) -> None:
    """Put runs into the history: labels and outliers by label type."""
    rows = [
        {
            "recorded_at": NOON + dt.timedelta(hours=number),
            "run_id": f"run-{number}",
            "label_type": label_type,
            "labels": labels,
            "outliers": outliers,
            "unresolved": 0,
        }
        for number, run in enumerate(runs)
        for label_type, (labels, outliers) in run.items()
    ]

    def write(con) -> None:
        if rows:
            con.register("remembered", pa.Table.from_pylist(rows))
            con.execute("INSERT INTO run_history BY NAME FROM remembered")

    pipeline.warehouse.write(write)


def answer(pipeline, model: str, prompt: str, hour: int, words: dict[str, bool]) -> None:
    rows = [
        {
            "verdict_key": f"{model}-{prompt}-{word}",
            "model": model,
            "prompt_version": prompt,
            "label_type": "DATE",
            "merchant_key": "alpha",
            "word_text": word,
            "is_outlier": is_outlier,
            "created_at": NOON + dt.timedelta(hours=hour),
        }
        for word, is_outlier in words.items()
    ]

    def write(con) -> None:
        con.register("answers", pa.Table.from_pylist(rows))
        con.execute("INSERT INTO llm_verdicts BY NAME FROM answers")

    pipeline.warehouse.write(write)


def found_jumps(pipeline: Pipeline) -> list[Jump]:
    return jumps(pipeline.warehouse, pipeline.settings.checks.max_outlier_rate_jump)


def test_a_run_that_changed_something_is_remembered_once(pipeline, tmp_path):
    shop_receipts().submit(pipeline, tmp_path)
    for run_id in ("first", "nothing new"):
        pipeline.run(RunOptions(run_id=run_id, judge="offline"))
    rows = table(pipeline, "run_history")
    assert {row["run_id"] for row in rows} == {"first"}
    [total] = [row for row in rows if row["label_type"] is None]
    assert (total["labels"], total["outliers"]) == (96, 2)
    assert sum(row["labels"] for row in rows) == 2 * 96


def test_a_run_dated_in_the_future_is_not_the_last_one_for_ever(pipeline, tmp_path):
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.run(RunOptions(run_id="ahead", judge="offline"))
    pipeline.warehouse.write(
        lambda con: con.execute("UPDATE run_history SET recorded_at = '2099-01-01', number = NULL")
    )
    shop_receipts(["Gamma"], 2, "more").submit(pipeline, tmp_path / "more")
    pipeline.run(RunOptions(run_id="now", judge="offline"))
    remembered = len(table(pipeline, "run_history"))
    record(pipeline.warehouse, "nothing new")
    assert len(table(pipeline, "run_history")) == remembered


def test_a_jump_of_one_label_type_is_found_and_says_from_where_to_where(pipeline):
    remember(
        pipeline, {"DATE": (500, 10), "TIME": (500, 10)}, {"DATE": (510, 90), "TIME": (500, 12)}
    )
    assert [str(jump) for jump in found_jumps(pipeline)] == ["DATE: 2.0% to 17.6%"]


def test_the_last_run_is_compared_with_the_one_before_it_and_no_other(pipeline):
    remember(pipeline, {"DATE": (500, 10)}, {"DATE": (500, 200)}, {"DATE": (500, 201)})
    assert found_jumps(pipeline) == []


@pytest.mark.parametrize(
    "runs",
    [
        ({"DATE": (8, 1)}, {"DATE": (8, 3)}),
        ({"DATE": (500, 10)},),
        ({"DATE": (500, 10)}, {"TIME": (500, 100)}),
        (),
    ],
    ids=["chance", "first run", "new label type", "no run"],
)
def test_no_jump_is_made_of_chance_or_of_what_cannot_be_compared(pipeline, runs):
    remember(pipeline, *runs)
    assert found_jumps(pipeline) == []


def test_a_jump_makes_the_check_warn(pipeline):
    remember(pipeline, {None: (500, 10)}, {None: (500, 100)})
    result = outlier_rate_steady(pipeline)
    assert not result.passed
    assert result.metadata["jumps"].value == "all labels: 2.0% to 20.0%"


def test_verdicts_that_change_with_the_prompt_make_the_check_warn(pipeline):
    words = [f"word-{number}" for number in range(20)]
    answer(pipeline, "m", "1", 0, dict.fromkeys(words, False))
    assert verdicts_steady(pipeline).passed
    answer(pipeline, "m", "2", 1, {word: word < "word-12" for word in words})
    found = drift(pipeline.warehouse)
    assert (found.words, found.now, found.before) == (20, "m / 2", "m / 1")
    result = verdicts_steady(pipeline)
    assert not result.passed
    assert result.metadata["judged_otherwise"].value == pytest.approx(4 / 20)


def test_only_words_that_both_have_judged_are_compared(pipeline):
    answer(pipeline, "old", "1", 0, {"a": False, "b": True})
    answer(pipeline, "new", "1", 1, {"a": False, "c": True})
    found = drift(pipeline.warehouse)
    assert (found.words, found.changed) == (1, 0.0)


def test_how_much_may_change_is_a_setting(home, pipeline):
    remember(pipeline, {"DATE": (500, 10)}, {"DATE": (510, 90)})
    home.settings_file.write_text("[checks]\nmax_outlier_rate_jump = 0.5\n")
    loose = type(pipeline)(home, Settings.load(home.settings_file))
    assert found_jumps(loose) == []
