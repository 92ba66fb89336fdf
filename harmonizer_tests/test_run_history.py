from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from harmonizer_assets.checks import outlier_rate_steady, verdicts_steady
from harmonizer_assets.core.settings import Settings
from harmonizer_assets.resources import HarmonizerResource
from harmonizer_tests.receipts import harmonize, shop_receipts, table

NOON = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)


def remember(harmonizer, *runs: dict[str | None, tuple[int, int]]) -> None:
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

    harmonizer.warehouse.write(write)


def answer(harmonizer, model: str, prompt: str, hour: int, words: dict[str, bool]) -> None:
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

    harmonizer.warehouse.write(write)


def test_a_run_that_changed_something_is_remembered_once(harmonizer, tmp_path):
    shop_receipts().submit(harmonizer, tmp_path)
    harmonize(harmonizer)
    harmonizer.record_run("first")
    harmonizer.record_run("nothing new")
    rows = table(harmonizer, "run_history")
    assert {row["run_id"] for row in rows} == {"first"}
    [total] = [row for row in rows if row["label_type"] is None]
    assert (total["labels"], total["outliers"]) == (96, 2)
    assert sum(row["labels"] for row in rows) == 2 * 96


def test_a_jump_of_one_label_type_is_found_and_says_from_where_to_where(harmonizer):
    remember(
        harmonizer, {"DATE": (500, 10), "TIME": (500, 10)}, {"DATE": (510, 90), "TIME": (500, 12)}
    )
    assert [str(jump) for jump in harmonizer.outlier_rate_jumps()] == ["DATE: 2.0% to 17.6%"]


def test_the_last_run_is_compared_with_the_one_before_it_and_no_other(harmonizer):
    remember(harmonizer, {"DATE": (500, 10)}, {"DATE": (500, 200)}, {"DATE": (500, 201)})
    assert harmonizer.outlier_rate_jumps() == []


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
def test_no_jump_is_made_of_chance_or_of_what_cannot_be_compared(harmonizer, runs):
    remember(harmonizer, *runs)
    assert harmonizer.outlier_rate_jumps() == []


def test_a_jump_makes_the_check_warn(harmonizer):
    remember(harmonizer, {None: (500, 10)}, {None: (500, 100)})
    result = outlier_rate_steady(HarmonizerResource())
    assert not result.passed
    assert result.metadata["jumps"].value == "all labels: 2.0% to 20.0%"


def test_verdicts_that_change_with_the_prompt_make_the_check_warn(harmonizer):
    words = [f"word-{number}" for number in range(20)]
    answer(harmonizer, "m", "1", 0, dict.fromkeys(words, False))
    assert verdicts_steady(HarmonizerResource()).passed
    answer(harmonizer, "m", "2", 1, {word: word < "word-12" for word in words})
    drift = harmonizer.verdict_drift()
    assert (drift.words, drift.now, drift.before) == (20, "m / 2", "m / 1")
    result = verdicts_steady(HarmonizerResource())
    assert not result.passed
    assert result.metadata["judged_otherwise"].value == pytest.approx(4 / 20)


def test_only_words_that_both_have_judged_are_compared(harmonizer):
    answer(harmonizer, "old", "1", 0, {"a": False, "b": True})
    answer(harmonizer, "new", "1", 1, {"a": False, "c": True})
    drift = harmonizer.verdict_drift()
    assert (drift.words, drift.changed) == (1, 0.0)


def test_how_much_may_change_is_a_setting(home, harmonizer):
    remember(harmonizer, {"DATE": (500, 10)}, {"DATE": (510, 90)})
    home.settings_file.write_text("[checks]\nmax_outlier_rate_jump = 0.5\n")
    loose = type(harmonizer)(home, Settings.load(home.settings_file))
    assert loose.outlier_rate_jumps() == []
