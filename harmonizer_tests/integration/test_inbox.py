"""What lies in the inbox: what is a batch, what is set aside, and what is never touched."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.ingest.readers import SUFFIXES
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.store.export import export_table
from harmonizer_tests.support.broken_files import as_file, label_rows
from harmonizer_tests.support.modes import modes_count
from harmonizer_tests.support.receipts import LABEL_COLUMNS, table

GOOD = as_file(label_rows(), ".csv")
HEADER = ",".join(LABEL_COLUMNS).encode()


def put(pipeline: Pipeline, folder: str, files: dict[str, bytes]) -> Path:
    path = pipeline.home.inbox / folder
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def set_aside(pipeline: Pipeline) -> list[str]:
    """Ingest with a good batch at the end of the queue; the reasons of what was set aside."""
    put(pipeline, "zz-good", {"labels.csv": GOOD})
    report = pipeline.ingest()
    assert [batch.source for batch in report.batches if batch.labels_inserted][-1:] == ["zz-good"]
    assert [path.name for path in pipeline.home.inbox.glob("[!.]*")] == []
    return [error for _, error in report.failed]


def parquet(*columns: str) -> bytes:
    sink = pa.BufferOutputStream()
    values = [[label_rows()[0].get(name, "x")] for name in columns]
    pq.write_table(pa.table([pa.array(v) for v in values], names=list(columns)), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"labels.csv": b'"image_id"x,' + HEADER}, "line 1: the header is not valid"),
        ({"labels.csv": b'image_id,"receipt_id\n'}, "line 1: the header is not valid"),
        ({"labels.csv": GOOD, "labels.ndjson": GOOD}, "labels.csv and labels.ndjson: a batch has"),
        ({"labels.csv": GOOD, "Labels.CSV": GOOD}, "Labels.CSV and labels.csv: a batch has"),
        ({"labels.csv": GOOD, "words.xlsx": b"x"}, "bad: words.xlsx: the suffix names the format"),
        ({"labels.csv": HEADER + b",Text,text\n"}, "the columns Text and text differ only in case"),
        ({"labels.csv": HEADER + b",Merchant_Key\n"}, "column Merchant_Key: write it"),
        ({"labels.csv": HEADER + b",a\x00b\n"}, "holds a control character"),
        ({"labels.parquet": parquet(*LABEL_COLUMNS, "note", "note")}, "column note stands twice"),
        ({"labels.parquet": b"PAR1" + b"\x00" * 50 + b"PAR1"}, "not a Parquet file"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_ingested_is_set_aside_by_name(pipeline, files, reason):
    put(pipeline, "bad", files)
    [error] = set_aside(pipeline)
    assert reason in error
    assert error in (pipeline.home.inbox / ".failed" / "bad" / "error.txt").read_text()
    assert error in [row["reason"] for row in table(pipeline, "quarantine")]


@pytest.mark.parametrize("names", [("file_row_number",), ("",), ("row_number", "problem", "extra")])
def test_a_column_may_have_any_name_that_can_be_exported(pipeline, names, tmp_path):
    put(pipeline, "odd", {"labels.parquet": parquet(*LABEL_COLUMNS, *names)})
    assert pipeline.ingest().failed == []
    assert table(pipeline, "quarantine") == []
    for suffix in SUFFIXES:
        out = tmp_path / f"labels{suffix}"
        rows = export_table(pipeline.warehouse, "labels", out)
        found = duckdb.sql(f"FROM '{out}'")
        assert len(found.fetchall()) == rows
        for name in names:
            values = found.select(duckdb.ColumnExpression(name or "unnamed")).fetchall()
            assert ("x",) in values


def test_suffixes_count_in_any_case(pipeline):
    put(pipeline, "loud", {"labels.CSV": GOOD})
    assert pipeline.ingest().total("labels_inserted") == len(label_rows())


def test_links_are_not_followed(pipeline, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "labels.csv").write_bytes(b"secret")
    (outside / "error.txt").write_bytes(b"mine")
    folder = put(pipeline, "linked", {"words.csv": b"nonsense"})
    (folder / "error.txt").symlink_to(outside / "error.txt")
    folder = put(pipeline, "linking", {})
    (folder / "labels.csv").symlink_to(outside / "labels.csv")
    (pipeline.home.inbox / "whole").symlink_to(outside)
    (pipeline.home.inbox / ".failed").symlink_to(outside)
    errors = set_aside(pipeline)
    assert sum("a symbolic link: links are not followed" in error for error in errors) == 2
    assert sorted(path.name for path in outside.iterdir()) == ["error.txt", "labels.csv"]
    assert (outside / "error.txt").read_bytes() == b"mine"
    assert "secret" not in str(table(pipeline, "quarantine"))
    assert "nonsense" in (pipeline.home.inbox / ".failed" / "linked" / "error.txt").read_text()


def test_what_waits_for_no_reader_neither_blocks_nor_stays(pipeline):
    """A pipe would block whoever opens it; what is no batch may be in the making for a minute."""
    folder = put(pipeline, "pipe", {})
    os.mkfifo(folder / "labels.csv")
    stray = pipeline.home.inbox / "labels.csv"
    stray.write_bytes(GOOD)
    put(pipeline, "other", {"lables.csv": GOOD})
    assert [error for _, error in pipeline.ingest().failed] == ["pipe: labels.csv: not a file"]
    old = time.time() - 120
    for path in (
        stray,
        pipeline.home.inbox / "other" / "lables.csv",
        pipeline.home.inbox / "other",
    ):
        os.utime(path, (old, old))
    errors = set_aside(pipeline)
    assert [error.split(" (")[0] for error in errors] == [
        "labels.csv: not a folder: put words.* and labels.* into a folder",
        "other: no words.* or labels.* file",
    ]


@pytest.mark.parametrize(
    "manifest", [{"source": {}}, {"source": {"labels": "x"}}, {"time": None}, [], "x"]
)
def test_only_our_own_copies_are_deleted(pipeline, manifest):
    put(pipeline, "mine", {"labels.csv": GOOD, "batch.json": json.dumps(manifest).encode()})
    pipeline.ingest()
    assert (pipeline.home.inbox / ".done" / "mine" / "labels.csv").read_bytes() == GOOD


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b"{'time': 2026}", "not JSON"),
        (b'{"time": "2026-13-45"}', "time is no time"),
        (b'{"time": 20260301}', "time is no time"),
        pytest.param(b'{"x": "' + b"y" * 70_000 + b'"}', "not JSON, or longer", id="long"),
        (None, "a symbolic link"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_said_since_its_time_decides(
    pipeline, tmp_path, manifest, said
):
    files = {"labels.csv": GOOD} | ({"batch.json": manifest} if manifest else {})
    put(pipeline, "mine", files)
    if manifest is None:
        (tmp_path / "real.json").write_text('{"time": "2026-03-01"}')
        (pipeline.home.inbox / "mine" / "batch.json").symlink_to(tmp_path / "real.json")
    report = pipeline.ingest()
    assert report.batches == []
    [(name, problem)] = report.failed
    assert name == "mine"
    assert problem.startswith(f"mine: batch.json: {said}")
    assert (pipeline.home.inbox / ".failed" / "mine" / "labels.csv").exists()


def test_a_manifest_that_may_not_be_read_is_said(pipeline):
    folder = put(pipeline, "mine", {"labels.csv": GOOD, "batch.json": b"{}"})
    (folder / "batch.json").chmod(0)
    with modes_count():
        report = pipeline.ingest()
    assert report.failed == [("mine", "mine: batch.json: cannot be read (Permission denied)")]


@pytest.mark.parametrize("left", ["labels.csv", "batch.json"])
def test_what_a_killed_process_leaves_of_an_ingested_batch_is_no_batch(
    pipeline, tmp_path, monkeypatch, left
):
    labels = tmp_path / "labels.csv"
    labels.write_bytes(as_file(label_rows(), ".csv"))
    submit_batch(pipeline.home, None, labels)

    rmtree = shutil.rmtree

    def killed(folder: Path, **options) -> None:
        if folder.parent != pipeline.home.inbox:
            rmtree(folder, **options)
            return
        for path in folder.iterdir():
            if path.name != left:
                path.unlink()
        raise SystemExit

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(SystemExit):
        pipeline.ingest()
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    before = table(pipeline, "labels")
    assert pipeline.ingest().batches == []
    assert table(pipeline, "labels") == before
    assert not (pipeline.home.inbox / ".done").exists()


def test_the_file_of_a_quarantined_row_is_the_one_that_was_sent(pipeline, tmp_path):
    path = tmp_path / "my labels.csv"
    path.write_bytes(HEADER + b"\ni,1,1,one,DATE,,\n")
    submit_batch(pipeline.home, None, path)
    put(pipeline, "monday", {"labels.csv": HEADER + b"\ni,1,1,two,DATE,,\n"})
    pipeline.ingest()
    files = [row["file"] for row in table(pipeline, "quarantine")]
    assert sorted(files) == sorted([str(path), "monday/labels.csv"])


def test_a_file_that_breaks_after_it_was_sent_is_named_as_it_was_sent(pipeline, tmp_path):
    path = tmp_path / "my labels.csv"
    path.write_bytes(GOOD)
    folder = submit_batch(pipeline.home, None, path)
    (folder / "labels.csv").write_bytes(b"")
    [(_, error)] = pipeline.ingest().failed
    assert error.startswith(f"{path}: the file is empty")


# Quotes in CSV


def read_csv(pipeline: Pipeline, lines: list[str]) -> dict[int, str]:
    """Ingest labels whose note is the last column; the quarantined lines with their reasons."""
    content = "\n".join([HEADER.decode() + ",note", *lines]) + "\n"
    put(pipeline, "quoted", {"labels.csv": content.encode()})
    assert pipeline.ingest().failed == []
    return {row["row_number"]: row["row"] for row in table(pipeline, "quarantine")}


def row(word_id: int, note: str) -> str:
    return f"j,1,1,{word_id},DATE,VALID,Shop,{note}"


def test_a_quote_that_is_never_closed_costs_its_own_line_only(pipeline):
    lost = read_csv(pipeline, [row(1, '"24'), *(row(number, "fine") for number in range(2, 52))])
    assert {line: json.loads(content) for line, content in lost.items()} == {2: [row(1, '"24')]}
    assert len(table(pipeline, "labels")) == 50


def test_a_quote_that_a_later_line_closes_does_not_swallow_the_rows_between(pipeline):
    lines = [row(1, '"24'), *(row(number, "fine") for number in range(2, 9)), row(9, '12"')]
    assert list(read_csv(pipeline, lines)) == [2]
    assert len(table(pipeline, "labels")) == 8


def test_a_text_may_go_over_several_lines(pipeline):
    assert read_csv(pipeline, [row(1, '"two\nlines, ""one""\n1,2,3"'), row(2, 'a 24" pipe')]) == {}
    notes = [json.loads(found["extra"])["note"] for found in table(pipeline, "labels")]
    assert sorted(notes) == ['a 24" pipe', 'two\nlines, "one"\n1,2,3']


# Size


@pytest.mark.parametrize("suffix", [".csv", ".ndjson", ".parquet"])
def test_a_value_over_the_limit_is_quarantined_with_its_key(pipeline, suffix):
    rows = label_rows()
    rows[2]["note"], rows[4]["note"], rows[5]["other"] = "x" * 40_001, "x" * 30_000, "y" * 30_000
    rows[5]["note"] = "x" * 30_000
    put(pipeline, "large", {f"labels{suffix}": as_file(rows, suffix)})
    pipeline.ingest()
    found = {row["reason"].split("; ")[0]: row["row"] for row in table(pipeline, "quarantine")}
    assert sorted(found) == [
        "note is 40,001 bytes",
        "the row is over 50,000 bytes ([limits] max_row_bytes)",
    ]
    assert json.loads(found["note is 40,001 bytes"])["word_id"] == "2"


def test_values_that_a_small_file_repeats_are_not_unpacked(pipeline):
    count = 3_000
    base = {name: [label_rows()[0][name]] * count for name in LABEL_COLUMNS[:-1]}
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), ["x" * 10**6])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({**base, "merchant_name": texts}), sink)
    put(pipeline, "bomb", {"labels.parquet": sink.getvalue().to_pybytes()})
    before = pa.total_allocated_bytes()
    report = pipeline.ingest()
    assert report.total("quarantined") == count
    assert pa.default_memory_pool().max_memory() - before < 200 * 10**6


def test_a_column_chunk_over_the_limit_sets_the_file_aside_before_it_is_read(pipeline):
    pipeline.home.settings_file.write_text("[limits]\nmax_column_chunk_bytes = 1000000\n")
    rows = label_rows()
    rows[0]["note"] = "x" * 1_100_000
    put(pipeline, "huge", {"labels.parquet": as_file(rows, ".parquet")})
    [error] = set_aside(Pipeline(pipeline.home))
    assert "column note takes 1,100,1" in error
    assert "[limits] max_column_chunk_bytes" in error
