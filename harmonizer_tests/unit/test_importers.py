"""Every format that can be imported: the same receipts come out of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.base import ImportOptions, SourceFile, SourceReceipt
from harmonizer_assets.core.importers.importing import ImportReport, import_to_folder
from harmonizer_assets.core.importers.names import Names
from harmonizer_assets.core.importers.registry import format_names, importer
from harmonizer_assets.core.importers.writing import TableWriter
from harmonizer_tests.support.foreign import FORMATS, RECEIPTS, format_of

ALL = pytest.mark.parametrize("name", FORMATS)


def options(folder: Path) -> ImportOptions:
    columns = folder / "columns.yaml"
    return ImportOptions(columns=columns if columns.exists() else None)


def imported(name: str, tmp_path: Path) -> tuple[ImportReport, list[dict], list[dict]]:
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    paths = FORMATS[name].write(source)
    return read(name, paths, source, tmp_path / "out")


def read(
    name: str, paths: list[Path], source: Path, out: Path
) -> tuple[ImportReport, list[dict], list[dict]]:
    report = import_to_folder(format_of(name), paths, out, options(source), overwrite=True)
    return (
        report,
        pq.read_table(out / "words.parquet").to_pylist(),
        pq.read_table(out / "labels.parquet").to_pylist(),
    )


def key(row: dict) -> tuple:
    return tuple(row[name] for name in ("image_id", "receipt_id", "line_id", "word_id"))


@ALL
def test_words_come_out_as_they_are_in_their_order(name, tmp_path):
    report, words, _ = imported(name, tmp_path)
    assert [str(problem) for problem in report.written.problems] == []
    found = {
        image: [row["text"] for row in words if row["image_id"] == image] for image in RECEIPTS
    }
    assert found == {image: [word.text for word in given] for image, given in RECEIPTS.items()}
    assert len({key(row) for row in words}) == len(words)


@ALL
def test_labels_come_out_on_their_words(name, tmp_path):
    _, words, labels = imported(name, tmp_path)
    texts = {key(row): row["text"] for row in words}
    found = sorted((row["image_id"], texts[key(row)], row["label"]) for row in labels)
    foreign = FORMATS[name]
    wanted = sorted(
        (image, word.text, foreign.names(word.label))
        for image, given in RECEIPTS.items()
        for word in given
        if word.label is not None and foreign.labels
    )
    assert found == wanted
    assert {row["validation_status"] for row in labels} <= {"PENDING"}


@ALL
def test_positions_come_out_in_shares_of_the_image(name, tmp_path):
    _, words, _ = imported(name, tmp_path)
    given = [word for samples in RECEIPTS.values() for word in samples]
    for row, word in zip(words, given, strict=True):
        found = [row[side] for side in ("x", "y", "width", "height")]
        wanted = list(word.shares) if FORMATS[name].positions else [None] * 4
        assert found == (pytest.approx(wanted, abs=1e-6) if wanted[0] is not None else wanted)
        assert row["quad"] is None


@ALL
def test_lines_are_those_of_the_source(name, tmp_path):
    _, words, _ = imported(name, tmp_path)
    if FORMATS[name].lines:
        given = [
            word.line + FORMATS[name].first_line
            for samples in RECEIPTS.values()
            for word in samples
        ]
        assert [row["line_id"] for row in words] == given


@ALL
def test_ids_are_the_same_on_every_import(name, tmp_path):
    _, words, labels = imported(name, tmp_path)
    _, again, labels_again = imported(name, tmp_path)
    assert again == words
    assert labels_again == labels


def test_every_format_is_in_this_table():
    assert {format_of(name) for name in FORMATS} == set(format_names())


@ALL
def test_a_folder_is_searched_for_the_files_of_a_format(name, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    paths = FORMATS[name].write(source)
    folders = sorted({path if path.is_dir() else path.parent for path in paths})
    report, words, _ = read(name, folders, source, tmp_path / "out")
    assert report.written.receipts == len(RECEIPTS)
    assert len(words) == sum(map(len, RECEIPTS.values()))


# Damaged files


def damaged(path: Path) -> list[tuple[str, bytes]]:
    content = path.read_bytes()
    deep = b"[" * 100_000
    return [
        ("empty", b""),
        *((f"cut off at {n}/7", content[: len(content) * n // 7]) for n in range(1, 7)),
        ("cut off near its end", content[:-10]),
        ("not UTF-8", b"\xff\xfe\x00\x81" + content),
        ("bytes", bytes(range(256)) * 20),
        ("a number", b"3"),
        ("null", b"null"),
        ("an empty object", b"{}"),
        ("an empty list", b"[]"),
        ("nested deeply", deep),
        ("nested deeply and closed", deep + b"]" * 100_000),
        ("objects nested deeply", b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        ("half a surrogate", content.replace(b"TOTAL", b"\\ud800")),
        ("every number a text", content.replace(b"0", b"x")),
        ("every list an object", content.replace(b"[", b"{").replace(b"]", b"}")),
        ("huge numbers", content.replace(b"200", b"2" + b"0" * 400)),
        ("a text of a megabyte", content.replace(b"TOTAL", b"T" * 1_000_000)),
        ("infinite", content.replace(b"200", b"Infinity")),
    ]


@ALL
def test_damaged_files_end_in_a_clear_error_or_are_told_and_nothing_is_half_imported(
    name, tmp_path
):
    source = tmp_path / "source"
    source.mkdir()
    [path, *_] = FORMATS[name].write(source)
    path = path if path.is_file() else sorted(path.iterdir())[0]
    for what, content in damaged(path):
        path.write_bytes(content)
        out = tmp_path / "out" / what
        error = None
        try:
            report, words, _ = read(name, [path], source, out)
        except InputError as raised:
            error = str(raised)
        if error is None:
            assert words, what
            assert all(problem.reason for problem in report.written.problems), what
        else:
            assert str(path) in error, what
            assert not out.exists(), what
        assert not [*(tmp_path / "out").glob(".*")], what


KINDS: list[Any] = [None, 3, -1.5, "x", "", [], {}, [[]], [None], {"a": []}, True]


def changed(value: Any, kinds: Iterator[Any]) -> Iterator[Any]:
    """The same value with one of its parts replaced or left out, for each part."""
    yield from islice(kinds, 3)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from ({**value, name: one} for one in changed(inner, kinds))
            yield {key: one for key, one in value.items() if key != name}
    elif isinstance(value, list):
        for place, inner in enumerate(value[:2]):
            before, after = value[:place], value[place + 1 :]
            yield from ([*before, one, *after] for one in changed(inner, kinds))


JSON_FORMATS = [
    name
    for name in FORMATS
    if not name.startswith(("sroie", "tesseract", "hocr", "conll", "spreadsheet"))
    and "Parquet" not in name
]


@pytest.mark.parametrize("name", JSON_FORMATS)
def test_values_of_any_kind_anywhere_never_make_a_traceback(name, tmp_path):
    [path, *_] = FORMATS[name].write(tmp_path)
    path = path if path.is_file() else sorted(path.iterdir())[0]
    text = path.read_text(encoding="utf-8")
    is_lines = path.suffix in (".jsonl", ".txt")
    value = json.loads(text.splitlines()[0]) if is_lines else json.loads(text)
    used, source = importer(format_of(name)), SourceFile(path, path.stem)
    with TableWriter(tmp_path, "x", ImportOptions(), Names()) as writer:
        for number, content in enumerate(islice(changed(value, cycle(KINDS)), 300)):
            path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
            # Not through `import_to_folder`, which would turn any error into an `InputError`.
            with suppress(InputError):
                for one in used.read(source, ImportOptions(predictions=True)):
                    is_receipt = isinstance(one, SourceReceipt)
                    named = replace(one, source_id=str(number)) if is_receipt else one
                    [*writer.add([named])]
    assert writer.written.words
