"""What single formats have of their own, and what is said where a source does not tell enough."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harmonizer_assets.core.base.errors import ConfigurationError, InputError
from harmonizer_assets.core.importers.base import ImportOptions
from harmonizer_assets.core.importers.importing import ImportReport, import_to_folder
from harmonizer_assets.core.importers.registry import format_names, importer
from harmonizer_tests.support.foreign import cord_records, label_studio, paddleocr, png, sroie


def read(
    name: str, path: Path, tmp_path: Path, options: ImportOptions | None = None
) -> tuple[ImportReport, list[dict], list[dict]]:
    out = tmp_path / "out"
    report = import_to_folder(name, [path], out, options, overwrite=True)
    tables = [pq.read_table(out / f"{table}.parquet").to_pylist() for table in ("words", "labels")]
    return report, tables[0], tables[1]


def lines(tmp_path: Path, *records: dict[str, Any]) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def words(*boxes: list[float], **more: Any) -> dict[str, Any]:
    return {"tokens": [f"w{n}" for n in range(len(boxes))], "bboxes": list(boxes), **more}


# Boxes


@pytest.mark.parametrize(
    ("records", "unit"),
    [
        ([words([0.1, 0.2, 0.3, 0.4])], "share"),
        ([words([100, 200, 300, 400]), words([1, 1, 1000, 2])], "thousand"),
        ([words([100, 200, 300, 400], width=1000, height=1000)], "pixel"),
        ([words([10, 20, 30, 40], width=100, height=100), words([0, 0, 900, 9])], "pixel"),
        ([words([0, 0, 900, 9], width=100, height=100)], "thousand"),
    ],
)
def test_what_boxes_count_is_told_by_all_of_them(tmp_path, records, unit):
    report, _, _ = read("hugging-face", lines(tmp_path, *records), tmp_path)
    assert list(report.written.units) == [unit]


def test_what_people_say_about_boxes_counts_first(tmp_path):
    path = lines(tmp_path, words([10, 20, 30, 40]))
    _, [word], _ = read("hugging-face", path, tmp_path, ImportOptions(unit="percent"))
    assert (word["x"], word["y"]) == (0.1, 0.2)


def test_an_image_size_that_is_missing_is_said_and_not_guessed(tmp_path):
    report, [word], _ = read("hugging-face", lines(tmp_path, words([0, 0, 1500, 9])), tmp_path)
    assert word["x"] is None
    assert report.written.without_size == 1
    [problem] = report.written.problems
    assert "--images" in str(problem)
    assert not problem.is_left_out


def test_sizes_come_from_images_where_a_folder_has_them(tmp_path):
    path = lines(tmp_path, words([0, 0, 1500, 900], image_path="scans/a.png"))
    png(tmp_path / "images" / "a.png", 3000, 1800)
    options = ImportOptions(images=tmp_path / "images")
    _, [word], _ = read("hugging-face", path, tmp_path, options)
    assert (word["width"], word["height"]) == (0.5, 0.5)
    assert word["image_uri"] == "scans/a.png"


def test_no_path_in_a_source_leads_out_of_the_folder_of_images(tmp_path):
    png(tmp_path / "secret.png", 3000, 1800)
    (tmp_path / "images").mkdir()
    path = lines(tmp_path, words([0, 0, 1500, 900], image_path="../secret.png"))
    options = ImportOptions(images=tmp_path / "images")
    moved = path.rename(tmp_path / "images" / "x.jsonl")
    _, [word], _ = read("hugging-face", moved, tmp_path, options)
    assert word["x"] is None


def test_boxes_slightly_outside_are_clipped_and_counted_and_others_are_told_by_row(tmp_path):
    path = lines(tmp_path, words([-20, 0, 100, 10], [400, 0, 900, 10], [5000, 0, 6000, 10]))
    options = ImportOptions(unit="thousand")
    report, found, _ = read("hugging-face", path, tmp_path, options)
    assert report.written.clipped == 1
    assert [word["x"] for word in found] == [0.0, 0.4, None]
    [problem] = report.written.problems
    assert problem.row == "line 1, word 2"
    assert "outside of the image" in problem.reason


def test_turned_words_keep_their_corners(tmp_path):
    path = lines(tmp_path, words([100, 200, 300, 100, 350, 200, 150, 300]))
    _, [word], _ = read("hugging-face", path, tmp_path)
    assert word["quad"] == [0.1, 0.2, 0.3, 0.1, 0.35, 0.2, 0.15, 0.3]
    assert (word["x"], word["y"], word["width"], word["height"]) == pytest.approx(
        (0.1, 0.1, 0.25, 0.2)
    )


def test_empty_texts_are_told_by_row_and_move_no_other_id(tmp_path):
    path = lines(tmp_path, {"tokens": ["a", " ", None, "b"]})
    report, found, _ = read("hugging-face", path, tmp_path)
    assert [(word["text"], word["word_id"]) for word in found] == [("a", 1), ("b", 4)]
    assert [problem.row for problem in report.written.problems] == [
        "line 1, word 1",
        "line 1, word 2",
    ]


# Single formats


def test_numbers_of_classes_without_names_say_where_to_write_them(tmp_path):
    path = lines(tmp_path, {"tokens": ["a"], "ner_tags": [3]})
    with pytest.raises(InputError, match=r"classes\.txt"):
        read("hugging-face", path, tmp_path)
    (tmp_path / "classes.txt").write_text("O\nA\nB\nTOTAL\n")
    _, _, [label] = read("hugging-face", path, tmp_path)
    assert label["label"] == "TOTAL"


def test_names_of_classes_come_from_the_card_of_a_data_set(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: ner_tags\n    sequence:\n      class_label:\n"
        "        names:\n          '0': O\n          '1': B-DATE\n---\nText.\n"
    )
    path = lines(tmp_path, {"tokens": ["a", "b"], "ner_tags": [1, 0]})
    _, _, [label] = read("hugging-face", path, tmp_path)
    assert label["label"] == "DATE"


def test_as_many_labels_as_words_are_needed(tmp_path):
    good = {"id": "b", "tokens": ["a"], "ner_tags": ["DATE"]}
    path = lines(tmp_path, {"id": "a", "tokens": ["a", "b"], "ner_tags": ["DATE"]}, good)
    report, [word], _ = read("hugging-face", path, tmp_path)
    assert word["image_id"] == "b"
    assert "2 words and 1 ner_tags" in str(report.written.problems[0])


def test_a_total_that_stands_there_several_times_is_the_one_on_the_line_of_the_total(tmp_path):
    sroie(tmp_path)
    rows = ["Tea 9.00", "TOTAL (incl. tax) 9.00", "CASH 10.00", "CHANGE 9.00"]
    text = "".join(f"0,{n}0,100,{n}0,100,{n}9,0,{n}9,{row}\n" for n, row in enumerate(rows))
    (tmp_path / "box" / "shop-1.csv").write_text(text)
    (tmp_path / "key" / "shop-1.json").write_text('{"total": "9.00", "date": "not there"}')
    report, found, labels = read("sroie", tmp_path / "box" / "shop-1.csv", tmp_path)
    assert [(label["line_id"], label["label"]) for label in labels] == [(2, "total")]
    assert "its text is not in the lines" in str(report.written.problems[0])
    total = [word for word in found if word["line_id"] == 2]
    assert [word["text"] for word in total] == ["TOTAL", "(incl.", "tax)", "9.00"]
    assert total[0]["x"] + total[0]["width"] < total[1]["x"] < total[3]["x"]


def test_annotators_of_label_studio_stand_side_by_side(tmp_path):
    [path] = label_studio(tmp_path)
    tasks = json.loads(path.read_text())
    [annotation] = tasks[1]["annotations"]
    other = json.loads(json.dumps(annotation))
    other |= {"completed_by": 7, "ground_truth": True}
    labels = [one for one in other["result"] if one["type"] == "labels"]
    labels[-1]["value"]["labels"] = ["cash"]
    for one in other["result"]:
        one.pop("id")  # then a region is known by its place
    tasks[1]["annotations"].append(other)
    path.write_text(json.dumps(tasks))
    report, found, given = read("label-studio", path, tmp_path)
    assert report.written.problems == []
    assert len(found) == 9
    shop = [label for label in given if label["image_id"] == "shop-2"]
    by = {(label["label"], label["annotator"], label["validation_status"]) for label in shop}
    both = "ann@example.com, Label Studio user 7"
    assert by == {
        ("company", both, "PENDING"),
        ("date", both, "PENDING"),
        ("total", "ann@example.com", "PENDING"),
        ("cash", "Label Studio user 7", "VALID"),
    }


def test_captions_of_cord_have_a_label_of_their_own(tmp_path):
    record = cord_records()["shop-2"]
    caption = record["valid_line"][2]
    caption["words"][0]["is_key"], caption["category"] = 1, "total"
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps(record))
    _, found, given = read("cord", path, tmp_path)
    texts = {(word["line_id"], word["word_id"]): word["text"] for word in found}
    labelled = {texts[label["line_id"], label["word_id"]]: label["label"] for label in given}
    assert (labelled["TOTAL"], labelled["12.50"]) == ("total.key", "total")


def test_a_caption_of_cord_without_a_category_carries_no_label(tmp_path):
    record = cord_records()["shop-2"]
    record["valid_line"][2]["words"][0]["is_key"] = 1
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps(record))
    report, found, given = read("cord", path, tmp_path)
    assert (len(found), len(given), report.written.problems) == (4, 3, [])


def cord_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def cord_parquet(path: Path, records: list[dict]) -> None:
    texts = [json.dumps({**record, "gt_parse": {}}) for record in records]
    pq.write_table(pa.table({"image": [b"png"] * len(texts), "ground_truth": texts}), path)


@pytest.mark.parametrize(
    ("name", "write"), [("train.jsonl", cord_lines), ("train.parquet", cord_parquet)]
)
def test_receipts_of_cord_may_stand_together_in_a_file(tmp_path, name, write):
    records = list(cord_records().values())
    write(tmp_path / name, records)
    _, found, given = read("cord", tmp_path / name, tmp_path)
    singles = [tmp_path / f"{number}.json" for number, _ in enumerate(records)]
    alone: list[tuple] = []
    for path, record in zip(singles, records, strict=True):
        path.write_text(json.dumps(record))
        _, words_alone, labels_alone = read("cord", path, tmp_path)
        alone += [without_image(row) for row in (*words_alone, *labels_alone)]
    assert sorted(map(without_image, (*found, *given))) == sorted(alone)
    assert {word["image_id"] for word in found} == {"train/1", "train/2"}


def without_image(row: dict) -> tuple:
    return tuple(str(value) for name, value in row.items() if name != "image_id")


def test_a_broken_row_of_cord_as_parquet_is_told_and_the_others_are_read(tmp_path):
    path = tmp_path / "train.parquet"
    whole = json.dumps(cord_records()["shop-1"])
    pq.write_table(pa.table({"ground_truth": [whole[:40], None, whole]}), path)
    report, found, _ = read("cord", path, tmp_path)
    assert [problem.row for problem in report.written.problems] == ["row 1", "row 2"]
    assert len(found) == 5
    pq.write_table(pa.table({"text": ["x"]}), path)
    with pytest.raises(InputError, match="no column ground_truth"):
        read("cord", path, tmp_path)


def test_textract_without_expenses_gives_words_and_lines_of_each_page(tmp_path):
    corners = [{"X": x, "Y": y} for x, y in ((0.1, 0.2), (0.3, 0.2), (0.3, 0.25), (0.1, 0.25))]
    first = {"BlockType": "WORD", "Id": "a", "Text": "TOTAL", "Page": 1, "Confidence": 98.0}
    second = {"BlockType": "WORD", "Id": "b", "Text": "9.00", "Page": 1}
    other = {"BlockType": "WORD", "Id": "c", "Text": "Seite", "Page": 2}
    line = {"BlockType": "LINE", "Id": "l", "Relationships": [{"Type": "CHILD", "Ids": ["a", "b"]}]}
    detected = {
        "DocumentMetadata": {"Pages": 2},
        "Blocks": [
            {"BlockType": "PAGE", "Id": "p"},
            line,
            {**first, "Geometry": {"Polygon": corners}},
            second,
            other,
        ],
    }
    path = tmp_path / "response.json"
    path.write_text(json.dumps(detected))
    report, found, given = read("textract", path, tmp_path)
    assert given == []
    assert [(w["receipt_id"], w["line_id"], w["word_id"], w["text"]) for w in found] == [
        (1, 1, 1, "TOTAL"),
        (1, 1, 2, "9.00"),
        (2, 1, 1, "Seite"),
    ]
    assert found[0]["ocr_confidence"] == 0.98
    place = [found[0][side] for side in ("x", "y", "width", "height")]
    assert place == pytest.approx([0.1, 0.2, 0.2, 0.05])
    assert report.written.without_position == 2


CONLL = """-DOCSTART- -X- O O

