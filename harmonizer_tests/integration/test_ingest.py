from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import LimitSettings
from harmonizer_assets.core.importers.base import ImportOptions
from harmonizer_assets.core.importers.importing import import_to_home
from harmonizer_assets.core.ingest import staging
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.ingest.readers import TableLayout
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.store import export_table
from harmonizer_tests.support.receipts import (
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


def ingest_words(pipeline, path: Path):
    submit_batch(pipeline.home, path, None)
    return pipeline.ingest().batches[-1]


def ingest_labels(pipeline, path: Path, time: dt.datetime | None = None):
    submit_batch(pipeline.home, None, path, time=time)
    return pipeline.ingest().batches[-1]


def quarantined(pipeline) -> list[tuple[int, str]]:
    return [(row["row_number"], row["reason"]) for row in table(pipeline, "quarantine")]


# Positions


def positions(pipeline) -> list[tuple[float, ...]]:
    return [
        tuple(row[side] for side in ("x", "y", "width", "height"))
        for row in sorted(table(pipeline, "words"), key=lambda row: row["word_id"])
    ]


OUTSIDE = [(-0.02, 0.1, 0.3, 0.1), (0.9, 0.97, 0.12, 0.05), (0.2, 0.3, 0.1, 0.1)]
WITHIN = [(0.0, 0.1, 0.28, 0.1), (0.9, 0.97, 0.1, 0.03), (0.2, 0.3, 0.1, 0.1)]


def placed(*boxes: tuple[float | None, ...]) -> list[dict[str, Any]]:
    sides = ("x", "y", "width", "height")
    key = {"image_id": "a", "receipt_id": 1, "line_id": 1}
    return [
        {**key, "word_id": number, "text": "w", **dict(zip(sides, box, strict=True))}
        for number, box in enumerate(boxes, start=1)
    ]


def test_boxes_that_reach_slightly_out_of_their_image_are_clipped(pipeline, tmp_path):
    path = write_csv(tmp_path / "words.csv", WORD_COLUMNS, placed(*OUTSIDE))
    submit_batch(pipeline.home, path, None)
    [batch] = pipeline.ingest().batches
    assert batch.summary.outside == 2
    found = positions(pipeline)
    assert found == [pytest.approx(box) for box in WITHIN]
    assert found[2] == OUTSIDE[2]


def test_boxes_within_or_far_out_of_their_image_and_incomplete_ones_stay_as_they_came(
    pipeline, tmp_path
):
    boxes = [(0.1, 0.2, 0.9, 0.8), (0.7, 0.1, 0.30000000001, 0.1), (1.5, 0.1, 0.1, 0.1)]
    path = write_csv(tmp_path / "words.csv", WORD_COLUMNS, placed(*boxes, (-0.02, 0.1, None, 0.1)))
    submit_batch(pipeline.home, path, None)
    pipeline.ingest()
    assert positions(pipeline) == [*boxes, (-0.02, 0.1, None, 0.1)]


def test_an_import_and_a_table_of_the_same_words_have_the_same_positions(pipeline, tmp_path):
    own = write_csv(tmp_path / "words.csv", WORD_COLUMNS, placed(*OUTSIDE))
    submit_batch(pipeline.home, own, None)
    pipeline.ingest()
    before = positions(pipeline)
    boxes = [[x, y, x + width, y + height] for x, y, width, height in OUTSIDE]
    record = {"id": "a", "tokens": ["w"] * 3, "bboxes": boxes}
    foreign = tmp_path / "train.jsonl"
    foreign.write_text(json.dumps(record))
    import_to_home("hugging-face", [foreign], pipeline.home, ImportOptions(unit="share"))
    pipeline.ingest()
    assert positions(pipeline) == [pytest.approx(box, abs=1e-12) for box in before]


# Idempotence and order


def test_the_same_batch_twice_changes_nothing(pipeline, tmp_path):
    receipts = shop_receipts()
    receipts.submit(pipeline, tmp_path)
    first = pipeline.ingest().batches[0]
    before = table(pipeline, "labels"), table(pipeline, "words"), table(pipeline, "batches")
    receipts.submit(pipeline, tmp_path)
    second = pipeline.ingest().batches[0]
    assert first.labels_inserted == len(receipts.labels)
    assert second.unchanged
    assert before == (
        table(pipeline, "labels"),
        table(pipeline, "words"),
        table(pipeline, "batches"),
    )


def status_of(pipeline) -> str:
    [row] = table(pipeline, "labels")
    return row["validation_status"]


def with_status(folder: Path, status: str) -> Path:
    return write_csv(
        folder / f"{status}.csv", LABEL_COLUMNS, [{**LABEL, "validation_status": status}]
    )


def test_an_earlier_batch_that_comes_again_after_another_holds_again(pipeline, tmp_path):
    valid, invalid = with_status(tmp_path, "VALID"), with_status(tmp_path, "INVALID")
    for path, wanted in [(valid, "VALID"), (invalid, "INVALID")] * 2:
        report = ingest_labels(pipeline, path)
        assert not report.unchanged
        assert status_of(pipeline) == wanted
    assert (report.labels_inserted, report.labels_updated) == (0, 1)


def test_a_batch_that_comes_again_quarantines_its_broken_rows_once(pipeline, tmp_path):
    rows = [LABEL, {**LABEL, "label": "TIPS", "word_id": 2}]
    first = write_csv(tmp_path / "first.csv", LABEL_COLUMNS, rows)
    for path in (first, with_status(tmp_path, "INVALID"), first):
        ingest_labels(pipeline, path)
    assert len(quarantined(pipeline)) == 1


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sent=st.lists(st.sampled_from(["VALID", "INVALID", "PENDING"]), min_size=2, max_size=5),
    random=st.randoms(use_true_random=False),
)
def test_batches_leave_the_same_rows_in_whatever_order_they_are_ingested(
    sent, random, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("order")
    pipeline = Pipeline(Home(folder / "home").ensure())
    numbers = list(enumerate(sent, start=1))
    random.shuffle(numbers)
    for number, status in numbers:
        time = dt.datetime(2024, 1, number, tzinfo=dt.UTC)
        ingest_labels(pipeline, with_status(folder, status), time)
    assert status_of(pipeline) == sent[-1]


@pytest.mark.parametrize("names", [("morning", "noon"), ("noon", "morning")])
def test_of_two_batches_with_equal_times_the_one_with_the_later_name_wins(
    pipeline, tmp_path, names
):
    statuses = {"morning": "VALID", "noon": "INVALID"}
    for name in names:
        folder = pipeline.home.inbox / name
        folder.mkdir()
        shutil.copy(with_status(tmp_path, statuses[name]), folder / "labels.csv")
        os.utime(folder / "labels.csv", (1_700_000_000, 1_700_000_000))
        pipeline.ingest()
    assert status_of(pipeline) == "INVALID"


def test_a_batch_dated_in_the_future_counts_from_its_arrival_and_that_is_said(
    pipeline, tmp_path, caplog
):
    with caplog.at_level("INFO", "harmonizer_assets.core.ingest"):
        report = ingest_labels(
            pipeline, with_status(tmp_path, "VALID"), dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
        )
    remark = "its time, 2099-01-01T00:00:00+00:00, lies in the future: it counts from its arrival"
    assert report.remarks() == [remark]
    assert remark in caplog.text
    assert ingest_labels(pipeline, with_status(tmp_path, "INVALID")).labels_updated == 1
    assert status_of(pipeline) == "INVALID"


def test_rows_that_a_later_batch_has_decided_otherwise_are_counted_and_said(pipeline, tmp_path):
    ingest_labels(pipeline, with_status(tmp_path, "INVALID"))
    long_ago = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    report = ingest_labels(pipeline, with_status(tmp_path, "VALID"), long_ago)
    assert (report.labels_inserted, report.labels_updated, report.labels_outdated) == (0, 0, 1)
    assert report.remarks() == [
        "0 words and 1 labels are left as they are: "
        "a later batch or a correction has decided them otherwise"
    ]
    assert status_of(pipeline) == "INVALID"


def test_a_changed_status_and_text_update_their_rows(pipeline, tmp_path):
    ingest_words(pipeline, write_csv(tmp_path / "w.csv", WORD_COLUMNS, [WORD]))
    ingest_labels(pipeline, write_csv(tmp_path / "l.csv", LABEL_COLUMNS, [LABEL]))
    words = ingest_words(
        pipeline, write_csv(tmp_path / "w.csv", WORD_COLUMNS, [{**WORD, "text": "T0TAL"}])
    )
    labels = ingest_labels(
        pipeline,
        write_csv(tmp_path / "l.csv", LABEL_COLUMNS, [{**LABEL, "validation_status": "invalid"}]),
    )
    assert (words.words_inserted, words.words_updated) == (0, 1)
    assert (labels.labels_inserted, labels.labels_updated) == (0, 1)
    assert table(pipeline, "words")[0]["text"] == "T0TAL"
    assert table(pipeline, "labels")[0]["validation_status"] == "INVALID"


@pytest.mark.parametrize("arrival", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (1, 3, 2)])
def test_the_batch_with_the_latest_time_wins_in_whatever_order_they_arrive(
    pipeline, tmp_path, arrival
):
    statuses = {1: "PENDING", 2: "INVALID", 3: "PENDING"}
    for number in arrival:
        row = {**LABEL, "validation_status": statuses[number]}
        path = write_csv(tmp_path / f"{number}.csv", (*LABEL_COLUMNS, "n"), [{**row, "n": number}])
        ingest_labels(pipeline, path, dt.datetime(2024, 1, number, tzinfo=dt.UTC))
    assert table(pipeline, "labels")[0]["validation_status"] == "PENDING"
    assert json.loads(table(pipeline, "labels")[0]["extra"]) == {"n": "3"}


