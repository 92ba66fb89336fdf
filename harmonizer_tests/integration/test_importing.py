"""Imports into a home, repeated after changes, with label types of others."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.importers.importing import import_to_folder, import_to_home
from harmonizer_assets.core.importers.writing_back import write_back
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import LabelKey
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.core.review.answers import Answer
from harmonizer_assets.core.store.deletions import Scope
from harmonizer_tests.support.cli import started
from harmonizer_tests.support.foreign import sroie
from harmonizer_tests.support.homes import copy_home


def source(tmp_path: Path, *records: dict) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def record(name: str = "a", tags: tuple[str, ...] = ("DATE", "O"), texts=("1/2/2018", "9.00")):
    return {"id": name, "tokens": list(texts), "ner_tags": list(tags), "merchant_name": "Shop"}


def take(home: Home, path: Path, **options):
    return import_to_home("hugging-face", [path], home, **options)


def ingest(home: Home):
    # Opened anew, as every run does: an import may have changed the taxonomy.
    return Pipeline(home).ingest()


def imported(home: Home) -> None:
    """Fill an empty home with one import, ingested."""

    def make(fresh: Home) -> None:
        take(fresh, source(fresh.scratch, record()))
        ingest(fresh)

    copy_home(home, "one import, ingested", make)


def labels_of(home: Home) -> list[tuple]:
    rows = (
        Pipeline(home)
        .warehouse.query(
            "SELECT image_id, word_id, label, validation_status FROM labels ORDER BY ALL"
        )
        .to_pylist()
    )
    return [tuple(row.values()) for row in rows]


def test_an_import_waits_in_the_inbox_and_is_ingested_like_any_batch(home, tmp_path):
    report = take(home, source(tmp_path, record()))
    assert report.folder.parent == home.inbox
    ingested = ingest(home)
    assert [batch.labels_inserted for batch in ingested.batches] == [1]
    assert labels_of(home) == [("a", 1, "DATE", "PENDING")]


def test_an_import_that_is_repeated_unchanged_changes_nothing(home, tmp_path):
    path = source(tmp_path, record())
    for _ in range(2):
        take(home, path)
        ingest(home)
    assert labels_of(home) == [("a", 1, "DATE", "PENDING")]


@pytest.mark.parametrize("is_ingested", [True, False])
def test_an_import_that_is_repeated_after_a_change_updates_and_never_doubles(
    home, tmp_path, is_ingested
):
    take(home, source(tmp_path, record(tags=("DATE", "TAX")), record("b")))
    if is_ingested:
        ingest(home)
    report = take(home, source(tmp_path, record(tags=("TIME", "TAX"), texts=("10:00", "9.00"))))
    assert (report.words_gone, report.labels_gone) == (0, 1)
    ingest(home)
    assert labels_of(home) == [
        ("a", 1, "TIME", "PENDING"),
        ("a", 2, "TAX", "PENDING"),
        ("b", 1, "DATE", "PENDING"),
    ]
    words = (
        Pipeline(home).warehouse.query("SELECT image_id, text FROM words ORDER BY ALL").to_pylist()
    )
    assert [(row["image_id"], row["text"]) for row in words if row["image_id"] == "a"] == [
        ("a", "10:00"),
        ("a", "9.00"),
    ]


def test_a_word_that_is_gone_from_its_source_is_gone_from_the_home(home, tmp_path):
    take(home, source(tmp_path, record(tags=("DATE", "TAX"))))
    ingest(home)
    report = take(home, source(tmp_path, record(tags=("DATE",), texts=("1/2/2018",))))
    assert (report.words_gone, report.labels_gone) == (1, 1)
    ingest(home)
    assert labels_of(home) == [("a", 1, "DATE", "PENDING")]
    assert Pipeline(home).warehouse.query("FROM words").num_rows == 1


def test_labels_that_came_in_another_way_stay(home, tmp_path):
    from harmonizer_assets.core.ingest.inbox import submit_batch

    take(home, source(tmp_path, record()))
    own = tmp_path / "labels.ndjson"
    row = {"image_id": "a", "receipt_id": 1, "line_id": 1, "word_id": 2, "label": "TAX"}
    own.write_text(json.dumps({**row, "validation_status": "VALID", "merchant_name": "Shop"}))
    submit_batch(home, None, own)
    ingest(home)
    take(home, source(tmp_path, record(tags=("TIME", "O"))))
    ingest(home)
    assert labels_of(home) == [("a", 1, "TIME", "PENDING"), ("a", 2, "TAX", "VALID")]


def test_what_was_corrected_in_the_home_stays_corrected_when_its_source_comes_again(home, tmp_path):
    path = source(tmp_path, record(tags=("DATE", "TAX")))
    take(home, path)
    ingest(home)
    pipeline = Pipeline(home)
    key = LabelKey("a", 1, 1, 2, "TAX")
    pipeline.review.answer(key, "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    assert len(pipeline.apply("ann", commit=True).corrections) == 1
    corrected = labels_of(home)
    assert {row[2]: row[3] for row in corrected} == {
        "DATE": "PENDING",
        "GRAND_TOTAL": "VALID",
        "TAX": "INVALID",
    }
    for _ in range(2):  # the source as it was, and the one with the corrected label
        report = take(home, path)
        assert (report.words_gone, report.labels_gone) == (0, 0)
        ingest(home)
        assert labels_of(home) == corrected
        written = tmp_path / "corrected.jsonl"
        write_back(pipeline.warehouse, "hugging-face", path, written, overwrite=True)
        path.write_bytes(written.read_bytes())


# Label types


def test_a_new_home_takes_over_the_label_types_of_the_source(home, tmp_path):
    report = take(home, source(tmp_path, record(tags=("B-menu.nm", "B-menu.price"))))
    assert report.takes_taxonomy
    assert set(Taxonomy.of_home(home).names) == {"menu.nm", "menu.price"}
    ingest(home)
    assert [row[2] for row in labels_of(home)] == ["menu.nm", "menu.price"]


def test_near_names_are_proposed_and_imported_only_once_a_person_has_confirmed_them(home, tmp_path):
    take(home, source(tmp_path, record(tags=("DATE", "GRAND_TOTAL"))))
    ingest(home)
    new = source(tmp_path, record("b", ("date", "Grand Total")), record("c", ("GRAND_TOTAL ", "O")))
    with pytest.raises(InputError, match="--map"):
        take(home, new)
    assert not ingest(home).batches
    proposals = home.root / "label-map.yaml"
    assert yaml.safe_load(proposals.read_text())["labels"] == {
        "date": "DATE",
        "Grand Total": "GRAND_TOTAL",
        "GRAND_TOTAL ": "GRAND_TOTAL",
    }
    report = take(home, new, label_map=proposals)
    assert report.fit.is_clean
    ingest(home)
    assert {row[2] for row in labels_of(home)} == {"DATE", "GRAND_TOTAL"}
    assert Taxonomy.of_home(home) == Taxonomy.default()


@pytest.mark.parametrize("is_new", [True, False])
def test_blanks_around_a_name_are_confirmed_by_a_person_and_never_taken_silently(
    home, tmp_path, is_new
):
    meant = {
        "GRAND_TOTAL ": "GRAND_TOTAL",
        " GRAND_TOTAL": "GRAND_TOTAL",
        "GRAND_TOTAL\u00a0": "GRAND_TOTAL",
        " grand total ": "GRAND_TOTAL",
        "PUMP_NUMBER ": "PUMP_NUMBER",
    }
    if not is_new:
        imported(home)
    images = [f"image-{number}" for number in range(len(meant))]
    records = [record(image, (name, "DATE")) for image, name in zip(images, meant, strict=True)]
    path = source(tmp_path, *records)
    with pytest.raises(InputError, match="--map") as raised:
        take(home, path)
    for written in meant:
        assert repr(written) in str(raised.value)
    assert not ingest(home).batches
    proposals = home.root / "label-map.yaml"
    proposed = yaml.safe_load(proposals.read_text())
    assert proposed["labels"] == meant
    assert "PUMP_NUMBER" in proposed["new_types"]
    assert "GRAND_TOTAL" not in proposed["new_types"]
    take(home, path, label_map=proposals)
    ingest(home)
    assert {
        (image, 1, meant[name], "PENDING") for image, name in zip(images, meant, strict=True)
    } <= {*labels_of(home)}


def test_in_a_folder_names_with_blanks_are_left_out_by_row_until_they_are_confirmed(tmp_path):
    path, out = source(tmp_path, record(tags=("DATE ", "TAX"))), tmp_path / "out"
    report = import_to_folder("hugging-face", [path], out)
    assert (report.written.names, report.written.padded) == ({"TAX": 1}, {"DATE ": 1})
    [problem] = report.written.problems
    assert (problem.row, problem.is_left_out) == ("line 1, word 0", True)
    assert "blanks around it" in problem.reason
    (tmp_path / "map.yaml").write_bytes((out / "label-map.yaml").read_bytes())
    again = import_to_folder(
        "hugging-face", [path], out, label_map=tmp_path / "map.yaml", overwrite=True
    )
    assert again.written.names == {"DATE": 1, "TAX": 1}
    [date, _] = pq.read_table(out / "labels.parquet").to_pylist()
    assert (date["label"], date["source_label"]) == ("DATE", "DATE ")


def test_proposals_keep_what_was_confirmed_before(home, tmp_path):
    imported(home)
    proposals = home.root / "label-map.yaml"
    confirmed = {"labels": {"remark": None, "Sum": "SUBTOTAL"}, "new_types": {"PUMP": "A pump."}}
    proposals.write_text(yaml.safe_dump(confirmed))
    new = source(tmp_path, record("b", ("date", "remark")), record("c", ("PUMP", "Sum")))
    with pytest.raises(InputError, match="--map"):
        take(home, new, label_map=proposals)
    written = yaml.safe_load(proposals.read_text())
    assert written["labels"] == {**confirmed["labels"], "date": "DATE"}
    assert written["new_types"] == confirmed["new_types"]
    take(home, new, label_map=proposals)
    ingest(home)
    assert {row[2] for row in labels_of(home)} == {"DATE", "PUMP", "SUBTOTAL"}


def test_new_types_join_the_taxonomy_of_a_home_once_they_are_confirmed(home, tmp_path):
    imported(home)
    new = source(tmp_path, record("b", ("PUMP_NUMBER", "O")))
    with pytest.raises(InputError, match="PUMP_NUMBER"):
        take(home, new)
    take(home, new, label_map=home.root / "label-map.yaml")
    ingest(home)
    assert Taxonomy.of_home(home).names == (*Taxonomy.default().names, "PUMP_NUMBER")
    assert ("b", 1, "PUMP_NUMBER", "PENDING") in labels_of(home)


def test_a_name_that_is_mapped_to_nothing_is_left_out(home, tmp_path):
    mapping = tmp_path / "map.yaml"
    mapping.write_text("labels: {TAX: null}\n")
    take(home, source(tmp_path, record(tags=("DATE", "TAX"))), label_map=mapping)
    ingest(home)
    assert labels_of(home) == [("a", 1, "DATE", "PENDING")]


@pytest.mark.parametrize(
    "text",
    ["12.50", "please check this one with the manager", "A|B", "x" * 70, "see, below", " \t"],
)
def test_free_text_as_a_label_is_told_by_its_row_and_never_becomes_a_type(tmp_path, text):
    path = source(tmp_path, record(tags=("DATE", text)))
    report = import_to_folder("hugging-face", [path], tmp_path / "out")
    assert set(report.written.names) == {"DATE"}
    assert Taxonomy.load(tmp_path / "out" / "taxonomy.yaml").names == ("DATE",)
    [problem] = pq.read_table(tmp_path / "out" / "problems.parquet").to_pylist()
    assert problem["is_left_out"]
    assert problem["row"] == "line 1, word 1"
    assert "--map" in problem["remedy"]


def test_so_many_different_labels_are_taken_for_free_text(tmp_path):
    records = [record(str(n), (f"note {n}a", "O")) for n in range(500)]
    report = import_to_folder("hugging-face", [source(tmp_path, *records)], tmp_path / "out")
    assert len(report.written.names) == 400
    assert report.written.left_out == 100


def test_the_taxonomy_of_an_import_has_counts_and_definitions_to_be_edited(tmp_path):
    path = source(tmp_path, record(tags=("DATE", "menu.nm")), record("b", ("menu.nm", "menu.nm")))
    import_to_folder("hugging-face", [path], tmp_path / "out")
    text = (tmp_path / "out" / "taxonomy.yaml").read_text()
    assert "# 3 labels" in text
    assert "Edit this definition" in Taxonomy.load(tmp_path / "out" / "taxonomy.yaml").definition(
        "menu.nm"
    )


# What is left out


def quarantined(home: Home) -> list[dict]:
    return Pipeline(home).warehouse.query("FROM quarantine ORDER BY number").to_pylist()


def test_what_is_left_out_is_in_the_quarantine_with_its_row_and_remedy(home, tmp_path):
    path = source(
        tmp_path,
        record(tags=("DATE", "12.50"), texts=("1/2/2018", "9.00")),
        record("b", texts=("", "9.00")),
        {"id": "c", "tokens": ["a", "b"], "ner_tags": ["DATE"]},
    )
    report = take(home, path)
    ingested = ingest(home)
    rows = quarantined(home)
    assert report.written.left_out == len(rows) == ingested.batches[0].quarantined == 3
    assert {row["file"] for row in rows} == {str(path)}
    found = {row["source_row"]: row for row in rows}
    assert {place: row["table_name"] for place, row in found.items()} == {
        "line 1, word 1": "labels",
        "line 2, word 0": "words",
        "line 3": "source",
    }
    assert "no letter" in found["line 1, word 1"]["reason"]
    assert "(map it to a type with --map)" in found["line 1, word 1"]["reason"]
    label = json.loads(found["line 1, word 1"]["row"])
    assert (label["image_id"], label["word_id"], label["label"]) == ("a", 2, "12.50")
    assert label["content"] == "9.00"


def test_a_run_counts_what_an_import_has_left_out(home, tmp_path):
    take(home, source(tmp_path, record(), record("b", texts=(" ", "9.00"))))
    [batch] = ingest(home).batches
    assert batch.summary.rejected == 1
    [reason] = batch.summary.reasons
    assert reason.place.endswith("train.jsonl: line 2, word 0")


def test_what_was_left_out_leaves_the_quarantine_when_its_file_is_imported_mended(home, tmp_path):
    uneven = {"tokens": ["a"], "ner_tags": ["DATE", "TAX"]}
    take(home, source(tmp_path, record(tags=("DATE", "12.50")), uneven))
    other = tmp_path / "other" / "train.jsonl"
    other.parent.mkdir()
    other.write_text(json.dumps(record("c", texts=("", "x"))))
    take(home, other)
    ingest(home)
    assert len(quarantined(home)) == 3
    take(home, source(tmp_path, record(tags=("DATE", "TAX")), record("b")))
    ingest(home)
    assert [row["file"] for row in quarantined(home)] == [str(other)]


def test_what_was_left_out_of_a_file_beside_the_source_leaves_with_the_same_import(home, tmp_path):
    sroie(tmp_path)
    key = tmp_path / "key" / "shop-1.json"
    whole = key.read_text()
    broken = json.dumps({**json.loads(whole), "date": 3, "total": "not there"})
    for content, count in ((broken, 2), (whole, 0)):
        key.write_text(content)
        import_to_home("sroie", [tmp_path / "box"], home)
        ingest(home)
        assert len(quarantined(home)) == count


def test_an_import_that_is_repeated_unchanged_quarantines_once(home, tmp_path):
    path = source(tmp_path, record(texts=("", "9.00")))
    for _ in range(2):
        take(home, path)
        ingest(home)
    assert len(quarantined(home)) == 1


def test_what_was_left_out_is_deleted_with_its_image(home, tmp_path):
    take(home, source(tmp_path, record(tags=("DATE", "12.50")), record("b", ("DATE", "13.50"))))
    ingest(home)
    Pipeline(home).deletion.delete(Scope("a"))
    assert [json.loads(row["row"])["image_id"] for row in quarantined(home)] == ["b"]


def test_what_was_deleted_for_good_does_not_come_back_as_left_out(home, tmp_path):
    first = record(tags=("DATE", "12.50")), record("b", ("DATE", "13.50"))
    take(home, source(tmp_path, *first))
    ingest(home)
    Pipeline(home).deletion.delete(Scope("a"))
    take(home, source(tmp_path, *first, record("c")))
    ingest(home)
    assert [json.loads(row["row"])["image_id"] for row in quarantined(home)] == ["b"]


def test_files_of_people_that_are_called_like_ours_are_not_taken_for_what_was_left_out(
    home, tmp_path
):
    import_to_folder(
        "hugging-face", [source(tmp_path, record(texts=("", "9.00")))], home.inbox / "theirs"
    )
    ingest(home)
    assert quarantined(home) == []


# Nothing half imported


def test_a_file_that_ends_too_early_leaves_nothing_behind(home, tmp_path):
    path = tmp_path / "export.json"
    task = {"data": {"image": "a.png"}, "annotations": []}
    path.write_text("[" + ",".join([json.dumps(task)] * 3) + ",{")
    with pytest.raises(InputError, match=r"export\.json: not valid JSON"):
        import_to_home("label-studio", [path], home)
    assert not any(home.inbox.iterdir())
    assert not home.taxonomy.exists()


def test_one_broken_file_of_many_is_told_and_the_others_are_imported(tmp_path):
    folder = tmp_path / "forms"
    folder.mkdir()
    for name in ("a", "b"):
        form = {"form": [{"label": "question", "words": [{"text": "Name", "box": [0, 0, 1, 1]}]}]}
        (folder / f"{name}.json").write_text(json.dumps(form))
    (folder / "c.json").write_text('{"form": [')
    report = import_to_folder("funsd", [folder], tmp_path / "out")
    assert report.written.receipts == 2
    assert any("c.json" in str(one) and "mend it" in str(one) for one in report.written.problems)


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        import_to_folder("hugging-face", [source(tmp_path, record())], out, overwrite=True)
    assert (out / "thesis.txt").read_text() == "mine"


def test_an_import_that_is_killed_leaves_nothing_behind_that_looks_imported(tmp_path):
    path = source(tmp_path, *(record(str(n)) for n in range(20_000)))
    out = tmp_path / "out"
    with started("import", "hugging-face", path, "--out", out, home=tmp_path / "home") as process:
        while not any(tmp_path.glob(".out.*/words.parquet")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert not out.exists()
    report = import_to_folder("hugging-face", [path], out)
    assert report.written.receipts == 20_000
