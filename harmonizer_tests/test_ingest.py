from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.errors import InputError
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.ingest import submit_batch
from harmonizer_tests.receipts import (
    LABEL_COLUMNS,
    WORD_COLUMNS,
    shop_receipts,
    table,
    write_csv,
)

WORD = {
    "image_id": "i",
    "receipt_id": 1,
    "line_id": 1,
    "word_id": 1,
    "text": "TOTAL",
    "x": 0.1,
    "y": 0.2,
    "width": 0.1,
    "height": 0.05,
}
LABEL = {
    "image_id": "i",
    "receipt_id": 1,
    "line_id": 1,
    "word_id": 1,
    "label": "GRAND_TOTAL",
    "validation_status": "VALID",
    "merchant_name": "Shop",
}


def ingest_words(harmonizer, path: Path):
    submit_batch(harmonizer.home, path, None)
    return harmonizer.ingest_pending().batches[-1]


def ingest_labels(harmonizer, path: Path, time: dt.datetime | None = None):
    submit_batch(harmonizer.home, None, path, time=time)
    return harmonizer.ingest_pending().batches[-1]


def quarantined(harmonizer) -> list[tuple[int, str]]:
    return [(row["row_number"], row["reason"]) for row in table(harmonizer, "quarantine")]


# Idempotence and order


def test_the_same_batch_twice_changes_nothing(harmonizer, tmp_path):
    receipts = shop_receipts()
    receipts.submit(harmonizer, tmp_path)
    first = harmonizer.ingest_pending().batches[0]
    before = table(harmonizer, "labels"), table(harmonizer, "words"), table(harmonizer, "batches")
    receipts.submit(harmonizer, tmp_path)
    second = harmonizer.ingest_pending().batches[0]
    assert first.labels_inserted == len(receipts.labels)
    assert second.unchanged
    assert before == (
        table(harmonizer, "labels"),
        table(harmonizer, "words"),
        table(harmonizer, "batches"),
    )


def test_a_changed_status_and_text_update_their_rows(harmonizer, tmp_path):
    ingest_words(harmonizer, write_csv(tmp_path / "w.csv", WORD_COLUMNS, [WORD]))
    ingest_labels(harmonizer, write_csv(tmp_path / "l.csv", LABEL_COLUMNS, [LABEL]))
    words = ingest_words(
        harmonizer, write_csv(tmp_path / "w.csv", WORD_COLUMNS, [{**WORD, "text": "T0TAL"}])
    )
    labels = ingest_labels(
        harmonizer,
        write_csv(tmp_path / "l.csv", LABEL_COLUMNS, [{**LABEL, "validation_status": "invalid"}]),
    )
    assert (words.words_inserted, words.words_updated) == (0, 1)
    assert (labels.labels_inserted, labels.labels_updated) == (0, 1)
    assert table(harmonizer, "words")[0]["text"] == "T0TAL"
    assert table(harmonizer, "labels")[0]["validation_status"] == "INVALID"


@pytest.mark.parametrize("arrival", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (1, 3, 2)])
def test_the_batch_with_the_latest_time_wins_in_whatever_order_they_arrive(
    harmonizer, tmp_path, arrival
):
    statuses = {1: "PENDING", 2: "INVALID", 3: "PENDING"}
    for number in arrival:
        row = {**LABEL, "validation_status": statuses[number]}
        path = write_csv(tmp_path / f"{number}.csv", (*LABEL_COLUMNS, "n"), [{**row, "n": number}])
        ingest_labels(harmonizer, path, dt.datetime(2024, 1, number, tzinfo=dt.UTC))
    assert table(harmonizer, "labels")[0]["validation_status"] == "PENDING"
    assert json.loads(table(harmonizer, "labels")[0]["extra"]) == {"n": "3"}


