"""Corrected labels in the file that they came from; every other byte stays as it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.importers.importing import import_to_home
from harmonizer_assets.core.importers.json_text import replaced
from harmonizer_assets.core.importers.writing_back import WriteBackReport, write_back
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_tests.support.foreign import FORMATS, format_of

ROUND_TRIPS = [name for name, foreign in FORMATS.items() if foreign.can_be_written_back]
NEW = {"wildreceipt": "Tax_value"}


def files_of(name: str, tmp_path: Path) -> tuple[list[Path], Path, Path | None]:
    """What is imported, the file in which TOTAL 12.50 stands, and the folder that was given."""
    source = tmp_path / "source"
    source.mkdir()
    [given] = FORMATS[name].write(source)
    return ([given], given / "shop-2.json", given) if given.is_dir() else ([given], given, None)


def imported(name: str, paths: list[Path], home: Home) -> Pipeline:
    import_to_home(format_of(name), paths, home)
    pipeline = Pipeline(home)
    pipeline.ingest()
    return pipeline


def correct(pipeline: Pipeline, tmp_path: Path, changes: Mapping[str, str | None]) -> None:
    """Give other labels to the words with these texts."""
    rows = []
    for text, label in changes.items():
        found = pipeline.warehouse.query(
            "SELECT w.image_id, w.receipt_id, w.line_id, w.word_id, l.label "
            "FROM words w LEFT JOIN labels l USING (image_id, receipt_id, line_id, word_id) "
            "WHERE w.text = $text",
            {"text": text},
        ).to_pylist()
        for row in found:
            common = {**row, "validation_status": "VALID", "merchant_name": None}
            if row["label"] is not None:
                rows.append({**common, "deleted": "true"})
            if label is not None:
                rows.append({**common, "label": label, "deleted": None})
    file = tmp_path / "labels.ndjson"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    submit_batch(pipeline.home, None, file)
    # The new types are known by then, as those of a taxonomy that people have edited.
    pipeline.ingest()


def know(home: Home, *label_types: str) -> None:
    text = home.taxonomy.read_text(encoding="utf-8")
    home.taxonomy.write_text(text + "".join(f"  {name}: New.\n" for name in label_types), "utf-8")


def written(name: str, file: Path, root: Path | None, pipeline: Pipeline) -> WriteBackReport:
    out = file.with_name("corrected" + file.suffix)
    return write_back(pipeline.warehouse, format_of(name), file, out, root=root)


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_without_corrections_the_file_comes_back_to_the_byte(name, home, tmp_path):
    paths, file, root = files_of(name, tmp_path)
    pipeline = imported(name, paths, home)
    report = written(name, file, root, pipeline)
    assert report.path.read_bytes() == file.read_bytes()
    assert (report.changes, report.refused, report.unknown) == ([], [], 0)


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_only_the_corrected_label_differs(name, home, tmp_path):
    paths, file, root = files_of(name, tmp_path)
    new = NEW.get(name, "tax")
    imported(name, paths, home)
    know(home, new)
    pipeline = Pipeline(home)
    correct(pipeline, tmp_path, {"12.50": new})
    report = written(name, file, root, pipeline)
    assert [(change.text, change.after) for change in report.changes] == [("12.50", new)]
    assert report.refused == []
    before, after = file.read_bytes(), report.path.read_bytes()
    start = next(n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    end = next(n for n in range(1, 99) if before[-n] != after[-n]) - 1
    assert 0 < len(before) - start - end <= len("total_value")
    assert after[:start] + before[start : len(before) - end] + after[len(after) - end :] == before


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_the_corrected_file_imports_as_what_the_home_holds(name, home, tmp_path):
    paths, file, root = files_of(name, tmp_path)
    new = NEW.get(name, "tax")
    imported(name, paths, home)
    know(home, new)
    pipeline = Pipeline(home)
    correct(pipeline, tmp_path, {"12.50": new, "TOTAL": new, "03/12/2018": None})
    report = written(name, file, root, pipeline)
    changed = {change.text for change in report.changes}
    told = changed | {change.text for change, _ in report.refused}
    assert told == {"12.50", "TOTAL", "03/12/2018"}
    if name != "label-studio":  # where a word without a label has no place for one
        assert changed == told
    else:
        assert {change.text for change, _ in report.refused} == {"TOTAL"}
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / file.name).write_bytes(report.path.read_bytes())
    again = Home(tmp_path / "again")
    know_all = again.ensure().taxonomy
    know_all.write_text(home.taxonomy.read_text())
    other = imported(name, [copy / file.name], again)
    sql = (
        "SELECT text, label FROM words JOIN labels USING (image_id, receipt_id, line_id, word_id) "
        "WHERE image_id = 'shop-2' AND text <> 'TOTAL' ORDER BY ALL"
    )
    assert other.warehouse.query(sql).to_pylist() == pipeline.warehouse.query(sql).to_pylist()


def test_words_of_one_entity_that_have_different_labels_now_are_told(home, tmp_path):
    word = {"box": [0, 0, 10, 10]}
    entity = {"label": "question", "words": [{**word, "text": "Due"}, {**word, "text": "date"}]}
    file = tmp_path / "form.json"
    file.write_text(json.dumps({"form": [entity]}, indent=4))
    imported("funsd", [file], home)
    know(home, "header")
    pipeline = Pipeline(home)
    correct(pipeline, tmp_path, {"Due": "header"})
    report = written("funsd", file, None, pipeline)
    assert report.changes == []
    [(change, reason)] = report.refused
    assert change.text == "Due"
    assert "share this label" in reason
    assert report.path.read_bytes() == file.read_bytes()


def test_names_that_were_mapped_are_written_as_the_file_has_them(home, tmp_path):
    file = tmp_path / "train.jsonl"
    tags = ["B-Grand Total", "B-tax amount", "O"]
    file.write_text(json.dumps({"id": "a", "tokens": ["1", "2", "3"], "ner_tags": tags}) + "\r\n")
    mapping = tmp_path / "map.yaml"
    mapping.write_text("labels: {Grand Total: GRAND_TOTAL, tax amount: TAX}\n")
    import_to_home("hugging-face", [file], home, label_map=mapping)
    pipeline = Pipeline(home)
    pipeline.ingest()
    correct(pipeline, tmp_path, {"1": "TAX", "3": "GRAND_TOTAL"})
    out = tmp_path / "out.jsonl"
    write_back(pipeline.warehouse, "hugging-face", file, out, label_map=mapping)
    assert json.loads(out.read_text())["ner_tags"] == [
        "B-tax amount",
        "B-tax amount",
        "B-Grand Total",
    ]
    assert out.read_bytes().endswith(b"\r\n")


def test_numbers_of_classes_stay_numbers_and_a_name_without_one_is_told(home, tmp_path):
    (tmp_path / "classes.txt").write_text("O\nB-DATE\nB-TIME\n")
    file = tmp_path / "train.jsonl"
    file.write_text('{"id": "a", "tokens": ["1", "2"],  "ner_tags": [1,  1]}\n')
    pipeline = imported("hugging-face", [file], home)
    correct(pipeline, tmp_path, {"1": "TIME", "2": "TAX"})
    report = written("hugging-face", file, None, pipeline)
    assert report.path.read_text() == '{"id": "a", "tokens": ["1", "2"],  "ner_tags": [2,  1]}\n'
    [(change, reason)] = report.refused
    assert (change.text, reason) == ("2", "the data set has no class B-TAX")


def test_formats_that_cannot_hold_labels_say_so(home, tmp_path):
    Pipeline(home).warehouse.migrate()
    with pytest.raises(InputError, match="cannot be written back"):
        write_back(Pipeline(home).warehouse, "hocr", tmp_path / "x", tmp_path / "y")


def test_a_file_that_is_there_is_not_replaced(home, tmp_path):
    paths, file, root = files_of("conll", tmp_path)
    pipeline = imported("conll", paths, home)
    with pytest.raises(InputError, match="--overwrite"):
        write_back(pipeline.warehouse, "conll", file, file, root=root)


def test_values_of_json_are_replaced_in_place():
    text = '{ "a" : [1, {"b":"x\\"]", "c" : null}] ,"d":true}\n'
    assert replaced(text, {("a", 1, "b"): "ü", ("d",): 2}) == (
        '{ "a" : [1, {"b":"\\u00fc", "c" : null}] ,"d":2}\n'
    )
    with pytest.raises(InputError, match="nothing at"):
        replaced(text, {("a", 7): 1})
