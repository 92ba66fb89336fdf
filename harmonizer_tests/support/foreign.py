"""The same two receipts in every format that can be imported, and what must come out of it.

A format is added by a row of `FORMATS`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 400, 800


@dataclass(frozen=True)
class Sample:
    """A word of a receipt: corner and size in pixels, its line, and its label."""

    text: str
    left: int
    top: int
    width: int
    line: int
    label: str | None = None
    height: int = 20

    @property
    def box(self) -> list[int]:
        return [self.left, self.top, self.left + self.width, self.top + self.height]

    @property
    def quad(self) -> list[list[int]]:
        left, top, right, bottom = self.box
        return [[left, top], [right, top], [right, bottom], [left, bottom]]

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """Where it must be: x, y, width, height."""
        return (
            self.left / WIDTH,
            self.top / HEIGHT,
            self.width / WIDTH,
            self.height / HEIGHT,
        )


RECEIPTS: dict[str, list[Sample]] = {
    "shop-1": [
        Sample("Ácme", 0, 0, 80, 0, "company"),
        Sample('"Mart"', 100, 0, 80, 0, "company"),
        Sample("Tea", 20, 100, 60, 1),
        Sample("TOTAL", 20, 200, 100, 2),
        Sample("9.00", 240, 200, 80, 2, "total"),
    ],
    "shop-2": [
        Sample("Bäcker|1", 40, 40, 160, 0, "company"),
        Sample("03/12/2018", 40, 80, 120, 1, "date"),
        Sample("TOTAL", 40, 300, 100, 2),
        Sample("12.50", 280, 300, 80, 2, "total"),
    ],
}


@dataclass(frozen=True)
class Foreign:
    """A format: how the receipts are written in it, and what of them it can hold.

    Attributes:
        write: writes the receipts into a folder; returns the paths to be imported.
        positions, lines, labels: whether it holds any.
        names: what it calls the labels, where it has names of its own.
        can_be_written_back: whether corrected labels can be written into it.
        first_line: number of the first line.
    """

    write: Callable[[Path], list[Path]]
    positions: bool = True
    lines: bool = True
    labels: bool = True
    names: Callable[[str], str] = str
    can_be_written_back: bool = False
    first_line: int = 1


def _json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def _lines(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    return path


def png(path: Path, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """A white image."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zlib.compress((b"\0" + b"\xff" * width) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def by_line(words: Sequence[Sample]) -> Iterator[tuple[int, list[Sample]]]:
    for line in dict.fromkeys(word.line for word in words):
        yield line, [word for word in words if word.line == line]


def hugging_face(folder: Path) -> list[Path]:
    records = [
        {
            "id": name,
            "tokens": [word.text for word in words],
            "bboxes": [
                [word.box[n] * 1000 / (WIDTH, HEIGHT)[n % 2] for n in range(4)] for word in words
            ],
            "ner_tags": [f"B-{word.label}" if word.label else "O" for word in words],
        }
        for name, words in RECEIPTS.items()
    ]
    return [_lines(folder / "train.jsonl", records)]


def hugging_face_parquet(folder: Path) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["O", "B-company", "I-company", "B-date", "B-total"]
    features = {"ner_tags": {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}}
    table = pa.table(
        {
            "id": list(RECEIPTS),
            "words": [[word.text for word in words] for words in RECEIPTS.values()],
            "boxes": [[word.box for word in words] for words in RECEIPTS.values()],
            "ner_tags": [
                [names.index(f"B-{word.label}") if word.label else 0 for word in words]
                for words in RECEIPTS.values()
            ],
            "width": [WIDTH] * len(RECEIPTS),
            "height": [HEIGHT] * len(RECEIPTS),
        }
    )
    info = json.dumps({"info": {"features": features}})
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), folder / "train.parquet")
    return [folder / "train.parquet"]