def test_batches_that_people_put_into_the_inbox_are_ingested_and_kept(harmonizer, tmp_path):
    receipts = shop_receipts()
    receipts.write(harmonizer.home.inbox / "monday")
    receipts.write(harmonizer.home.inbox / ".still-copying")
    report = harmonizer.ingest_pending()
    assert [batch.source for batch in report.batches] == ["monday"]
    assert (harmonizer.home.inbox / ".done" / "monday" / "labels.csv").exists()
    assert harmonizer.ingest_pending().batches == []


def test_an_unreadable_batch_is_set_aside_and_the_others_go_on(harmonizer):
    inbox = harmonizer.home.inbox
    shop_receipts().write(inbox / "good")
    (inbox / "bad").mkdir()
    (inbox / "bad" / "labels.parquet").write_bytes(b"this is not Parquet")
    report = harmonizer.ingest_pending()
    assert [batch.source for batch in report.batches] == ["good"]
    assert "not a Parquet file" in report.failed[0][1]
    assert "not a Parquet file" in (inbox / ".failed" / "bad" / "error.txt").read_text()
    assert "not a Parquet file" in quarantined(harmonizer)[0][1]


# Files that cannot be read at all


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("labels.csv", b"", "the file is empty"),
        ("labels.parquet", b"", "the file is empty"),
        ("labels.parquet", b"PAR1 nonsense PAR1", "not a Parquet file"),
        ("labels.csv", ";".join(LABEL_COLUMNS).encode(), "semicolon-separated"),
        ("labels.csv", "\t".join(LABEL_COLUMNS).encode(), "tab-separated"),
        ("labels.csv", b"image_id,line_id\n", "lacks receipt_id, word_id, label"),
        ("labels.csv", "gr\xf6\xdfe,label\n".encode("latin-1"), "the header is not UTF-8"),
        ("labels.ndjson", b"[1, 2]\nnonsense\n", "no line is a JSON object"),
        ("labels.xlsx", b"PK", "the suffix names the format"),
    ],
)
def test_a_file_that_cannot_be_read_gives_one_clear_error_and_changes_nothing(
    harmonizer, tmp_path, name, content, complaint
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint) as error:
        submit_batch(harmonizer.home, None, path)
    assert str(path) in str(error.value)
    assert list(harmonizer.home.inbox.iterdir()) == []


def test_a_missing_file_and_a_folder_are_named(harmonizer, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        submit_batch(harmonizer.home, tmp_path / "words.csv", None)
    (tmp_path / "words.csv").mkdir()
    with pytest.raises(InputError, match="a folder, not a file"):
        submit_batch(harmonizer.home, tmp_path / "words.csv", None)


# Rows that cannot be used


def test_a_header_alone_is_a_batch_of_no_rows(harmonizer, tmp_path):
    report = ingest_labels(harmonizer, write_csv(tmp_path / "l.csv", LABEL_COLUMNS, []))
    assert (report.labels_read, report.quarantined) == (0, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_id": ""}, "image_id is missing"),
        ({"word_id": ""}, "word_id is missing"),
        ({"line_id": "one"}, "line_id is not a whole number: one"),
        ({"line_id": "1.5"}, "line_id is not a whole number: 1.5"),
        ({"receipt_id": "99999999999999999999"}, "receipt_id is not a whole number"),
        ({"word_id": -3}, "word_id is negative: -3"),
        ({"x": "nan"}, "x is not finite: nan"),
        ({"y": "-inf"}, "y is not finite"),
        ({"width": "1e308"}, "width is outside the image: 1e308"),
        ({"height": "tall"}, "height is not a number: tall"),
        ({"text": "x" * 10_485_760}, "text is 10485760 characters; the limit is 10000"),
    ],
)
def test_a_bad_word_is_quarantined_with_its_row_and_reason_and_the_good_ones_go_on(
    harmonizer, tmp_path, change, reason
):
    rows = [WORD, {**WORD, "word_id": 2, **change}, {**WORD, "word_id": 3}]
    report = ingest_words(harmonizer, write_csv(tmp_path / "w.csv", WORD_COLUMNS, rows))
    assert (report.words_read, report.words_inserted, report.quarantined) == (3, 2, 1)
    [(line, found)] = quarantined(harmonizer)
    assert line == 3
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": "TIPS"}, "unknown label TIPS: correct it or add it to the taxonomy file"),
        ({"label": ""}, "label is missing"),
        ({"validation_status": "MAYBE"}, "unknown validation_status MAYBE"),
        ({"merchant_name": "m" * 3_000}, "merchant_name is 3000 characters"),
    ],
)
def test_a_bad_label_is_quarantined(harmonizer, tmp_path, change, reason):
    rows = [LABEL, {**LABEL, "word_id": 2, **change}]
    ingest_labels(harmonizer, write_csv(tmp_path / "l.csv", LABEL_COLUMNS, rows))
    assert len(table(harmonizer, "labels")) == 1
    assert quarantined(harmonizer)[0][1].startswith(reason)