def test_batches_that_people_put_into_the_inbox_are_ingested_and_kept(pipeline, tmp_path):
    receipts = shop_receipts()
    receipts.write(pipeline.home.inbox / "monday")
    receipts.write(pipeline.home.inbox / ".still-copying")
    report = pipeline.ingest()
    assert [batch.source for batch in report.batches] == ["monday"]
    assert (pipeline.home.inbox / ".done" / "monday" / "labels.csv").exists()
    assert pipeline.ingest().batches == []


def test_an_unreadable_batch_is_moved_to_failed_and_the_others_go_on(pipeline):
    inbox = pipeline.home.inbox
    shop_receipts().write(inbox / "good")
    (inbox / "bad").mkdir()
    (inbox / "bad" / "labels.parquet").write_bytes(b"this is not Parquet")
    report = pipeline.ingest()
    assert [batch.source for batch in report.batches] == ["good"]
    assert "not a Parquet file" in report.failed[0][1]
    assert "not a Parquet file" in (inbox / ".failed" / "bad" / "error.txt").read_text()
    assert "not a Parquet file" in quarantined(pipeline)[0][1]


def test_the_log_has_counts_and_no_receipt_text(pipeline, tmp_path, caplog):
    secret = "Gr\u00fcner Veltliner"
    rows = [{**WORD, "text": secret}, {**WORD, "text": secret, "word_id": secret}]
    with caplog.at_level("INFO", "harmonizer_assets.core.ingest"):
        ingest_words(pipeline, write_csv(tmp_path / "w.csv", WORD_COLUMNS, rows))
        ingest_words(pipeline, tmp_path / "w.csv")
        (pipeline.home.inbox / "no header").mkdir()
        (pipeline.home.inbox / "no header" / "words.csv").write_text(f"{secret},1\n")
        pipeline.ingest()
    ingested, quarantined_rows, again, failed = caplog.messages
    assert ingested.endswith("words 2 read, 1 new, 0 changed; labels 0 read, 0 new, 0 changed")
    assert quarantined_rows.endswith("1 rows quarantined")
    assert again.endswith("was ingested before: nothing to do")
    assert failed == "batch no header cannot be read: moved to .failed"
    assert secret not in caplog.text


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
        (
            "labels.ndjson",
            b'{"image_id": "%s"}\n' % (b"x" * 60_000),
            r"\(line 1: the row is over 50,000 bytes \(\[limits\] max_row_bytes\)\)",
        ),
        ("labels.xlsx", b"PK", "the suffix names the format"),
    ],
)
def test_a_file_that_cannot_be_read_gives_one_clear_error_and_changes_nothing(
    pipeline, tmp_path, name, content, complaint
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint) as error:
        submit_batch(pipeline.home, None, path)
    assert str(path) in str(error.value)
    assert list(pipeline.home.inbox.iterdir()) == []


