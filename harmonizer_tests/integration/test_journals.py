"""The journals of answers: what a killed run or a bad disk leaves of them is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.judge.llm.memory.journal import Journal, recover
from harmonizer_assets.core.judge.llm.memory.records import read_records
from harmonizer_assets.core.pipeline import Pipeline, Reporter
from harmonizer_assets.core.records.account import Account
from harmonizer_assets.core.records.label import Usage
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.store.warehouse import Warehouse

DATE = PartitionKey("DATE", "shop")


def answer(key: str, **changed: Any) -> dict[str, Any]:
    row = {
        "verdict_key": key,
        "model": "some-model",
        "prompt_version": "2",
        "label_type": "DATE",
        "merchant_key": "shop",
        "word_text": "Größe 1",
        "is_outlier": False,
        "suggested_label": None,
        "confidence": 0.9,
        "reasoning": None,
        "prompt_tokens": 10,
        "completion_tokens": 1,
        "cost_usd": 0.001,
        "created_at": "2026-11-26T10:00:00+00:00",
    }
    return {**row, **changed}


def left_by_a_killed_run(folder: Path, records: int = 3) -> Path:
    """A journal of one answer per record, k0, k1 and so on."""
    journal = Journal(folder, Account("killed", "killed"))
    for number in range(records):
        journal.append([answer(f"k{number}")], {DATE: Usage(calls=1, prompt_tokens=10)})
    [path] = folder.glob("*.ndjson")
    return path


def stored(warehouse: Warehouse) -> list[str]:
    rows = warehouse.query("SELECT verdict_key FROM llm_verdicts ORDER BY ALL")
    return list(rows["verdict_key"].to_pylist())


DAMAGES = {
    "not JSON": lambda line: b"x" + line[1:],
    "zeros of a lost block": lambda line: bytes(len(line) - 1) + b"\n",
    "not UTF-8": lambda line: line.replace("ö".encode(), b"\xff\xfe"),
    "cut": lambda line: line[: len(line) // 2] + b"\n",
    "joined with what followed": lambda line: line[:-1] + b"{}" + b"\n",
    "JSON of something else": lambda line: b"[1, 2]\n",
    "an answer without its verdict": lambda line: line.replace(b'"is_outlier"', b'"is_outliar"'),
    "a value of another type": lambda line: line.replace(b"0.001", b'"a"'),
    "a number that no column holds": lambda line: line.replace(b"10", b"1" * 30),
    "empty": lambda line: b"\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_set_aside_and_said_and_the_rest_is_used(home: Home, damage):
    home.ensure()
    warehouse = Warehouse(home)
    path = left_by_a_killed_run(home.journals)
    first, second, third = path.read_bytes().splitlines(keepends=True)
    damaged = DAMAGES[damage](second)
    assert damaged != second
    path.write_bytes(first + damaged + third)
    [warning] = recover(home.journals, warehouse)
    assert stored(warehouse) == ["k0", "k2"]
    kept = home.journals / "damaged" / path.name
    assert kept.read_bytes() == damaged
    for told in (str(path), str(kept), "1 damaged", "2 answers", "asked again"):
        assert told in warning
    usage = warehouse.query("SELECT sum(calls)::INTEGER AS n FROM llm_usage")
    assert usage["n"].to_pylist() == [2]
    assert not list(home.journals.glob("*.ndjson"))
    assert recover(home.journals, warehouse) == []


def test_every_run_says_what_it_has_set_aside_and_goes_on(home: Home):
    path = left_by_a_killed_run(home.journals)
    path.write_bytes(b"?\n" + path.read_bytes())
    warnings = []

    class Warned(Reporter):
        def warned(self, warning: str) -> None:
            warnings.append(warning)

    pipeline = Pipeline(home)
    pipeline.harmonize(RunOptions(), Warned())
    assert len(warnings) == 1
    assert "set aside" in warnings[0]
    assert stored(pipeline.warehouse) == ["k0", "k1", "k2"]


def test_a_last_line_that_was_not_finished_is_no_damage(home: Home):
    home.ensure()
    path = left_by_a_killed_run(home.journals)
    path.write_bytes(path.read_bytes()[:-20])
    warehouse = Warehouse(home)
    assert recover(home.journals, warehouse) == []
    assert stored(warehouse) == ["k0", "k1"]


def test_a_journal_of_an_older_version_counts(home: Home):
    home.ensure()
    home.journals.mkdir()
    record = {"run_id": "old", "answers": [answer("k")], "usage": [["DATE", "shop", {"calls": 1}]]}
    (home.journals / "1.ndjson").write_text(json.dumps(record) + "\n")
    warehouse = Warehouse(home)
    assert recover(home.journals, warehouse) == []
    assert stored(warehouse) == ["k"]


@given(st.binary(max_size=300))
def test_no_content_of_a_journal_is_an_error(tmp_path_factory: pytest.TempPathFactory, content):
    path = tmp_path_factory.mktemp("journal") / "1.ndjson"
    path.write_bytes(content)
    records = read_records(path)
    assert records.whole == []
    ended = content[: content.rfind(b"\n") + 1]
    assert b"".join(records.damaged) == ended


def test_a_journals_name_is_on_the_disk_before_its_first_line_is(home: Home, synced):
    Journal(home.journals, Account("run", "run"))
    assert synced == [home.journals]


def test_answers_are_on_the_disk_before_anything_is_done_with_them(home: Home, synced):
    journal = Journal(home.journals, Account("run", "run"))
    [path] = home.journals.glob("*.ndjson")
    synced.clear()
    journal.append([answer("k0")], {DATE: Usage(calls=1)})
    assert synced == [path]
    assert [record["answers"] for _, record in read_records(path).whole] == [[answer("k0")]]


def test_what_was_folded_before_a_kill_is_not_counted_again_after_it(home: Home):
    warehouse = Warehouse(home)
    journal = Journal(home.journals, Account("killed", "killed"))
    journal.append([answer("k0")], {DATE: Usage(calls=1)})
    warehouse.write(journal.fold)
    journal.append([answer("k1")], {DATE: Usage(calls=1)})
    # The process is killed here: only what lies on the disk is left.
    recover(home.journals, warehouse)
    assert stored(warehouse) == ["k0", "k1"]
    assert warehouse.query("SELECT sum(calls)::INTEGER AS n FROM llm_usage")["n"].to_pylist() == [2]