SHOP NNP B-NP B-COMPANY
Ltd NNP I-NP I-COMPANY

TOTAL NN B-NP O
-DOCSTART- -X- O O

9.00 CD B-NP S-TOTAL
"""


@pytest.mark.parametrize(
    ("keeps", "names"),
    [
        (False, ["COMPANY", "COMPANY", "TOTAL"]),
        (True, ["B-COMPANY", "I-COMPANY", "S-TOTAL"]),
    ],
)
def test_documents_of_conll_begin_with_docstart_and_prefixes_stay_on_demand(tmp_path, keeps, names):
    path = tmp_path / "train.conll"
    path.write_text(CONLL)
    _, found, given = read("conll", path, tmp_path, ImportOptions(keep_prefix=keeps))
    assert [(w["image_id"], w["line_id"], w["word_id"], w["text"]) for w in found] == [
        ("train/1", 1, 1, "SHOP"),
        ("train/1", 1, 2, "Ltd"),
        ("train/1", 2, 1, "TOTAL"),
        ("train/2", 1, 1, "9.00"),
    ]
    assert [label["label"] for label in given] == names


def test_turned_regions_of_label_studio_keep_their_corners_on_an_image_that_is_not_square(tmp_path):
    [path] = label_studio(tmp_path)
    tasks = json.loads(path.read_text())
    region = tasks[1]["annotations"][0]["result"]
    for one in region:
        if one["id"] == "r0":
            one["value"] |= {"x": 50, "y": 25, "width": 25, "height": 10, "rotation": 90}
    path.write_text(json.dumps(tasks))
    _, found, _ = read("label-studio", path, tmp_path)
    turned = next(word for word in found if word["image_id"] == "shop-2")
    # 100 x 80 pixels of 400 x 800, turned to the right about its top left corner at (200, 200).
    place = [turned[side] for side in ("x", "y", "width", "height")]
    assert place == pytest.approx([120 / 400, 200 / 800, 80 / 400, 100 / 800])
    assert turned["quad"] is None
    for one in region:
        if one["id"] == "r0":
            one["value"]["rotation"] = 30
    path.write_text(json.dumps(tasks))
    _, found, _ = read("label-studio", path, tmp_path)
    turned = next(word for word in found if word["image_id"] == "shop-2")
    sine, cosine = math.sin(math.radians(30)), math.cos(math.radians(30))
    steps = [(0, 0), (100 * cosine, 100 * sine), (-80 * sine, 80 * cosine)]
    corners = [((200 + x) / 400, (200 + y) / 800) for x, y in steps]
    quad = list(zip(turned["quad"][::2], turned["quad"][1::2], strict=True))
    assert all(min(math.dist(corner, one) for one in quad) < 1e-6 for corner in corners)


def test_a_turned_region_without_the_size_of_its_image_is_told_and_keeps_its_text(tmp_path):
    [path] = label_studio(tmp_path)
    tasks = json.loads(path.read_text())
    for one in tasks[1]["annotations"][0]["result"]:
        if one["id"] == "r0":
            one["value"]["rotation"] = 30
            del one["original_width"]
    path.write_text(json.dumps(tasks))
    report, found, _ = read("label-studio", path, tmp_path)
    assert len(found) == 9
    assert [word["x"] for word in found if word["text"] == "Bäcker|1"] == [None]
    assert "the size of the image is not told" in str(report.written.problems[0])


def test_labels_of_predictions_are_taken_only_when_asked_for(tmp_path):
    [path] = label_studio(tmp_path)
    tasks = json.loads(path.read_text())
    for task in tasks:
        [annotation] = task.pop("annotations")
        task["predictions"] = [{"model_version": "m1", "result": annotation["result"]}]
    path.write_text(json.dumps(tasks))
    report, found, given = read("label-studio", path, tmp_path)
    assert (len(found), given) == (9, [])
    assert "--predictions" in str(report.written.problems[0])
    _, _, given = read("label-studio", path, tmp_path, ImportOptions(predictions=True))
    assert {label["origin"] for label in given} == {"prediction m1"}


def test_lists_of_paddleocr_2_and_files_of_ppocrlabel_are_read(tmp_path):
    [path, _] = paddleocr(tmp_path)
    page = json.loads(path.read_text())
    pairs = zip(page["rec_polys"], page["rec_texts"], strict=True)
    both = [[[corners, [text, 0.9]] for corners, text in pairs]]
    path.write_text(json.dumps(both))
    _, found, _ = read("paddleocr", path, tmp_path)
    assert [word["text"] for word in found] == page["rec_texts"]
    label_file = tmp_path / "Label.txt"
    row = [{"transcription": "TOTAL DUE", "points": page["rec_polys"][0], "key_cls": "TOTAL"}]
    label_file.write_text(f"scans/shop-1.png\t{json.dumps(row)}\n")
    _, found, labels = read("paddleocr", label_file, tmp_path)
    assert [(word["image_id"], word["text"]) for word in found] == [
        ("scans/shop-1", "TOTAL"),
        ("scans/shop-1", "DUE"),
    ]
    assert [label["label"] for label in labels] == ["TOTAL", "TOTAL"]


def test_entities_of_a_document_type_do_not_expand_in_hocr(tmp_path):
    path = tmp_path / "bomb.hocr"
    inner = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    path.write_text(
        f'<!DOCTYPE x [<!ENTITY l0 "lol">{inner}]><div class="ocr_page" title="bbox 0 0 9 9">'
        '<span class="ocrx_word" title="bbox 0 0 1 1">&l9; &amp; &eacute;</span></div>'
    )
    _, [word], _ = read("hocr", path, tmp_path)
    assert word["text"] == "&l9; & é"


def test_prefixes_of_tags_stay_when_they_are_to_be_kept(tmp_path):
    path = lines(tmp_path, {"tokens": ["a", "b"], "ner_tags": ["B-DATE", "E_MAIL"]})
    _, _, labels = read("hugging-face", path, tmp_path)
    assert [label["label"] for label in labels] == ["DATE", "E_MAIL"]
    _, _, labels = read("hugging-face", path, tmp_path, ImportOptions(keep_prefix=True))
    assert [label["label"] for label in labels] == ["B-DATE", "E_MAIL"]


def test_a_spreadsheet_without_its_columns_shows_a_guess(tmp_path):
    path = tmp_path / "words.csv"
    path.write_text("File Name,Word,Label,x_min,ymin,xmax,ymax\n")
    with pytest.raises(InputError) as raised:
        read("spreadsheet", path, tmp_path)
    for part in ("image: File Name", "text: Word", "label: Label", "left: x_min", "--columns"):
        assert part in str(raised.value)


def test_blanks_around_a_label_of_a_spreadsheet_are_told_by_row(tmp_path):
    path, columns = tmp_path / "words.csv", tmp_path / "columns.yaml"
    path.write_text("image,text,label\na, 1 ,TAX \na,2, \na,3,TAX\n")
    columns.write_text("image: image\ntext: text\nlabel: label\n")
    report, found, labels = read("spreadsheet", path, tmp_path, ImportOptions(columns=columns))
    assert [word["text"] for word in found] == ["1", "2", "3"]
    assert [(label["word_id"], label["label"]) for label in labels] == [(3, "TAX")]
    [problem] = report.written.problems
    assert (problem.row, report.written.padded) == ("row 2", {"TAX ": 1})


def test_rows_of_a_spreadsheet_that_do_not_stand_together_are_refused(tmp_path):
    path, columns = tmp_path / "words.csv", tmp_path / "columns.yaml"
    path.write_text("image,text\na,1\nb,2\na,3\n")
    columns.write_text("image: image\ntext: text\n")
    with pytest.raises(InputError, match=r"row 4: the image a comes again.*sort"):
        read("spreadsheet", path, tmp_path, ImportOptions(columns=columns))


# Formats of others

OURS = """
from harmonizer_assets.importers import Importer, SourceReceipt, SourceWord

class OurTool(Importer):
    name = "our-tool"
    suffixes = (".our",)
    describes = "ours"

    def read(self, source, options):
        words = [SourceWord(text) for text in source.path.read_text().split()]
        yield SourceReceipt(source.name, source.path, words)

class Broken:
    pass
"""


def test_a_package_adds_a_format_through_an_entry_point(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    described = folder / "our_tool-1.0.dist-info"
    described.mkdir(parents=True)
    (folder / "our_tool_importer.py").write_text(OURS)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: our-tool\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(
        "[harmonizer_assets.importers]\nour-tool = our_tool_importer:OurTool\n"
        "broken = our_tool_importer:Broken\nmissing = nowhere:Nothing\nconll = nowhere:Nothing\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "our_tool_importer", raising=False)
    path = tmp_path / "receipt.our"
    path.write_text("Tea 9.00")
    assert "our-tool" in format_names()
    _, found, _ = read("our-tool", path, tmp_path)
    assert [word["text"] for word in found] == ["Tea", "9.00"]
    for name in ("broken", "missing"):
        with pytest.raises(ConfigurationError, match=f"the format {name} cannot be used"):
            importer(name)
    assert importer("conll").name == "conll"