def test_a_missing_file_and_a_folder_are_named(pipeline, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        submit_batch(pipeline.home, tmp_path / "words.csv", None)
    (tmp_path / "words.csv").mkdir()
    with pytest.raises(InputError, match="a folder, not a file"):
        submit_batch(pipeline.home, tmp_path / "words.csv", None)


# Rows that cannot be used


def test_a_header_alone_is_a_batch_of_no_rows(pipeline, tmp_path):
    report = ingest_labels(pipeline, write_csv(tmp_path / "l.csv", LABEL_COLUMNS, []))
    assert (report.labels_read, report.quarantined) == (0, 0)


BAD_WORDS = [
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
    ({"text": "x" * 20_000}, "text is 20000 characters; the limit is 10000"),
    ({"text": "x" * 45_000}, "text is 45,000 bytes; the limit is 40,000"),
    ({"text": "x" * 10_485_760}, "the row is over 50,000 bytes"),
]
BAD_LABELS = [
    ({"label": "TIPS"}, "unknown label TIPS: correct it or add it to the taxonomy file"),
    ({"label": ""}, "label is missing"),
    ({"validation_status": "MAYBE"}, "unknown validation_status MAYBE"),
    ({"merchant_name": "m" * 3_000}, "merchant_name is 3000 characters"),
]


def among_good_rows(row: dict[str, Any], bad: list[tuple[dict[str, Any], str]]):
    """Rows of which every second one, from line 3 on, is bad in another way."""
    numbered = [{**row, "word_id": number} for number in range(2 * len(bad) + 1)]
    for place, (change, _) in enumerate(bad):
        numbered[2 * place + 1].update(change)
    return numbered


def assert_quarantined(pipeline, bad: list[tuple[dict[str, Any], str]]) -> None:
    found = sorted(quarantined(pipeline))
    assert [line for line, _ in found] == [3 + 2 * place for place in range(len(bad))]
    for (_, told), (_, reason) in zip(found, bad, strict=True):
        assert told.startswith(reason)


def test_bad_words_are_quarantined_with_row_and_reason_and_the_good_ones_go_on(pipeline, tmp_path):
    rows = among_good_rows(WORD, BAD_WORDS)
    report = ingest_words(pipeline, write_csv(tmp_path / "w.csv", WORD_COLUMNS, rows))
    counts = (report.words_read, report.words_inserted, report.quarantined)
    assert counts == (len(rows), len(BAD_WORDS) + 1, len(BAD_WORDS))
    assert_quarantined(pipeline, BAD_WORDS)


def test_bad_labels_are_quarantined_with_row_and_reason_and_the_good_ones_go_on(pipeline, tmp_path):
    rows = among_good_rows(LABEL, BAD_LABELS)
    ingest_labels(pipeline, write_csv(tmp_path / "l.csv", LABEL_COLUMNS, rows))
    assert len(table(pipeline, "labels")) == len(BAD_LABELS) + 1
    assert_quarantined(pipeline, BAD_LABELS)


def test_of_rows_with_the_same_key_the_first_stays(pipeline, tmp_path):
    rows = [LABEL, {**LABEL, "validation_status": "INVALID"}]
    ingest_labels(pipeline, write_csv(tmp_path / "l.csv", LABEL_COLUMNS, rows))
    assert table(pipeline, "labels")[0]["validation_status"] == "VALID"
    assert quarantined(pipeline) == [(3, "the same key as row 2")]


def test_an_unknown_label_is_accepted_once_the_taxonomy_knows_it(pipeline, tmp_path):
    path = write_csv(tmp_path / "l.csv", LABEL_COLUMNS, [{**LABEL, "label": "TIPS"}])
    ingest_labels(pipeline, path)
    assert table(pipeline, "labels") == []
    pipeline.home.taxonomy.write_text("label_types: {TIPS: What was given on top.}")
    ingest_labels(Pipeline(pipeline.home), path)
    assert [row["label"] for row in table(pipeline, "labels")] == ["TIPS"]


def test_latin_1_lines_are_quarantined_by_line(pipeline, tmp_path):
    path = tmp_path / "w.csv"
    path.write_bytes(
        ",".join(WORD_COLUMNS).encode()
        + "\ni,1,1,1,Br\xf6tchen,0,0,0,0\ni,1,1,2,Bun,0,0,0,0\n".encode("latin-1")
    )
    assert ingest_words(pipeline, path).words_inserted == 1
    assert quarantined(pipeline) == [(2, "not UTF-8: save the file as UTF-8")]


def test_broken_lines_are_quarantined_by_line(pipeline, tmp_path):
    path = tmp_path / "w.csv"
    path.write_text(",".join(WORD_COLUMNS) + '\ni,1,1,1,"a"b,0,0,0,0\ni,1,1\ni,1,1,3,c,,,,\n')
    assert ingest_words(pipeline, path).words_inserted == 1
    assert [line for line, _ in quarantined(pipeline)] == [2, 3]
    path = tmp_path / "w.ndjson"
    path.write_text(
        json.dumps({**WORD, "word_id": 9}) + '\n{"image_id": \n[1]\n{"image_id": "\\ud800"}\n'
    )
    assert ingest_words(pipeline, path).words_inserted == 1
    assert len(quarantined(pipeline)) == 5


def test_words_without_labels_and_labels_without_words_are_kept(pipeline, tmp_path):
    ingest_words(pipeline, write_csv(tmp_path / "w.csv", WORD_COLUMNS, [WORD]))
    lonely = {**LABEL, "image_id": "elsewhere"}
    ingest_labels(pipeline, write_csv(tmp_path / "l.csv", LABEL_COLUMNS, [lonely]))
    [decision] = table(pipeline, "label_decisions")
    assert decision["word_text"] is None
    assert decision["decided_by"] == "unresolved"


# Formats


def test_new_columns_pass_through_with_their_types(pipeline, tmp_path):
    rows = [
        {**LABEL, "word_id": n, "score": 0.5 * n, "tags": ["a", "b"], "who's": "me", "ok": n > 1}
        for n in (1, 2)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labels.parquet")
    ingest_labels(pipeline, tmp_path / "labels.parquet")
    export_table(pipeline.warehouse, "labels", tmp_path / "out.parquet")
    exported = pq.read_table(tmp_path / "out.parquet").sort_by("word_id").to_pylist()
    assert [row["score"] for row in exported] == [0.5, 1.0]
    assert [row["ok"] for row in exported] == [False, True]
    assert [row["who's"] for row in exported] == ["me", "me"]
    assert exported[0]["tags"] == ["a", "b"]


def test_an_export_can_be_ingested_again_and_changes_nothing(pipeline, tmp_path):
    row = {**LABEL, "note": "kept"}
    ingest_labels(pipeline, write_csv(tmp_path / "l.csv", (*LABEL_COLUMNS, "note"), [row]))
    before = table(pipeline, "labels", "batch_id", "batch_time")
    export_table(pipeline.warehouse, "labels", tmp_path / "again.csv")
    report = ingest_labels(pipeline, tmp_path / "again.csv")
    assert (report.labels_inserted, report.labels_updated) == (0, 0)
    assert table(pipeline, "labels", "batch_id", "batch_time") == before


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
    max_size=24,
    unique_by=lambda row: tuple(row[name] for name in WORD_COLUMNS[:4]),
)


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
        pipeline = Pipeline(Home(folder / suffix).ensure())
        report = ingest_words(pipeline, folder / f"words.{suffix}")
        assert (report.words_inserted, report.quarantined) == (len(rows), 0)
        tables.append(table(pipeline, "words", "batch_id", "batch_time"))
    assert tables[0] == tables[1] == tables[2]


# Durability


def test_a_process_killed_at_any_moment_of_ingest_leaves_all_or_nothing(tmp_path, home):
    receipts = shop_receipts([f"Shop {n}" for n in range(60)], each=5)
    receipts.submit(Pipeline(home), tmp_path)
    code = (
        "from harmonizer_assets.core.pipeline import Pipeline; "
        "from harmonizer_assets.core.base.home import Home; "
        "print('ready', flush=True); Pipeline(Home.resolve()).ingest()"
    )
    for pause in (0.05, 0.15):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ}
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        pipeline = Pipeline(home)
        assert len(table(pipeline, "labels")) in (0, len(receipts.labels))
    pipeline.ingest()
    assert len(table(pipeline, "labels")) == len(receipts.labels)
    assert len(table(pipeline, "words")) == len(receipts.words)
    assert list(home.inbox.glob("[!.]*")) == []


def test_a_batch_that_another_run_takes_while_it_is_read_is_no_broken_batch(
    pipeline, tmp_path, monkeypatch
):
    shop_receipts().submit(pipeline, tmp_path)
    check = staging.check_file

    def taken(path: Path, layout: TableLayout, limits: LimitSettings) -> None:
        if layout.name == "labels":
            shutil.rmtree(path.parent)
        check(path, layout, limits)

    monkeypatch.setattr(staging, "check_file", taken)
    report = pipeline.ingest()
    assert (report.batches, report.failed) == ([], [])
    assert table(pipeline, "quarantine") == []


def test_a_batch_is_on_the_disk_before_it_counts_as_taken(pipeline, tmp_path, synced):
    folder = shop_receipts(each=1).submit(pipeline, tmp_path)
    files = {f".{folder.name}/{file.name}" for file in folder.iterdir()}
    assert {f"{path.parent.name}/{path.name}" for path in synced[:-2]} == files
    assert [path.name for path in synced[-2:]] == [f".{folder.name}", folder.parent.name]