def test_of_rows_with_the_same_key_the_first_stays(harmonizer, tmp_path):
    rows = [LABEL, {**LABEL, "validation_status": "INVALID"}]
    ingest_labels(harmonizer, write_csv(tmp_path / "l.csv", LABEL_COLUMNS, rows))
    assert table(harmonizer, "labels")[0]["validation_status"] == "VALID"
    assert quarantined(harmonizer) == [(3, "the same key as row 2")]


def test_an_unknown_label_is_accepted_once_the_taxonomy_knows_it(harmonizer, tmp_path):
    path = write_csv(tmp_path / "l.csv", LABEL_COLUMNS, [{**LABEL, "label": "TIPS"}])
    ingest_labels(harmonizer, path)
    assert table(harmonizer, "labels") == []
    harmonizer.home.taxonomy.write_text("label_types: {TIPS: What was given on top.}")
    ingest_labels(Harmonizer(harmonizer.home), path)
    assert [row["label"] for row in table(harmonizer, "labels")] == ["TIPS"]


def test_latin_1_lines_are_quarantined_by_line(harmonizer, tmp_path):
    path = tmp_path / "w.csv"
    path.write_bytes(
        ",".join(WORD_COLUMNS).encode()
        + "\ni,1,1,1,Br\xf6tchen,0,0,0,0\ni,1,1,2,Bun,0,0,0,0\n".encode("latin-1")
    )
    assert ingest_words(harmonizer, path).words_inserted == 1
    assert quarantined(harmonizer) == [(2, "not UTF-8: save the file as UTF-8")]


def test_broken_lines_are_quarantined_by_line(harmonizer, tmp_path):
    path = tmp_path / "w.csv"
    path.write_text(",".join(WORD_COLUMNS) + '\ni,1,1,1,"a"b,0,0,0,0\ni,1,1\ni,1,1,3,c,,,,\n')
    assert ingest_words(harmonizer, path).words_inserted == 1
    assert [line for line, _ in quarantined(harmonizer)] == [2, 3]
    path = tmp_path / "w.ndjson"
    path.write_text(
        json.dumps({**WORD, "word_id": 9}) + '\n{"image_id": \n[1]\n{"image_id": "\\ud800"}\n'
    )
    assert ingest_words(harmonizer, path).words_inserted == 1
    assert len(quarantined(harmonizer)) == 5


def test_words_without_labels_and_labels_without_words_are_kept(harmonizer, tmp_path):
    ingest_words(harmonizer, write_csv(tmp_path / "w.csv", WORD_COLUMNS, [WORD]))
    lonely = {**LABEL, "image_id": "elsewhere"}
    ingest_labels(harmonizer, write_csv(tmp_path / "l.csv", LABEL_COLUMNS, [lonely]))
    [decision] = table(harmonizer, "label_decisions")
    assert decision["word_text"] is None
    assert decision["decided_by"] == "unresolved"


# Formats


