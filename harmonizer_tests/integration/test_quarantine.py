"""Quarantined rows say what to do, and leave when a later batch mends them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.ingest.unknown_labels import nearest_type
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_tests.support.receipts import (
    LABEL_COLUMNS,
    WORD_COLUMNS,
    harmonize,
    shop_receipts,
    table,
    write_csv,
)

LABEL = dict(zip(LABEL_COLUMNS, ("i", 1, 1, 1, "GRAND_TOTAL", "VALID", "Shop"), strict=True))
WORD = dict(zip(WORD_COLUMNS, ("i", 1, 1, 1, "TOTAL", 0.1, 0.2, 0.1, 0.1), strict=True))


def send(
    pipeline: Pipeline, path: Path, *rows: dict[str, Any], time: dt.datetime | None = None
) -> list[str]:
    """Ingest a file of words or labels; the reasons in quarantine afterwards."""
    columns = WORD_COLUMNS if path.stem == "words" else LABEL_COLUMNS
    write_csv(path, columns, rows)
    files = (path, None) if path.stem == "words" else (None, path)
    submit_batch(pipeline.home, *files, time=time)
    pipeline.ingest()
    return [row["reason"] for row in table(pipeline, "quarantine")]


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("grand_total", "GRAND_TOTAL"),
        ("GRAND TOTAL", "GRAND_TOTAL"),
        ("GrandTotal", "GRAND_TOTAL"),
        ("PRODUKT_NAME", "PRODUCT_NAME"),
        ("SUBTOTAL SHOULD BE 214.46", "SUBTOTAL"),
        ("7829.53", None),
        ("TIPS", None),
    ],
)
def test_the_type_that_was_meant_is_proposed(label, meant):
    assert nearest_type(label, Taxonomy.default().names) == meant


def test_an_unknown_label_says_what_may_have_been_meant_and_how_often(pipeline, tmp_path):
    rows = [{**LABEL, "word_id": number, "label": "grand_total"} for number in range(41)]
    odd = {**LABEL, "word_id": 99, "label": "7829.53"}
    reasons = set(send(pipeline, tmp_path / "labels.csv", *rows, odd))
    assert reasons == {
        "unknown label grand_total: did you mean GRAND_TOTAL (41 rows)? "
        "correct it or add it to the taxonomy file",
        "unknown label 7829.53: this looks like the text of a word (1 row); "
        "correct it or add it to the taxonomy file",
    }


def test_a_row_leaves_when_a_later_batch_mends_it(pipeline, tmp_path):
    bad_word, bad_label = {**WORD, "x": "far"}, {**LABEL, "label": "grand total"}
    other = {**LABEL, "word_id": 2, "validation_status": "MAYBE"}
    assert len(send(pipeline, tmp_path / "words.csv", bad_word)) == 1
    assert len(send(pipeline, tmp_path / "labels.csv", bad_label, other)) == 3
    assert len(send(pipeline, tmp_path / "labels.csv", LABEL)) == 2
    assert send(pipeline, tmp_path / "words.csv", WORD) == [
        "unknown validation_status MAYBE: one of VALID, INVALID, PENDING, NEEDS_REVIEW, NONE"
    ]
    assert send(pipeline, tmp_path / "labels.csv", {**other, "validation_status": "VALID"}) == []


def test_a_row_that_comes_again_as_it_was_is_quarantined_once(pipeline, tmp_path):
    bad = {**LABEL, "label": "TIPS"}
    send(pipeline, tmp_path / "labels.csv", bad)
    assert len(send(pipeline, tmp_path / "labels.csv", bad, {**LABEL, "word_id": 7})) == 1


def test_an_earlier_batch_mends_nothing(pipeline, tmp_path):
    send(pipeline, tmp_path / "labels.csv", {**LABEL, "validation_status": "MAYBE"})
    long_ago = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert len(send(pipeline, tmp_path / "labels.csv", LABEL, time=long_ago)) == 1


def test_a_file_that_could_not_be_read_leaves_when_it_comes_mended(pipeline, tmp_path):
    inbox = pipeline.home.inbox
    (inbox / "monday").mkdir()
    (inbox / "monday" / "labels.csv").write_bytes(b"")
    pipeline.ingest()
    assert len(table(pipeline, "quarantine")) == 1
    write_csv(inbox / "monday" / "labels.csv", LABEL_COLUMNS, [LABEL])
    pipeline.ingest()
    assert table(pipeline, "quarantine") == []


def test_a_line_without_a_key_leaves_when_its_file_comes_again(pipeline, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(",".join(LABEL_COLUMNS) + "\ni,1,1\n")
    submit_batch(pipeline.home, None, path)
    pipeline.ingest()
    [row] = table(pipeline, "quarantine")
    assert json.loads(row["row"]) == ["i", "1", "1"]
    assert send(pipeline, path, LABEL) == []


@pytest.mark.parametrize("missing", ["NA", "null", "N/A", "None", " "])
def test_a_position_may_be_missing_in_any_spelling(pipeline, tmp_path, missing):
    assert send(pipeline, tmp_path / "words.csv", {**WORD, "x": missing}) == []
    assert table(pipeline, "words")[0]["x"] is None


def test_labels_of_a_quarantined_word_say_why_it_is_missing(pipeline, tmp_path):
    receipts = shop_receipts()
    receipts.words[0]["x"] = "far left"
    receipts.submit(pipeline, tmp_path)
    harmonize(pipeline)
    [decision] = [
        row for row in table(pipeline, "label_decisions") if row["decided_by"] == "unresolved"
    ]
    assert decision["reasoning"] == (
        "the labelled word is quarantined: x is not a number: far left "
        f"({tmp_path / 'words.csv'}, row 2)"
    )