def sroie(folder: Path) -> list[Path]:
    for name, words in RECEIPTS.items():
        rows = []
        for word in words:
            corners = ",".join(str(value) for corner in word.quad for value in corner)
            rows.append(f"{corners},{word.text}")
        (folder / "box").mkdir(exist_ok=True)
        (folder / "box" / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        keys: dict[str, str] = {}
        for word in words:
            if word.label:
                keys[word.label] = f"{keys.get(word.label, '')} {word.text}".strip()
        _json(folder / "key" / f"{name}.json", keys)
        png(folder / "img" / f"{name}.png")
    return [folder / "box"]


def cord_records() -> dict[str, dict[str, Any]]:
    """The receipts as CORD has them, by name."""
    records = {}
    for name, words in RECEIPTS.items():
        phrases = []
        for word in words:
            # From the lower left corner, against the clock, as some annotators began.
            order = [word.quad[n] for n in (3, 2, 1, 0)]
            quad = {
                f"{axis}{n}": corner["xy".index(axis)]
                for n, corner in enumerate(order, 1)
                for axis in "xy"
            }
            one = {"quad": quad, "is_key": 0, "row_id": 100 + word.line, "text": word.text}
            phrases.append({"words": [one], "category": word.label, "group_id": 1})
        meta = {"image_id": 0, "image_size": {"width": WIDTH, "height": HEIGHT}}
        records[name] = {"valid_line": phrases, "meta": meta}
    return records


def cord(folder: Path) -> list[Path]:
    return [_json(folder / f"{name}.json", record) for name, record in cord_records().items()]


def funsd(folder: Path) -> list[Path]:
    for name, words in RECEIPTS.items():
        entities = []
        for number, word in enumerate(words):
            one = {"box": word.box, "text": word.text}
            entities.append(
                {
                    "id": number,
                    "text": word.text,
                    "box": word.box,
                    "linking": [],
                    "label": word.label or "other",
                    "words": [one],
                }
            )
        _json(folder / "annotations" / f"{name}.json", {"form": entities})
        png(folder / "images" / f"{name}.png")
    return [folder / "annotations"]


_WILD = {"company": "Store_name_value", "date": "Date_value", "total": "Total_value"}


def wildreceipt(folder: Path) -> list[Path]:
    numbers = {"company": 1, "date": 7, "total": 23, None: 25}
    records = []
    for name, words in RECEIPTS.items():
        annotations = []
        for word in words:
            # From the lower left corner, as the data set has it.
            box = [value for n in (3, 0, 1, 2) for value in word.quad[n]]
            annotations.append({"box": box, "text": word.text, "label": numbers[word.label]})
        records.append(
            {
                "file_name": f"{name}.jpeg",
                "height": HEIGHT,
                "width": WIDTH,
                "annotations": annotations,
            }
        )
    return [_lines(folder / "train.txt", records)]


def textract(folder: Path) -> list[Path]:
    paths = []
    for name, words in RECEIPTS.items():
        blocks: list[dict[str, Any]] = [{"BlockType": "PAGE", "Id": "page"}]
        for line, inside in by_line(words):
            ids = [f"w{words.index(word)}" for word in inside]
            blocks.append(
                {
                    "BlockType": "LINE",
                    "Id": f"l{line}",
                    "Relationships": [{"Type": "CHILD", "Ids": ids}],
                }
            )
        fields = []
        for number, word in enumerate(words):
            x, y, width, height = word.shares
            geometry = {"BoundingBox": {"Left": x, "Top": y, "Width": width, "Height": height}}
            blocks.append(
                {
                    "BlockType": "WORD",
                    "Id": f"w{number}",
                    "Text": word.text,
                    "Confidence": 99.5,
                    "Geometry": geometry,
                }
            )
            if word.label:
                fields.append(
                    {
                        "Type": {"Text": word.label},
                        "ValueDetection": {"Text": word.text, "Geometry": geometry},
                        "PageNumber": 1,
                    }
                )
        expense = {"ExpenseIndex": 1, "SummaryFields": fields, "Blocks": blocks}
        paths.append(_json(folder / f"{name}.json", {"ExpenseDocuments": [expense]}))
    return paths


def google_vision(folder: Path) -> list[Path]:
    paths = []
    for name, words in RECEIPTS.items():
        found = []
        for line, inside in by_line(words):
            del line
            for place, word in enumerate(inside):
                symbols: list[dict[str, Any]] = [{"text": sign} for sign in word.text]
                kind = "LINE_BREAK" if place == len(inside) - 1 else "SPACE"
                symbols[-1]["property"] = {"detectedBreak": {"type": kind}}
                vertices = [
                    {axis: value for axis, value in zip("xy", corner, strict=True) if value}
                    for corner in word.quad
                ]
                found.append({"boundingBox": {"vertices": vertices}, "symbols": symbols})
        page = {
            "width": WIDTH,
            "height": HEIGHT,
            "blocks": [{"paragraphs": [{"words": found}]}],
        }
        response = {"fullTextAnnotation": {"pages": [page], "text": "..."}}
        paths.append(_json(folder / f"{name}.json", {"responses": [response]}))
    return paths


def azure(folder: Path) -> list[Path]:
    paths = []
    for name, words in RECEIPTS.items():
        at, found, lines, fields = 0, [], [], {}
        for _, inside in by_line(words):
            start = at
            for word in inside:
                span = {"offset": at, "length": len(word.text)}
                polygon = [value / 100 for corner in word.quad for value in corner]
                found.append({"content": word.text, "polygon": polygon, "span": span})
                if word.label:
                    fields.setdefault(word.label, {"spans": []})["spans"].append(span)
                at += len(word.text) + 1
            lines.append({"content": "...", "spans": [{"offset": start, "length": at - 1 - start}]})
        page = {
            "pageNumber": 1,
            "width": WIDTH / 100,
            "height": HEIGHT / 100,
            "unit": "inch",
            "words": found,
            "lines": lines,
        }
        result = {"pages": [page], "documents": [{"fields": fields}]}
        paths.append(_json(folder / f"{name}.json", {"analyzeResult": result}))
    return paths


def tesseract(folder: Path) -> list[Path]:
    header = "level page_num block_num par_num line_num word_num left top width height conf text"
    paths = []
    for name, words in RECEIPTS.items():
        rows = [header.split(), [1, 1, 0, 0, 0, 0, 0, 0, WIDTH, HEIGHT, -1, ""]]
        for line, inside in by_line(words):
            rows.append([4, 1, 1, 1, line + 1, 0, 0, 0, 1, 1, -1, ""])
            for place, word in enumerate(inside, 1):
                rows.append(
                    [
                        5,
                        1,
                        1,
                        1,
                        line + 1,
                        place,
                        word.left,
                        word.top,
                        word.width,
                        word.height,
                        96.5,
                        word.text,
                    ]
                )
        path = folder / f"{name}.tsv"
        path.write_text("\n".join("\t".join(map(str, row)) for row in rows) + "\n", "utf-8")
        paths.append(path)
    return paths


def hocr(folder: Path) -> list[Path]:
    from html import escape

    paths = []
    for name, words in RECEIPTS.items():
        parts = [f"<div class='ocr_page' title='image \"{name}.png\"; bbox 0 0 {WIDTH} {HEIGHT}'>"]
        for _, inside in by_line(words):
            parts.append("<span class='ocr_line' title='bbox 0 0 1 1'>")
            for word in inside:
                box = " ".join(map(str, word.box))
                parts.append(
                    f"<span class='ocrx_word' title='bbox {box}; x_wconf 95'>"
                    f"<strong>{escape(word.text)}</strong></span>"
                )
            parts.append("</span>")
        path = folder / f"{name}.hocr"
        path.write_text(f"<html><body>{''.join(parts)}</div></body></html>", "utf-8")
        paths.append(path)
    return paths


def doctr(folder: Path) -> list[Path]:
    paths = []
    for name, words in RECEIPTS.items():
        lines = []
        for _, inside in by_line(words):
            found = []
            for word in inside:
                x, y, width, height = word.shares
                found.append(
                    {
                        "value": word.text,
                        "confidence": 0.9,
                        "geometry": [[x, y], [x + width, y + height]],
                    }
                )
            lines.append({"words": found})
        page = {"page_idx": 0, "dimensions": [HEIGHT, WIDTH], "blocks": [{"lines": lines}]}
        paths.append(_json(folder / f"{name}.json", {"pages": [page]}))
    return paths


def paddleocr(folder: Path) -> list[Path]:
    paths = []
    for name, words in RECEIPTS.items():
        page = {
            "input_path": f"{name}.png",
            "page_index": None,
            "rec_texts": [word.text for word in words],
            "rec_scores": [0.9 for _ in words],
            "rec_polys": [word.quad for word in words],
        }
        png(folder / f"{name}.png")
        paths.append(_json(folder / f"{name}.json", page))
    return paths


def label_studio(folder: Path) -> list[Path]:
    tasks = []
    for number, (name, words) in enumerate(RECEIPTS.items()):
        results = []
        for place, word in enumerate(words):
            x, y, width, height = (100 * share for share in word.shares)
            value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
            common = {
                "id": f"r{place}",
                "to_name": "image",
                "original_width": WIDTH,
                "original_height": HEIGHT,
            }
            text = {**value, "text": [word.text]}
            results.append({**common, "type": "textarea", "value": text})
            if word.label:
                labels = {**value, "labels": [word.label]}
                results.append({**common, "type": "labels", "value": labels})
        annotation = {"id": 1, "completed_by": {"email": "ann@example.com"}, "result": results}
        tasks.append({"id": number, "data": {"image": f"{name}.png"}, "annotations": [annotation]})
    return [_json(folder / "export.json", tasks)]


def label_studio_min(folder: Path) -> list[Path]:
    tasks = []
    for number, (name, words) in enumerate(RECEIPTS.items()):
        places = []
        for word in words:
            x, y, width, height = (100 * share for share in word.shares)
            place = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
            size = {"original_width": WIDTH, "original_height": HEIGHT}
            places.append((word, {**place, **size}))
        tasks.append(
            {
                "ocr": f"{name}.png",
                "id": number,
                "bbox": [place for _, place in places],
                "label": [
                    {**place, "labels": [word.label]} for word, place in places if word.label
                ],
                "transcription": [word.text for word, _ in places],
                "annotator": 3,
            }
        )
    return [_json(folder / "export.json", tasks)]


def _text(words: Sequence[Sample]) -> tuple[str, list[tuple[int, int, str]]]:
    """A text with a line for each line, and the spans of its labels."""
    lines = [" ".join(word.text for word in inside) for _, inside in by_line(words)]
    spans, at = [], 0
    for word in words:
        text = "\n".join(lines)
        start = text.index(word.text, at)
        at = start + len(word.text)
        if word.label:
            spans.append((start, at, word.label))
    return "\n".join(lines), spans


def doccano(folder: Path) -> list[Path]:
    records = []
    for name, words in RECEIPTS.items():
        text, spans = _text(words)
        records.append({"id": name, "text": text, "label": spans, "Comments": []})
    return [_lines(folder / "admin.jsonl", records)]


def prodigy(folder: Path) -> list[Path]:
    records = []
    for name, words in RECEIPTS.items():
        text, spans = _text(words)
        named = [{"start": start, "end": end, "label": label} for start, end, label in spans]
        records.append(
            {"id": name, "text": text, "spans": named, "answer": "accept", "_annotator_id": "ann"}
        )
    return [_lines(folder / "ner.jsonl", records)]


def prodigy_images(folder: Path) -> list[Path]:
    records = []
    for name, words in RECEIPTS.items():
        spans = [
            {"points": word.quad, "text": word.text, "type": "polygon"}
            | ({"label": word.label} if word.label else {})
            for word in words
        ]
        image = {"image": f"{name}.png", "width": WIDTH, "height": HEIGHT}
        records.append({**image, "spans": spans, "answer": "accept"})
    return [_lines(folder / "images.jsonl", records)]


def argilla(folder: Path) -> list[Path]:
    records = []
    for name, words in RECEIPTS.items():
        text, spans = _text(words)
        value = [{"start": start, "end": end, "label": label} for start, end, label in spans]
        response = {"value": value, "user_id": "ann", "status": "submitted"}
        records.append({"id": name, "fields": {"text": text}, "responses": {"spans": [response]}})
    return [_json(folder / "records.json", records)]


def argilla_before_2(folder: Path) -> list[Path]:
    records = []
    for name, words in RECEIPTS.items():
        text, spans = _text(words)
        annotation = [[label, start, end] for start, end, label in spans]
        records.append({"id": name, "text": text, "annotation": annotation})
    return [_lines(folder / "records.jsonl", records)]


def conll(folder: Path) -> list[Path]:
    lines = []
    for name, words in RECEIPTS.items():
        lines.append(f"# newdoc id = {name}")
        for _, inside in by_line(words):
            before = None
            for word in inside:
                prefix = "I" if word.label == before else "B"
                lines.append(f"{word.text} NN {f'{prefix}-{word.label}' if word.label else 'O'}")
                before = word.label
            lines.append("")
    path = folder / "train.conll"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [path]


def _rows() -> list[list[Any]]:
    rows: list[list[Any]] = [["File", "Row", "Word", "Tag", "x1", "y1", "x2", "y2", "W", "H"]]
    for name, words in RECEIPTS.items():
        for word in words:
            rows.append([name, word.line, word.text, word.label, *word.box, WIDTH, HEIGHT])
    return rows


COLUMNS = """\
image: File
line: Row
text: Word
label: Tag
left: x1
top: y1
right: x2
bottom: y2
image_width: W
image_height: H
"""


def spreadsheet(folder: Path) -> list[Path]:
    return _separated(folder / "words.csv", ";")


def tabbed(folder: Path) -> list[Path]:
    return _separated(folder / "words.tsv", "\t")


def _separated(path: Path, separator: str) -> list[Path]:
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(_rows())
    path.with_name("columns.yaml").write_text(COLUMNS)
    return [path]


def excel(folder: Path) -> list[Path]:
    import openpyxl

    book = openpyxl.Workbook()
    for row in _rows():
        book.active.append(row)
    book.save(folder / "words.xlsx")
    (folder / "columns.yaml").write_text(COLUMNS)
    return [folder / "words.xlsx"]


def _wild(name: str) -> str:
    return _WILD[name]


FORMATS: dict[str, Foreign] = {
    "hugging-face": Foreign(hugging_face, lines=False, can_be_written_back=True),
    "hugging-face (Parquet)": Foreign(hugging_face_parquet, lines=False),
    "sroie": Foreign(sroie, lines=False),
    "cord": Foreign(cord),
    "funsd": Foreign(funsd, lines=False, can_be_written_back=True),
    "wildreceipt": Foreign(wildreceipt, lines=False, names=_wild, can_be_written_back=True),
    "textract": Foreign(textract),
    "google-vision": Foreign(google_vision, labels=False),
    "azure": Foreign(azure),
    "tesseract": Foreign(tesseract, labels=False),
    "hocr": Foreign(hocr, labels=False),
    "doctr": Foreign(doctr, labels=False),
    "paddleocr": Foreign(paddleocr, lines=False, labels=False),
    "label-studio": Foreign(label_studio, lines=False, can_be_written_back=True),
    "label-studio (JSON_MIN)": Foreign(label_studio_min, lines=False),
    "doccano": Foreign(doccano, positions=False),
    "prodigy": Foreign(prodigy, positions=False),
    "prodigy (images)": Foreign(prodigy_images, lines=False),
    "argilla": Foreign(argilla, positions=False),
    "argilla (before 2)": Foreign(argilla_before_2, positions=False),
    "conll": Foreign(conll, positions=False, can_be_written_back=True),
    "spreadsheet": Foreign(spreadsheet),
    "spreadsheet (TSV)": Foreign(tabbed),
    "spreadsheet (Excel)": Foreign(excel),
}


def format_of(name: str) -> str:
    """The format of a row of the table."""
    return name.partition(" ")[0]