def test_new_columns_pass_through_with_their_types(harmonizer, tmp_path):
    rows = [
        {**LABEL, "word_id": n, "score": 0.5 * n, "tags": ["a", "b"], "who's": "me", "ok": n > 1}
        for n in (1, 2)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labels.parquet")
    ingest_labels(harmonizer, tmp_path / "labels.parquet")
    harmonizer.warehouse.export("labels", tmp_path / "out.parquet")
    exported = pq.read_table(tmp_path / "out.parquet").sort_by("word_id").to_pylist()
    assert [row["score"] for row in exported] == [0.5, 1.0]
    assert [row["ok"] for row in exported] == [False, True]
    assert [row["who's"] for row in exported] == ["me", "me"]
    assert json.loads(exported[0]["tags"]) == ["a", "b"]


def test_an_export_can_be_ingested_again_and_changes_nothing(harmonizer, tmp_path):
    row = {**LABEL, "note": "kept"}
    ingest_labels(harmonizer, write_csv(tmp_path / "l.csv", (*LABEL_COLUMNS, "note"), [row]))
    before = table(harmonizer, "labels", "batch_id", "batch_time")
    harmonizer.warehouse.export("labels", tmp_path / "again.csv")
    report = ingest_labels(harmonizer, tmp_path / "again.csv")
    assert (report.labels_inserted, report.labels_updated) == (0, 0)
    assert table(harmonizer, "labels", "batch_id", "batch_time") == before


texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20
) | st.sampled_from(['a,"b"\nc', "🍕 ; \t|", "' OR 1=1 --", "\\", '"'])
words = st.lists(
    st.fixed_dictionaries(
        {
            "image_id": st.sampled_from(["a", "it's", "日本"]),
            "receipt_id": st.integers(0, 3),
            "line_id": st.integers(0, 9),
            "word_id": st.integers(0, 2**40),
            "text": texts,
            "x": st.none() | st.floats(0, 1),
            "y": st.none() | st.floats(0, 1),
            "width": st.none() | st.floats(0, 1),
            "height": st.none() | st.floats(0, 1),
        }
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: tuple(row[name] for name in WORD_COLUMNS[:4]),
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=words)
def test_parquet_csv_and_ndjson_of_the_same_rows_make_the_same_table(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    schema = pa.schema(
        [("image_id", pa.string())]
        + [(name, pa.int64()) for name in WORD_COLUMNS[1:4]]
        + [("text", pa.string())]
        + [(name, pa.float64()) for name in WORD_COLUMNS[5:]]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "words.parquet")
    write_csv(folder / "words.csv", WORD_COLUMNS, rows)
    (folder / "words.ndjson").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    tables = []
    for suffix in ("parquet", "csv", "ndjson"):
        harmonizer = Harmonizer(Home(folder / suffix).ensure())
        report = ingest_words(harmonizer, folder / f"words.{suffix}")
        assert (report.words_inserted, report.quarantined) == (len(rows), 0)
        tables.append(table(harmonizer, "words", "batch_id", "batch_time"))
    assert tables[0] == tables[1] == tables[2]


# Durability


def test_a_process_killed_at_any_moment_of_ingest_leaves_all_or_nothing(tmp_path, home):
    receipts = shop_receipts([f"Shop {n}" for n in range(60)], each=5)
    receipts.submit(Harmonizer(home), tmp_path)
    code = (
        "from harmonizer_assets.core.harmonizer import Harmonizer; "
        "from harmonizer_assets.core.home import Home; "
        "print('ready', flush=True); Harmonizer(Home.resolve()).ingest_pending()"
    )
    for pause in (0.02, 0.08, 0.15, 0.25):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ}
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        harmonizer = Harmonizer(home)
        assert len(table(harmonizer, "labels")) in (0, len(receipts.labels))
    harmonizer.ingest_pending()
    assert len(table(harmonizer, "labels")) == len(receipts.labels)
    assert len(table(harmonizer, "words")) == len(receipts.words)
    assert list(home.inbox.glob("[!.]*")) == []
