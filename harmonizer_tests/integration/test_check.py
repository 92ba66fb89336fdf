"""`harmonizer check`: everything is read, nothing is changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.foreign import FORMATS, format_of


def words_file(folder: Path) -> Path:
    path = folder / "words.csv"
    path.write_text(
        "image_id,receipt_id,line_id,word_id,text,x,y,width,height\n"
        "a,1,0,0,CafÃ© Ã¶l,0.1,0.1,0.1,0.1\n"
        "a,1,0,1,TOTAL,0.95,0.1,0.1,0.1\n"
        "a,1,0,2,9.00,,,,\n"
        "a,1,0,2,9.50,,,,\n"
        "b,1,0,x,1,,,,\n"
        "b,1,0,0,São,7,0.1,0.1,0.1\n",
        encoding="utf-8",
    )
    return path


def labels_file(folder: Path) -> Path:
    path = folder / "labels.csv"
    path.write_text(
        "image_id,receipt_id,line_id,word_id,label,validation_status,merchant_name\n"
        "a,1,0,0,MERCHANT_NAME,VALID,Café\n"
        "a,1,0,2,GRAND_TOTAL,PENDING,\n"
        "a,1,0,9,GRAND_TOTAL,PENDING,Café\n"
        "a,1,0,1,Grand Total,PENDING,Café\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def found(tmp_path: Path) -> dict:
    result = cli(
        "check",
        words_file(tmp_path),
        labels_file(tmp_path),
        "--json",
        tmp_path / "found.json",
        home=tmp_path / "none",
    )
    assert result.returncode == 0, result.stderr
    return json.loads((tmp_path / "found.json").read_text())


def test_it_counts_what_is_there_and_what_is_missing(found):
    counts = {name: found[name] for name in ("words", "receipts", "labels", "merchants")}
    assert counts == {"words": 3, "receipts": 1, "labels": 3, "merchants": 2}
    assert found["label_types"] == {"GRAND_TOTAL": 2, "MERCHANT_NAME": 1}
    assert found["statuses"] == {"PENDING": 2, "VALID": 1}
    assert found["without_position"] == 1
    assert found["outside"] == 1
    assert found["mis_encoded"] == 1
    assert found["without_merchant"] == 1
    assert found["without_word"] == 1
    assert found["duplicates"] == 1
    assert found["rejected"] == 4


def test_each_reason_names_file_row_and_remedy(found):
    reasons = {one["reason"]: one for one in found["reasons"]}
    double = reasons["the same key as an earlier row"]
    assert (Path(double["file"]).name, double["row_number"]) == ("words.csv", 5)
    assert double["remedy"] == "keep one of them"
    assert any("did you mean GRAND_TOTAL" in reason for reason in reasons)
    outside = next(one for reason, one in reasons.items() if "outside the image" in reason)
    assert "shares of the image" in outside["remedy"]


def test_it_changes_nothing_and_makes_no_home(found, tmp_path):
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "found.json",
        "labels.csv",
        "words.csv",
    ]


def test_it_shows_a_table(tmp_path):
    result = cli("check", words_file(tmp_path), labels_file(tmp_path), home=tmp_path / "none")
    assert "cannot be used    4 rows, 1 of them doubles" in result.stdout
    assert "words.csv: row 5" in result.stdout


def test_a_folder_is_checked_as_a_whole(tmp_path):
    words_file(tmp_path)
    labels_file(tmp_path)
    result = cli("check", tmp_path, home=tmp_path / "none")
    assert "MERCHANT_NAME 1" in result.stdout


def test_files_that_are_neither_are_refused_with_a_way_out(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    result = cli("check", path, home=tmp_path / "none")
    assert result.returncode == 2
    assert "--format" in shown_error(result)


@pytest.mark.parametrize("name", ["funsd", "label-studio", "conll", "spreadsheet (Excel)"])
def test_other_formats_are_checked_too(name, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    paths = FORMATS[name].write(source)
    columns = source / "columns.yaml"
    given = ["--columns", columns] if columns.exists() else []
    before = sorted(tmp_path.rglob("*"))
    result = cli("check", *paths, "--format", format_of(name), *given, home=tmp_path / "none")
    assert result.returncode == 0, result.stderr
    assert "9 on 2 receipts" in result.stdout
    assert "company 3" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_another_format_is_checked_with_the_status_and_merchant_that_its_import_would_get(tmp_path):
    paths = FORMATS["funsd"].write(tmp_path)
    said = ("--status", "VALID", "--merchant", "Corner Shop")
    result = cli("check", *paths, "--format", "funsd", *said, home=tmp_path / "none")
    assert result.returncode == 0, result.stderr
    facts = {line[:16].strip(): line[16:].strip() for line in result.stdout.splitlines()}
    assert facts["statuses"] == "VALID 6"
    assert facts["merchants"] == "1"


def test_what_an_import_would_leave_out_is_counted_with_file_row_and_remedy(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"tokens": ["a", ""], "ner_tags": ["DATE", "TAX"]}) + "\n")
    out = tmp_path / "found.json"
    result = cli("check", path, "--format", "hugging-face", "--json", out, home=tmp_path / "none")
    assert result.returncode == 0, result.stderr
    assert "cannot be used    1 rows" in result.stdout
    [reason] = json.loads(out.read_text())["reasons"]
    assert (reason["file"], reason["source_row"]) == (str(path), "line 1, word 1")
    assert reason["reason"] == "the text is empty"
    assert reason["remedy"] == "give the text, or leave the word out"


def test_a_run_shows_what_was_in_its_files(tmp_path, monkeypatch):
    # The pictures of its report take longer than the run.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words, labels = words_file(tmp_path), labels_file(tmp_path)
    result = cli("run", "--words", words, "--labels", labels, home=tmp_path / "home")
    assert "MERCHANT_NAME 1" in result.stdout
    assert "cannot be used    4 rows, 1 of them doubles" in result.stdout
